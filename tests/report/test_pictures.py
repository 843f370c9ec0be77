"""Static images of every kind of figure, for images and series, and for few and many examples."""

import dataclasses
import types

import made_runs
import numpy as np
import pytest
from PIL import Image

from ae_jax import config as configs
from ae_jax.evaluators import figures
from ae_jax.report import blocks, canvas, evaluation, example_figures, page, pictures
from ae_jax.report import channels as channels_module

GREY, COLOURS, SERIES = made_runs.images(20, side=8), made_runs.images(20, side=8, channels=3), made_runs.series(20)


def read(path):
  with Image.open(path) as image:
    return np.asarray(image).astype(int)


def drawn(tmp_path, figure, value_range="unit"):
  """Draws a figure, and returns the pixels."""
  pictures.draw(tmp_path / "a.png", figure, value_range)
  return read(tmp_path / "a.png")


def kinds(examples):
  """Returns a figure of every kind."""
  return [value for _, value in made_runs.every_kind(examples, points=30) if dataclasses.is_dataclass(value)]


@pytest.mark.parametrize("number", range(len(kinds(GREY))))
@pytest.mark.parametrize("examples", [GREY, SERIES], ids=["images", "series"])
def test_every_kind_of_figure_can_be_drawn(tmp_path, examples, number):
  picture = drawn(tmp_path, kinds(examples)[number], "unit" if examples.ndim == 4 else "real")
  assert picture.std() > 10
  assert max(picture.shape) < 2**13


@pytest.mark.usefixtures("pictures")
def test_every_figure_and_the_learning_curves_are_saved(tmp_path):
  shown = {"a/one": figures.Gallery("one", GREY), "b/two": figures.Bars("two", (), np.ones(2), "x", "y")}
  run = types.SimpleNamespace(records=made_runs.records(2), config=configs.base("digits"), schema=None)
  evaluation.draw(shown, run, {"test/pca_squared_error": 4.0}, tmp_path / "pictures")
  assert sorted(file.name for file in (tmp_path / "pictures").iterdir()) == ["curves.png", "one.png", "two.png"]


@pytest.mark.parametrize(("channels", "as_if"), [(2, 1), (12, 3)])
def test_other_numbers_of_channels_are_drawn_in_part(tmp_path, channels, as_if):
  images = made_runs.images(20, side=8, channels=channels)
  for figure, wanted in zip(kinds(images), kinds(images[..., :as_if]), strict=True):
    titled = channels_module.titled(figure)
    if titled is figure:
      continue
    assert titled.title.endswith(f", of {channels} channels)")
    if isinstance(figure, figures.Gallery):  # drawing all kinds takes seconds
      wanted = dataclasses.replace(wanted, title=titled.title)
      np.testing.assert_array_equal(drawn(tmp_path, figure), drawn(tmp_path, wanted))
    assert titled.title == blocks.of_figure(figure, "unit")["title"]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("value_range", ["unit", "symmetric", "real"])
def test_reconstructions_show_images_reconstructions_and_differences(tmp_path, channels, value_range):
  images = np.random.default_rng(0).uniform(size=(5, 9, 7, channels)).astype(np.float32)
  made = lambda other: figures.ExampleRows("title", {"test images": images, "reconstructions": other})
  a, b = (drawn(tmp_path, made(other), value_range) for other in (images, 1 - images))
  assert a.shape == b.shape
  thirds = [np.abs(x - y).max() for x, y in zip(np.array_split(a, 3), np.array_split(b, 3), strict=True)]
  assert thirds[0] == 0  # the images
  assert min(thirds[1:]) > 50  # the reconstructions and the differences


@pytest.mark.parametrize(("examples", "mean"), [(GREY, ""), (COLOURS, ", averaged over the channels")])
def test_pictures_and_pages_explain_differences_with_the_same_words(monkeypatch, tmp_path, examples, mean):
  figure = figures.ExampleRows("title", {"test images": examples[:3], "reconstructions": examples[3:6]})
  calls = []
  monkeypatch.setattr(pictures, "_strips", lambda path, rows, title, captions: calls.append((rows[-1], title)))
  pictures.draw(tmp_path / "a.png", figure, "unit")
  block, ((name, differences, *_), title) = blocks.of_figure(figure, "unit"), calls[0]
  assert block["note"] == f"difference: reconstruction minus original{mean}; red: too bright, blue: too dark"
  assert title == f"title ({block['note']})"
  assert name == block["rows"][-1][0] == "difference"
  np.testing.assert_allclose(differences[..., 0], (examples[3:6] - examples[:3]).mean(-1), atol=1e-6)


