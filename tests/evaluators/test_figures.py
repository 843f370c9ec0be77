"""Figures survive a round trip through a file, and a damaged file raises a UserError."""

import dataclasses
import json
import pickle
import zipfile

import made_runs
import numpy as np
import pytest

from ae_jax import errors
from ae_jax.evaluators import display, figures

IMAGES = made_runs.images(20, side=8)
KINDS = [value for _, value in made_runs.every_kind(IMAGES, points=30) if dataclasses.is_dataclass(value)]
BARS = figures.Bars("bars", ("a", "b"), np.array([1.0, np.nan]), "x", "y")


def same(a, b):
  """Returns whether two fields have the same type, names and bits."""
  if isinstance(a, np.ndarray):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
  if isinstance(a, dict):
    return list(a) == list(b) and all(same(a[name], b[name]) for name in a)
  return type(a) is type(b) and a == b


def test_examples_cover_every_kind():
  assert {type(each) for each in KINDS} == set(figures.KINDS.values())


@pytest.mark.parametrize("figure", [*KINDS, BARS], ids=lambda each: f"{type(each).__name__}: {each.title}")
def test_a_figure_survives_a_round_trip_bitwise(tmp_path, figure):
  figures.save(tmp_path / "a.npz", figure)
  loaded = figures.load(tmp_path / "a.npz")
  assert type(loaded) is type(figure)
  for field in dataclasses.fields(figure):
    assert same(getattr(figure, field.name), getattr(loaded, field.name)), field.name


def test_names_may_be_any_text(tmp_path):
  rows = {"<b>": IMAGES, "ü/../x": IMAGES, "": IMAGES}
  figures.save(tmp_path / "a.npz", figures.ExampleRows("a 'title'\n", rows))
  assert list(figures.load(tmp_path / "a.npz").rows) == list(rows)


def test_a_file_without_a_newer_field_gets_its_default(tmp_path):
  figures.save(tmp_path / "a.npz", figures.Heatmap("map", "unit", np.ones((2, 3))))
  stored = dict(np.load(tmp_path / "a.npz"))
  words = json.loads(stored["words"].tobytes())
  del words["x_label"]
  np.savez(tmp_path / "b.npz", **stored | {"words": np.frombuffer(json.dumps(words).encode(), np.uint8)})
  assert figures.load(tmp_path / "b.npz").x_label == ""


WRONG = [
  figures.ExampleRows("no rows", {}),
  figures.ExampleRows("rows of different shapes", {"a": IMAGES, "b": IMAGES[:3]}),
  figures.Gallery("none", IMAGES[:0]),
  figures.Gallery("numbers", np.ones(3)),
  figures.Heatmap("a volume", "unit", np.ones((2, 2, 2))),
  figures.Bars("names of other values", ("a",), np.ones(2), "x", "y"),
  figures.Lines("no line", {}, "x", "y"),
  figures.Lines("three coordinates", {"a": np.ones((3, 2))}, "x", "y"),
  figures.Timelines(
    "marks that are no stretches", {"a": np.ones((2, 3))}, {"a": np.ones((2, 3))}, {"a": np.ones(2)}, 1.0
  ),
  figures.Timelines("other panels", {"a": np.ones((2, 3))}, {"b": np.ones((2, 3))}, {"a": np.ones((0, 2))}, 1.0),
  figures.Points("fewer points", {"a": np.ones((3, 2))}, IMAGES, np.zeros(20, int)),
  figures.Points("labels that are no integers", {"a": np.ones((20, 2))}, IMAGES, np.zeros(20)),
  figures.Explorer("other steps", ("a", "b"), np.arange(3.0), IMAGES[:4].reshape(1, 2, 2, 8, 8, 1)),
  figures.Explorer("no names", (), np.arange(2.0), IMAGES[:4].reshape(1, 2, 2, 8, 8, 1)),
  figures.Attention("tokens that tile nothing", IMAGES, {"a": np.ones((20, 1, 1, 7))}),
  figures.Attention("of other examples", IMAGES, {"a": np.ones((3, 1, 1, 16))}),
]


@pytest.mark.parametrize("figure", WRONG, ids=lambda each: f"{type(each).__name__}: {each.title}")
def test_inconsistent_shapes_are_refused(tmp_path, monkeypatch, figure):
  assert figures.shape_error(figure)
  with pytest.raises(AssertionError, match=r"a\.npz: "):
    figures.save(tmp_path / "a.npz", figure)
  fault = figures.shape_error
  monkeypatch.setattr(figures, "shape_error", lambda figure: None)
  figures.save(tmp_path / "a.npz", figure)
  monkeypatch.setattr(figures, "shape_error", fault)
  with pytest.raises(errors.UserError, match=r"a\.npz: cannot be read as a figure \(remove the folder .*\): "):
    figures.load(tmp_path / "a.npz")


