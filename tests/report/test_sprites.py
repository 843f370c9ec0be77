"""Image sheets: each cell holds its image bitwise."""

import base64
import io

import made_runs
import numpy as np
import pytest
from PIL import Image

from ae_jax.report import sprites

BYTES = np.random.default_rng(0).integers(0, 256, (7, 5, 6), np.uint8)


def decoded(sheet):
  """Returns the image of a sheet, [H, W, 4]."""
  kind, _, data = sheet.url.partition(",")
  assert kind == "data:image/webp;base64"
  with Image.open(io.BytesIO(base64.b64decode(data))) as image:
    return np.asarray(image.convert("RGBA"))


@pytest.mark.parametrize("columns", [1, 3, 7, 9])
@pytest.mark.parametrize("gap", [0, 1, 2])
def test_each_image_is_in_its_cell_bitwise(columns, gap):
  sheet = sprites.sheet(BYTES, columns, gap=gap)
  whole = decoded(sheet)
  for number, picture in enumerate(BYTES):
    row, column = divmod(number, columns)
    top, left = row * (sheet.height + gap), column * (sheet.width + gap)
    cell = whole[top : top + sheet.height, left : left + sheet.width]
    assert (cell[..., :3] == picture[..., None]).all()
    assert (cell[..., 3] == 255).all()
    assert (whole[top + sheet.height : top + sheet.height + gap, left : left + sheet.width, 3] == 0).all()


@pytest.mark.parametrize(("side", "scale"), [(8, 7), (28, 2), (56, 1), (300, 1)])
def test_images_are_scaled_by_integers(side, scale):
  assert sprites.sheet(np.zeros((1, side, side), np.uint8), 1, shown=56).scale == scale


def test_name_depends_only_on_the_images():
  names = [sprites.sheet(pictures, 3).name for pictures in (BYTES, BYTES.copy(), 255 - BYTES)]
  assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (-3.0, 5.0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_are_restored_from_any_range(low, high, channels):
  wanted = np.repeat(BYTES[..., None], channels, -1)
  found = sprites.of_examples(low + (high - low) * wanted.astype(np.float32) / 255, low, high)
  np.testing.assert_array_equal(found, wanted if channels == 3 else wanted[..., 0])


def test_values_out_of_range_or_not_finite_are_clipped():
  images = np.array([-9.0, 0.0, 1.0, 9.0, np.inf, -np.inf, np.nan], np.float32).reshape(1, 1, 7, 1)
  assert sprites.of_examples(images, 0.0, 1.0).ravel().tolist() == [0, 0, 255, 255, 255, 0, 0]


@pytest.mark.parametrize("shape", [(40, 20), (33, 47), (96, 10)])
def test_large_images_are_downsampled_by_averaging(shape):
  images = np.random.default_rng(0).uniform(size=(2, *shape, 1)).astype(np.float32)
  found = sprites.of_examples(images, 0.0, 1.0, side=16)
  factor = -(-max(shape) // 16)
  assert found.shape[1:] == tuple(-(-side // factor) for side in shape)
  corner = images[:, :factor, :factor].mean((1, 2, 3))
  np.testing.assert_allclose(found[:, 0, 0], 255 * corner, atol=0.51)


def test_differences_are_red_above_blue_below_and_transparent_at_zero():
  found = sprites.of_differences(np.array([0.0, 0.5, -0.5, 1.0, -7.0]).reshape(1, 1, 5, 1), 1.0)[0, 0].astype(int)
  assert found[:, 3].tolist() == [0, 128, 128, 255, 255]
  assert (found[[1, 3], 0] > found[[1, 3], 2]).all()  # red
  assert (found[[2, 4], 2] > found[[2, 4], 0]).all()  # blue


def test_larger_weights_are_brighter():
  found = sprites.of_weights(np.linspace(0, 0.3, 6).reshape(1, 2, 3, 1))[0].sum(-1, dtype=int).ravel()
  assert (np.diff(found) > 0).all()
  assert sprites.of_weights(np.zeros((1, 2, 2, 1))).shape == (1, 2, 2, 3)


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_constant_series_is_a_horizontal_line_at_its_value(level):
  height = 48
  (picture,) = sprites.drawn(np.full((1, 30, 1), level, np.float32), 0.0, 1.0, height=height)
  ink = picture[..., 3].sum(1, dtype=float)
  centre = (ink * (np.arange(height) + 0.5)).sum() / ink.sum() / height
  assert abs(1 - centre - level) < 2 / height
  assert (picture[..., 3].max(0) > 100).all()  # no gaps
  np.testing.assert_allclose(picture[..., 3].sum(0, dtype=float) / 255, 1.5, atol=0.5)  # constant thickness


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_a_table_row_has_a_separate_mark_for_each_column(columns):
  values = np.linspace(0.2, 0.9, columns, dtype=np.float32)[None, :, None]
  (picture,) = sprites.drawn(values, 0.0, 1.0, 48, 96, joined=False)
  inked = picture[..., 3].any(0)
  assert (np.diff(np.flatnonzero(inked)) > 1).sum() == columns - 1  # gaps between the marks
  rows = [np.flatnonzero(part[..., 3].any(1)).mean() for part in np.array_split(picture, columns, axis=1)]
  np.testing.assert_allclose(rows, 48 * (1 - values.ravel()) - 0.5, atol=1.0)


@pytest.mark.parametrize("joined", [True, False])
def test_missing_steps_are_left_out(joined):
  values = np.full((1, 9, 2), 0.5, np.float32)
  values[0, 3:6, 1] = np.nan
  values[..., 1] += 0.3
  (picture,) = sprites.drawn(values, 0.0, 1.0, 48, 96, joined=joined)
  upper, lower = picture[:20, :, 3].any(0), picture[20:, :, 3].any(0)
  assert not upper[36:60].any()
  assert lower[36:60].any()
  assert upper[:30].any()
  assert upper[66:].any()


@pytest.mark.parametrize("steps", [2, 7, 300])
def test_ramp_is_a_straight_line_for_any_number_of_steps(steps):
  height, width = 48, 96
  (picture,) = sprites.drawn(np.linspace(0, 1, steps)[None, :, None], 0.0, 1.0, height, width)
  ink = picture[..., 3].astype(float)
  centres = (ink * (np.arange(height)[:, None] + 0.5)).sum(0) / ink.sum(0)
  wanted = height - 0.75 - (height - 1.5) * (np.arange(width) + 0.5) / width
  assert np.abs(centres - wanted).max() < 1


def test_drawing_of_a_series_does_not_depend_on_the_other_series(monkeypatch):
  series = made_runs.series(9, channels=2)
  wanted = sprites.of_examples(series, -1.0, 1.0)
  monkeypatch.setattr(sprites, "_CHUNK", 4)
  np.testing.assert_array_equal(sprites.of_examples(series, -1.0, 1.0), wanted)
  np.testing.assert_array_equal(sprites.of_examples(series[5:6], -1.0, 1.0)[0], wanted[5])
  assert len(np.unique(wanted[..., :3].reshape(-1, 3), axis=0)) == 3  # one colour for each channel, and the background


def test_single_steps_and_nan_can_be_drawn():
  assert sprites.of_examples(np.full((2, 1, 1), 0.5, np.float32), 0.0, 1.0)[..., 3].any()
  assert sprites.of_examples(np.full((2, 5, 1), np.nan, np.float32), 0.0, 1.0)[..., 3].any()