def test_the_differences_of_pairs_are_those_from_the_targets():
  rows = {"inputs": GREY[:3], "targets": GREY[3:6], "reconstructions": GREY[6:9]}
  differences, note = example_figures.difference(figures.ExampleRows("title", rows))
  np.testing.assert_array_equal(differences, GREY[6:9] - GREY[3:6])
  assert note.startswith("difference: reconstruction minus target;")
  assert blocks.of_figure(figures.ExampleRows("title", rows), "unit")["rows"][-1][0] == "difference"
  assert example_figures.difference(figures.ExampleRows("title", rows | {"completed": GREY[:3]})) is None


def test_a_few_names_that_do_not_fit_below_the_axis_are_beside_horizontal_bars(monkeypatch, tmp_path):
  made, new = [], canvas.figure
  monkeypatch.setattr(canvas, "figure", lambda *args: made.append(new(*args)) or made[-1])
  names = ("city", "smoker", "glucose mg/dL", "weight kg", "age", "price $", "visit")
  for chosen, label in ((names, "y"), (names[:4], "x"), (tuple("0123456789"), "x")):
    pictures.draw(tmp_path / "a.png", figures.Bars("t", chosen, np.ones(len(chosen)), "x", "y"), "unit")
    assert made[-1].axes[0].get_xlabel() == label


@pytest.mark.parametrize("logarithmic", [True, False])
def test_histograms_and_rows_of_classes_can_be_drawn(tmp_path, logarithmic):
  lines = {"a $1": np.array([(0.1, 1, 20), (1.0, 2.0, 3.0)]), "threshold $2": np.array([(1.5, 1.5), (0.0, 3.0)])}
  assert drawn(tmp_path, figures.Lines("t", lines, "score", "y", logarithmic_x=logarithmic)).std() > 10
  rows = {"a": np.array([np.arange(40), np.linspace(0, 1, 40)])}
  few = drawn(tmp_path, figures.Lines("t", {"a": rows["a"][:, :2]}, "class", "y", ("x $1", "y $2")))
  many = drawn(
    tmp_path, figures.Lines("t", rows, "class", "y", tuple(f"a long name of a class {i}" for i in range(40)))
  )
  assert len(many) > 2 * len(few)


def test_images_have_their_captions_above_them_in_pictures_and_on_pages(tmp_path):
  rows = {"test images": GREY[:4], "reconstructions": GREY[4:8]}
  bare = figures.ExampleRows("title", rows)
  named = dataclasses.replace(bare, captions=("bent, score 3", "a < b, score $2", "c, score 1", "d, score 0, missed"))
  assert len(drawn(tmp_path, named)) > len(drawn(tmp_path, bare))
  assert blocks.of_figure(named, "unit")["captions"] == named.captions
  page.write(tmp_path / "a.html", "title", "answer", [("figures", [blocks.of_figure(named, "unit")])])
  assert "<span>a &lt; b, score $2</span>" in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize("examples", [GREY, COLOURS, SERIES], ids=["grey", "colours", "series"])
def test_different_examples_give_different_images(tmp_path, examples):
  one = figures.ExampleRows("title", {"a": examples[:4], "b": examples[:4]})
  other = figures.ExampleRows("title", {"a": examples[:4], "b": examples[4:8]})
  assert (drawn(tmp_path, one, "real") != drawn(tmp_path, other, "real")).any()


def test_constant_and_single_images_can_be_drawn(tmp_path):
  images = np.full((1, 4, 4, 1), 0.5, np.float32)
  assert drawn(tmp_path, figures.ExampleRows("t", {"x": images, "reconstructions": images}), "real").shape[1] > 100
  assert drawn(tmp_path, figures.Gallery("t", images), "real").shape[1] > 100


def blue_share(picture):
  """Returns the fraction of blue pixels, the colour of bars."""
  return (picture[..., 2] > picture[..., 0] + 0.2).mean()


def test_values_that_are_not_finite_do_not_change_the_others(tmp_path):
  """The scale ignores them, so the first image is drawn as beside an image within its range."""
  first = np.linspace(-3, 5, 16, dtype=np.float32).reshape(1, 4, 4, 1)
  pictures_of = [
    drawn(tmp_path, figures.Gallery("t", np.concatenate([first, np.full((1, 4, 4, 1), other, np.float32)])), "real")
    for other in (0.0, np.nan, np.inf)
  ]
  half = pictures_of[0].shape[0] // 2  # two images, one below the other
  assert all((picture[:half] == pictures_of[0][:half]).all() for picture in pictures_of)
  bars = [figures.Bars("t", (), np.array([other, 0.0, 1.0]), "x", "y") for other in (0.0, np.nan, np.inf)]
  shares = [blue_share(drawn(tmp_path, item)) for item in bars]
  assert min(shares) > 0.5 * shares[0] > 0


