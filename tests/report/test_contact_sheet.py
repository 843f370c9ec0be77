import numpy as np
import pytest
from PIL import Image

from ae_jax import data
from ae_jax.report import contact_sheet


@pytest.mark.parametrize("shape", [(9, 7, 3), (200, 150, 2), (13,), (20, 2), (4, 5, 6, 1)])
@pytest.mark.parametrize("labels", [None, np.arange(12) % 2, np.linspace(0.5, 1, 12)])
def test_the_picture_shows_examples_of_any_kind(tmp_path, shape, labels):
  arrays = {"x_train": np.random.default_rng(0).random((12, *shape))} | ({} if labels is None else {"y_train": labels})
  np.savez(tmp_path / "a.npz", **arrays)
  kind = "series" if len(shape) == 2 else "auto"
  dataset = data.load("npz", str(tmp_path / "a.npz"), "unit", kind=kind)
  contact_sheet.draw(tmp_path / "out.png", dataset, "examples")
  with Image.open(tmp_path / "out.png") as image:
    assert np.ptp(np.asarray(image)[..., :3]) > 100


@pytest.mark.parametrize(
  ("train", "test", "names"),
  [
    (["good"] * 12, ["good", "bent", "hole", "bent"], ["good", "bent (test)", "hole (test)"]),
    (["a", "b"] * 6, ["a", "a", "b", "b"], ["a", "b"]),
    ([f"{i:02}" for i in range(12)], ["00", "01", "broken", "01"], [*(f"{i:02}" for i in range(9)), "broken (test)"]),
    (["good"] * 12, ["good"] * 4, None),
  ],
)
def test_classes_of_the_test_set_only_are_rows_of_test_examples(tmp_path, monkeypatch, train, test, names):
  drawn = []
  monkeypatch.setattr(contact_sheet.pictures, "draw", lambda path, figure, value_range: drawn.append(figure))
  values = np.random.default_rng(0).random((16, 9, 7, 1))
  np.savez(tmp_path / "a.npz", x_train=values[:12], y_train=train, x_test=values[12:] / 2, y_test=test)
  contact_sheet.draw(tmp_path / "out.png", data.load("npz", str(tmp_path / "a.npz"), "unit"), "my data")
  (figure,) = drawn
  assert getattr(figure, "rows", None) is None if names is None else list(figure.rows) == names
  assert figure.title.startswith("training examples of my data")
  assert ("test examples of other classes" in figure.title) == any(name.endswith("(test)") for name in names or ())
  for name in names or ():
    assert (figure.rows[name].max() <= 0.5) == name.endswith("(test)")


@pytest.mark.parametrize("shape", [(13,), (20, 2), (9, 7, 3), (4, 9, 7, 1)])
def test_cells_of_classes_with_few_examples_are_empty(tmp_path, monkeypatch, shape):
  drawn = []
  monkeypatch.setattr(contact_sheet.pictures, "draw", lambda path, figure, value_range: drawn.append(figure))
  arrays = {"x_train": np.full((12, *shape), 0.3), "y_train": [0] * 9 + [1] * 3, "x_test": np.full((4, *shape), 0.3)}
  np.savez(tmp_path / "a.npz", **arrays)
  kind = "series" if len(shape) == 2 else "auto"
  contact_sheet.draw(tmp_path / "out.png", data.load("npz", str(tmp_path / "a.npz"), "unit", kind=kind), "examples")
  for examples, count in zip(drawn[0].rows.values(), (9, 3), strict=True):
    np.testing.assert_allclose(examples[:count], 0.3, rtol=1e-6)
    missing = examples[count:]
    assert np.isnan(missing).all() if len(shape) < 3 else (missing == 0).all()  # images have black cells


@pytest.mark.parametrize("shape", [(13,), (20, 2), (9, 7, 3), (200, 150, 1), (4, 9, 7, 1)])
@pytest.mark.parametrize("labels", [None, np.arange(12) % 2])
def test_missing_values_are_marked(tmp_path, monkeypatch, shape, labels):
  drawn = []
  monkeypatch.setattr(contact_sheet.pictures, "draw", lambda path, figure, value_range: drawn.append(figure))
  mask = np.ones((12, *shape), bool)
  np.moveaxis(mask, 2 if len(shape) == 4 else 1, 0)[1:6] = False  # in each slice of a volume
  arrays = {"x_train": np.full((12, *shape), 0.3), "mask_train": mask, "x_test": np.full((4, *shape), 0.3)}
  arrays |= {"mask_test": np.ones((4, *shape))} | ({} if labels is None else {"y_train": labels})
  np.savez(tmp_path / "a.npz", **arrays)
  kind = "series" if len(shape) == 2 else "auto"
  dataset = data.load("npz", str(tmp_path / "a.npz"), "unit", kind=kind)
  contact_sheet.draw(tmp_path / "out.png", dataset, "examples")
  (figure,) = drawn
  first = figure.examples if labels is None else next(iter(figure.rows.values()))[:6]
  marked = ~np.isclose(first, 0.3)
  if len(shape) < 3:
    np.testing.assert_array_equal(marked, np.isnan(first))
  assert marked.any()
  assert marked.mean() <= 5 / 9
  assert figure.title.split("; ")[1].startswith(("left out" if len(shape) < 3 else "hatched") + ": missing")


def test_gaps_of_a_table_with_names_are_left_out(tmp_path, monkeypatch):
  drawn = []
  monkeypatch.setattr(contact_sheet.pictures, "draw", lambda path, figure, value_range: drawn.append(figure))
  monkeypatch.setenv("AE_JAX_CACHE", str(tmp_path / "cache"))
  (tmp_path / "x.csv").write_text("size,city\n" + "1.5,Rome\n2.5,Bonn\n,\n3.0,Rome\n" * 5)
  for missing in ("mean", "mask"):
    dataset = data.load("csv", str(tmp_path / "x.csv"), "real", missing=missing, test=0.2)
    contact_sheet.draw(tmp_path / "out.png", dataset, "examples")
    gaps = np.isnan(drawn.pop().examples[..., 0])
    assert gaps[:, :4].any()
    assert (gaps[:, :4].all(1) == gaps[:, 0]).all()
    assert not gaps[:, 4:].any()  # indicators
