"""Graphs of a run and of a sweep."""

import io

import numpy as np
import pytest
from PIL import Image

from ae_jax.report import canvas, graphs
from ae_jax.runs import logs


def read(path):
  with Image.open(path) as image:
    return np.asarray(image).astype(int)


PERFECT = {"epoch": 1.0, "train/loss": 0.0, "test/loss": 0.0, "test/squared_error": 0.0}


@pytest.mark.parametrize("records", [[PERFECT], []])
def test_curves_can_be_drawn_with_zero_errors_and_without_records(tmp_path, records):
  graphs.curves(tmp_path / "a.png", logs.curves(records), {"test/pca_squared_error": 0.0})
  assert (tmp_path / "a.png").exists()


def test_curves_show_the_records(tmp_path):
  records = [{"epoch": e / 2, "train/loss": 90.0 / (e + 1)} for e in range(1, 9)]
  for record in records[1::2]:
    record |= {"test/loss": 99.0 / record["epoch"], "test/squared_error": 9.0 / record["epoch"]}
  baselines = {"test/pca_squared_error": 4.0}
  graphs.curves(tmp_path / "a.png", logs.curves(records), baselines)
  graphs.curves(tmp_path / "b.png", logs.curves(records[:4]), baselines)
  a, b = (read(tmp_path / name) for name in ("a.png", "b.png"))
  assert (a != b).any()


def axes_of_curves(monkeypatch, tmp_path, records, pca, unit="", tested="test example"):
  """Returns the axes of the losses and of the errors."""
  made, new = [], canvas.figure
  monkeypatch.setattr(canvas, "figure", lambda *args: made.append(new(*args)) or made[-1])
  graphs.curves(tmp_path / "a.png", logs.curves(records), {"test/pca_squared_error": pca}, tested, unit)
  return made[-1].axes


def test_short_runs_have_markers_and_long_ones_have_none(monkeypatch, tmp_path):
  record = lambda epoch: {"epoch": float(epoch), "train/loss": 9 / epoch, "test/squared_error": 3 / epoch}
  for epochs, marker in ((1, "o"), (2, "o"), (200, "")):
    records = [record(epoch) for epoch in range(1, epochs + 1)]
    for axes in axes_of_curves(monkeypatch, tmp_path, records, 1.0):
      assert axes.lines[0].get_marker() == marker
      low, high = axes.get_xlim()
      shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
      assert epochs == 1 or shown == [round(tick) for tick in shown]


def test_the_curve_of_errors_has_the_value_of_a_small_baseline_and_the_unit(monkeypatch, tmp_path):
  errors = axes_of_curves(monkeypatch, tmp_path, [PERFECT], 2.5e-7, "in squared standard deviations")[1]
  assert errors.get_legend().get_texts()[-1].get_text().endswith(", 2.5e-07")
  assert errors.get_ylabel() == "squared error per test example,\nin squared standard deviations"


def test_the_longest_label_of_the_curve_of_errors_is_not_cut_off(monkeypatch, tmp_path):
  unit = "in squared standard deviations for numbers"
  errors = axes_of_curves(monkeypatch, tmp_path, [PERFECT], 2.0, unit, "normal test example")[1]
  label = errors.yaxis.label.get_window_extent()
  assert 0 <= label.y0 < label.y1 <= errors.figure.bbox.height


def test_the_error_of_a_sweep_has_its_unit():
  figure = graphs.error_over_latent({"a": {2: [3.0], 4: [2.0]}}, {2: 5.0}, None, {}, "t", "in squared units")
  assert figure.axes[0].get_ylabel().endswith(",\nin squared units")


def test_a_notebook_shows_a_figure_without_pyplot():
  assert read(io.BytesIO(canvas.figure(2, 1)._repr_png_())).shape[:2] == (150, 300)


def test_error_over_latent_size_can_be_drawn_with_and_without_marks(tmp_path):
  curves = {"alpha=1": {2: [3.0, 3.1], 4: [2.0, 2.2]}, "alpha=2": {2: [4.0], 4: [3.0]}}
  dimensions = {"TwoNN": {"estimate": 3.0, "low": 2.9, "high": 3.1}}
  knee = {"latent": 2, "low": 2, "high": 4}
  graphs.error_over_latent(curves, {2: 5.0, 4: 4.0}, knee, dimensions, "title").savefig(tmp_path / "a.png")
  graphs.error_over_latent({}, {}, None, {}, "nothing ended well").savefig(tmp_path / "b.png")
  assert (tmp_path / "a.png").stat().st_size > (tmp_path / "b.png").stat().st_size > 1000


def test_long_titles_fit_into_the_image(tmp_path):
  title = "dense on mnist_5k: No size is enough: from 32 to 64 the error still falls by 39%; try larger ones (beta=1)"
  graphs.error_over_latent({"a": {2: [3.0], 4: [2.0]}}, {2: 5.0, 4: 4.0}, None, {}, title).savefig(tmp_path / "a.png")
  graphs.rate_distortion(tmp_path / "b.png", {2: {0.5: (9.0, 70.0), 1.0: (6.0, 80.0)}}, "nats", title)
  for name in ("a.png", "b.png"):
    picture = read(tmp_path / name)
    assert (picture[:, -3:] == 255).all()
    assert (picture[:3] == 255).all()


def test_rate_distortion_curves_can_be_drawn(tmp_path):
  graphs.rate_distortion(tmp_path / "a.png", {2: {0.5: (9.0, 70.0), 1.0: (6.0, 80.0)}}, "nats", "title")
  assert (tmp_path / "a.png").stat().st_size > 1000


def test_a_title_that_is_wider_than_its_figure_has_several_lines():
  title = "a title of many words " * 6
  narrow, wide = (canvas.figure(width, 2, title) for width in (3, 12))
  assert narrow.get_suptitle().split() == title.split()
  assert max(map(len, narrow.get_suptitle().split("\n"))) <= 42
  assert narrow.get_figheight() > 2
  assert "\n" not in wide.get_suptitle()
