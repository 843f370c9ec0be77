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