def test_long_names_leave_room_for_the_bars(tmp_path):
  """Counts the blue pixels of the bars, with short and with long names."""
  short, long = (
    blue_share(drawn(tmp_path, figures.Bars("t", names, np.ones(4), "reader", "accuracy")))
    for names in (("a", "b", "c", "d"), tuple(f"the classifier number {number}" for number in range(4)))
  )
  assert long > 0.5 * short


def test_a_chart_of_many_long_names_is_taller(tmp_path):
  heights = [
    drawn(tmp_path, figures.Bars("t", tuple(f"column number {n}" for n in range(count)), np.ones(count), "x", "y"))
    for count in (5, 40)
  ]
  assert len(heights[1]) > 2 * len(heights[0])


@pytest.mark.parametrize("count", [1, 3, 20])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_series_up_to_the_limit_appears(tmp_path, channels, count):
  """Changes the last series: the picture changes, unless the series is beyond the limit of the kind."""
  series = made_runs.series(count, channels=channels)
  changed = np.concatenate([series[:-1], series[-1:, ::-1]])
  weights = {"encoder": np.full((count, 1, 1, 60), 1 / 60, np.float32)}
  for figure_of, limit in (
    (lambda x: figures.ExampleRows("t", {"series": x, "reconstructions": 0.5 * x}), 16),
    (lambda x: figures.Gallery("t", x), 100),
    (lambda x: figures.Attention("t", x, weights), 16),
  ):
    differ = (drawn(tmp_path, figure_of(series), "real") != drawn(tmp_path, figure_of(changed), "real")).any()
    assert differ == (count <= limit)


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 12, 3)])
def test_attention_has_a_row_for_each_head(tmp_path, shape):
  generator = np.random.default_rng(0)
  images = generator.uniform(size=(4, *shape)).astype(np.float32)
  tokens = shape[0] * shape[1] // 16
  one, many = generator.dirichlet(np.ones(tokens), (4, 1, tokens)), generator.dirichlet(np.ones(tokens), (4, 3, 2))
  few, more = (drawn(tmp_path, figures.Attention("t", images, {"a": w.astype(np.float32)})) for w in (one, many))
  assert more.shape[0] > 1.5 * few.shape[0]  # 4 rows and 2


def test_heads_are_means_over_the_queries_tiled_over_the_image():
  weights = np.random.default_rng(0).dirichlet(np.ones(6), (4, 3, 5)).astype(np.float32)
  images = np.zeros((4, 8, 12, 1), np.float32)
  found = dict(example_figures.heads(figures.Attention("t", images, {"pool": weights})))
  assert list(found) == ["pool 1", "pool 2", "pool 3"]
  np.testing.assert_allclose(found["pool 2"][:, ::4, ::4, 0], weights[:, 1].mean(1).reshape(4, 2, 3), rtol=1e-6)
  np.testing.assert_array_equal(found["pool 2"][:, 0], found["pool 2"][:, 3])
  padded = dict(example_figures.heads(figures.Attention("t", images[:, :7, :11], {"pool": weights})))
  assert padded["pool 2"].shape == (4, 7, 11, 1)
  np.testing.assert_allclose(padded["pool 2"][:, ::4, ::4, 0], weights[:, 1].mean(1).reshape(4, 2, 3), rtol=1e-6)
  series = np.zeros((4, 6, 1), np.float32)
  (_, over_time), *_ = example_figures.heads(figures.Attention("t", series, {"pool": weights}))
  np.testing.assert_allclose(over_time[..., 0], weights[:, 0].mean(1), rtol=1e-6)


def test_number_of_attention_rows_is_limited(tmp_path):
  images, weights = np.ones((1, 4, 4, 1), np.float32), np.full((1, 600, 1, 16), 1 / 16, np.float32)
  assert drawn(tmp_path, figures.Attention("t", images, {"pool": weights})).shape[0] < 2**14


def test_limits_are_the_bounds_of_the_range_or_of_the_finite_values():
  assert example_figures.limits(np.array([0.2, 0.3]), "symmetric") == (-1.0, 1.0)
  assert example_figures.limits(np.array([-3.0, np.inf, 5.0, np.nan]), "real") == (-3.0, 5.0)
  assert example_figures.limits(np.array([2.0, 2.0]), "real") == (2.0, 3.0)
  assert example_figures.limits(np.array([np.nan]), "real") == (0.0, 1.0)
