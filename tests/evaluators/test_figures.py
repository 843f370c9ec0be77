"""What evaluators show, as files: it comes back as it was, and a file that is damaged is said to be."""

import dataclasses
import json
import pickle
import zipfile

import made_runs
import numpy as np
import pytest

from ae_jax import errors
from ae_jax.evaluators import figures

IMAGES = made_runs.images(20, side=8)
KINDS = [value for _, value in made_runs.every_kind(IMAGES, points=30) if dataclasses.is_dataclass(value)]
BARS = figures.Bars("bars", ("a", "b"), np.array([1.0, np.nan]), "x", "y")


def same(a, b):
  """Whether two fields are the same in type, names and every bit."""
  if isinstance(a, np.ndarray):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
  if isinstance(a, dict):
    return list(a) == list(b) and all(same(a[name], b[name]) for name in a)
  return type(a) is type(b) and a == b


def test_there_is_one_of_every_kind():
  assert {type(each) for each in KINDS} == set(figures.KINDS.values())


@pytest.mark.parametrize("figure", [*KINDS, BARS], ids=lambda each: f"{type(each).__name__}: {each.title}")
def test_it_comes_back_as_it_was(tmp_path, figure):
  figures.save(tmp_path / "a.npz", figure)
  back = figures.load(tmp_path / "a.npz")
  assert type(back) is type(figure)
  for field in dataclasses.fields(figure):
    assert same(getattr(figure, field.name), getattr(back, field.name)), field.name


def test_names_may_be_any_text(tmp_path):
  rows = {"<b>": IMAGES, "ü/../x": IMAGES, "": IMAGES}
  figures.save(tmp_path / "a.npz", figures.ExampleRows("a 'title'\n", rows))
  assert list(figures.load(tmp_path / "a.npz").rows) == list(rows)


def test_a_field_that_came_later_has_its_default(tmp_path):
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
  figures.Points("fewer points", {"a": np.ones((3, 2))}, IMAGES, np.zeros(20, int)),
  figures.Points("labels that are no integers", {"a": np.ones((20, 2))}, IMAGES, np.zeros(20)),
  figures.Explorer("other steps", ("a", "b"), np.arange(3.0), IMAGES[:4].reshape(1, 2, 2, 8, 8, 1)),
  figures.Explorer("no names", (), np.arange(2.0), IMAGES[:4].reshape(1, 2, 2, 8, 8, 1)),
  figures.Attention("tokens that tile nothing", IMAGES, {"a": np.ones((20, 1, 1, 7))}),
  figures.Attention("of other examples", IMAGES, {"a": np.ones((3, 1, 1, 16))}),
]


@pytest.mark.parametrize("figure", WRONG, ids=lambda each: f"{type(each).__name__}: {each.title}")
def test_shapes_that_do_not_fit_are_refused(tmp_path, monkeypatch, figure):
  assert figures.fault(figure)
  with pytest.raises(AssertionError, match=r"a\.npz: "):
    figures.save(tmp_path / "a.npz", figure)
  told = figures.fault
  monkeypatch.setattr(figures, "fault", lambda figure: None)
  figures.save(tmp_path / "a.npz", figure)
  monkeypatch.setattr(figures, "fault", told)
  with pytest.raises(errors.UserError, match=r"a\.npz: is not what an evaluator left; remove it: "):
    figures.load(tmp_path / "a.npz")


def test_every_byte_of_a_file_may_be_damaged(tmp_path):
  path = tmp_path / "a.npz"
  figures.save(path, BARS)
  whole = path.read_bytes()
  said = []
  for place in range(0, len(whole), 7):
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
    try:
      figures.load(path)
    except errors.UserError as error:
      said.append(str(error))
  assert all("a.npz: is not what an evaluator left" in each for each in said)
  assert len(said) > len(whole) / 7 / 2  # the rest lie in what zip does not check, as times


@pytest.mark.parametrize("cut", [0, 1, 30, 200, -1])
def test_a_file_that_was_cut_short_is_said(tmp_path, cut):
  figures.save(tmp_path / "a.npz", BARS)
  (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:cut])
  with pytest.raises(errors.UserError, match="is not what an evaluator left"):
    figures.load(tmp_path / "a.npz")


def words(**changes):
  """The member "words" of an figure of bars, with some changes."""
  said = {"kind": "Bars", "title": "t", "names": [], "x_label": "x", "y_label": "y"} | changes
  return np.frombuffer(json.dumps(said).encode(), np.uint8)


class Trap:
  """What shows that it was unpickled."""

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
def test_a_file_of_something_else_is_said_and_nothing_in_it_is_run(tmp_path, members):
  with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
    for name, array in members.items():
      with file.open(f"{name}.npy", "w") as member:
        np.lib.format.write_array(member, array)
  with pytest.raises(errors.UserError, match="is not what an evaluator left"):
    figures.load(tmp_path / "a.npz")


def test_a_pickle_is_no_exhibit(tmp_path):
  (tmp_path / "a.npz").write_bytes(pickle.dumps(Trap()))
  with pytest.raises(errors.UserError, match="is not what an evaluator left"):
    figures.load(tmp_path / "a.npz")
  with pytest.raises(errors.UserError, match="is not what an evaluator left"):
    figures.load(tmp_path / "none.npz")