def test_damage_anywhere_in_a_file_raises_a_user_error(tmp_path):
  path = tmp_path / "a.npz"
  figures.save(path, BARS)
  content = path.read_bytes()
  messages = []
  for position in range(0, len(content), 7):
    path.write_bytes(content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :])
    try:
      figures.load(path)
    except errors.UserError as error:
      messages.append(str(error))
  assert all("a.npz: cannot be read as a figure" in message for message in messages)
  assert len(messages) > len(content) / 7 / 2  # zip does not check the other bytes, such as times


@pytest.mark.parametrize("cut", [0, 1, 30, 200, -1])
def test_a_truncated_file_raises_a_user_error(tmp_path, cut):
  figures.save(tmp_path / "a.npz", BARS)
  (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:cut])
  with pytest.raises(errors.UserError, match="cannot be read as a figure"):
    figures.load(tmp_path / "a.npz")


def words(**changes):
  """Returns the member "words" of a bar chart, with some changes."""
  fields = {"kind": "Bars", "title": "t", "names": [], "x_label": "x", "y_label": "y"} | changes
  return np.frombuffer(json.dumps(fields).encode(), np.uint8)


class Trap:
  """Fails the test when it is unpickled."""

  def __reduce__(self):
    return pytest.fail, ("it was unpickled",)


@pytest.mark.parametrize(
  "members",
  [
    {},
    {"words": np.frombuffer(b"not JSON", np.uint8), "values": np.ones(2)},
    {"words": np.frombuffer(b"[]", np.uint8), "values": np.ones(2)},
    {"words": words(kind="Trap"), "values": np.ones(2)},
    {"words": words(kind=["Bars"]), "values": np.ones(2)},
    {"words": words(names=3), "values": np.ones(2)},
    {"words": words()},
    {"words": words(), "values": np.array([Trap()], object)},
    {"words": np.array(Trap(), object), "values": np.ones(2)},
  ],
)
def test_a_foreign_file_raises_a_user_error_and_none_of_its_code_runs(tmp_path, members):
  with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
    for name, array in members.items():
      with file.open(f"{name}.npy", "w") as member:
        np.lib.format.write_array(member, array)
  with pytest.raises(errors.UserError, match="cannot be read as a figure"):
    figures.load(tmp_path / "a.npz")


def test_a_pickle_and_a_missing_file_raise_a_user_error(tmp_path):
  (tmp_path / "a.npz").write_bytes(pickle.dumps(Trap()))
  with pytest.raises(errors.UserError, match="cannot be read as a figure"):
    figures.load(tmp_path / "a.npz")
  with pytest.raises(errors.UserError, match="cannot be read as a figure"):
    figures.load(tmp_path / "none.npz")


def test_figures_of_volumes_show_the_middle_slice_and_say_so():
  volumes = np.arange(2 * 5 * 3 * 4).reshape(2, 5, 3, 4, 1).astype(np.float32)
  rows = display.drawable(figures.ExampleRows("Rows", {"test volumes": volumes}), "volumes")
  np.testing.assert_array_equal(rows.rows["test volumes"], volumes[:, 2])
  gallery = display.drawable(figures.Gallery("Gallery", volumes), "volumes")
  np.testing.assert_array_equal(gallery.examples, volumes[:, 2])
  assert (rows.title, gallery.title) == ("Rows (slice 3 of 5)", "Gallery (slice 3 of 5)")
  heatmap = figures.Heatmap("Map", "value", np.ones((3, 4)))
  assert display.drawable(heatmap, "volumes") is heatmap


def test_large_images_are_reduced_and_small_images_are_not():
  images = np.random.default_rng(0).random((2, 300, 512, 3), np.float32)
  rows = display.drawable(figures.ExampleRows("Rows", {"test images": images}), "images").rows["test images"]
  np.testing.assert_allclose(rows[1, 4, 7], images[1, 8:10, 14:16].mean((0, 1)), rtol=1e-6)
  grid = np.broadcast_to(images[0], (1, 2, 2, *images.shape[1:]))
  explorer = display.drawable(figures.Explorer("Explorer", ("a", "b"), np.ones(2), grid), "images")
  assert rows.shape == (2, 150, 256, 3)
  assert explorer.examples.shape == (1, 2, 2, 150, 256, 3)
  small = images[:, :256, :256]
  assert display.drawable(figures.Gallery("Gallery", small), "images").examples is small


def test_patches_that_reach_beyond_an_image_cover_it():
  weights = np.ones((1, 2, 4, 11 * 15), np.float32)
  figure = figures.Attention("Attention", np.ones((1, 75, 101, 3), np.float32), {"layer": weights})
  assert figures.shape_error(figure) is None
  assert figures.side_of_patch(75, 101, 11 * 15) == 7
  assert "164 square patches" in figures.shape_error(dataclasses.replace(figure, weights={"layer": weights[..., 1:]}))
