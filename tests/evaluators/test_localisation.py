"""Localisation of defects: pixel AUROC, per-region overlap, and the masks of the layout of MVTec AD."""

import dataclasses

import numpy as np
import pytest
from made_contexts import context_of, images
from PIL import Image

from ae_jax import data
from ae_jax.data import new_files
from ae_jax.data.new_parts import Wanted
from ae_jax.evaluators import figures, localisation

pytestmark = pytest.mark.quick_compile
RANDOM = np.random.default_rng(0)


def masks_and_maps():
  """Returns three images with a large and a small region in the first, one region in the second, and noisy maps."""
  masks = np.zeros((3, 12, 12), bool)
  masks[0, :6, :6] = masks[0, 9:11, 9:11] = masks[1, 3:5, 2:9] = True
  maps = np.round(RANDOM.normal(size=masks.shape) + 2.0 * masks, 1)
  return maps, masks


def overlap_by_definition(maps, masks, limit):
  """Returns the area by a loop over all thresholds and regions, as the paper defines it."""
  regions = [np.zeros_like(masks) for _ in range(3)]
  regions[0][0, :6, :6] = regions[1][0, 9:11, 9:11] = regions[2][1, 3:5, 2:9] = True
  points = [(0.0, 0.0)]
  for value in np.unique(maps)[::-1]:
    flagged = maps >= value
    points.append((flagged[~masks].mean(), np.mean([flagged[region].mean() for region in regions])))
  x, y = np.array(points).T
  fine = np.linspace(0, limit, 200_001)[1:]  # right of the jump at 0
  return np.interp(fine, x, y).mean()


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_the_overlap_is_that_of_the_definition(limit):
  maps, masks = masks_and_maps()
  assert localisation.region_overlap(maps, masks, limit) == pytest.approx(
    overlap_by_definition(maps, masks, limit), rel=1e-3
  )


def test_a_small_region_counts_as_much_as_a_large_one():
  masks = np.zeros((1, 12, 12), bool)
  masks[0, :8, :8] = masks[0, 10, 10] = True
  only_large, only_small = (np.zeros(masks.shape) for _ in range(2))
  only_large[0, :8, :8] = only_small[0, 10, 10] = 1.0
  large, small = (localisation.region_overlap(maps, masks) for maps in (only_large, only_small))
  assert large == pytest.approx(small)
  assert localisation.pixel_auroc(only_large, masks) > localisation.pixel_auroc(only_small, masks) + 0.3


def test_perfect_maps_have_area_one_and_constant_maps_that_of_chance():
  _, masks = masks_and_maps()
  assert localisation.region_overlap(masks.astype(float), masks) == pytest.approx(1.0)
  assert localisation.region_overlap(np.ones(masks.shape), masks) == pytest.approx(0.15)
  assert localisation.pixel_auroc(masks.astype(float), masks) == 1.0


def test_the_analysis_compares_error_maps_with_the_masks(monkeypatch):
  context = context_of(images(20, shape=(4, 6, 1)), images(9, shape=(4, 6, 1)), one_class=0)
  assert not [*localisation.analyze(context)]
  defects = np.zeros((9, 4, 6, 1), np.uint8)
  defects[::2, 1:3, 2:4] = 1
  context = dataclasses.replace(context, dataset=dataclasses.replace(context.dataset, defects=defects))
  results = dict(localisation.analyze(context))
  maps = context.run.error_map(context.test).sum(-1)
  assert results["pixel_auroc"] == pytest.approx(localisation.pixel_auroc(maps, defects[..., 0] > 0))
  assert results["region_overlap"] == pytest.approx(localisation.region_overlap(maps, defects[..., 0] > 0))
  assert figures.shape_error(results["defects"]) is None
  np.testing.assert_array_equal(results["defects"].rows["masks"], defects[::2])
  monkeypatch.setattr(localisation, "_MOST_PIXELS", 5 * 24)
  assert "5 of 9 test images" in dict(localisation.analyze(context))["localisation"]


@pytest.fixture
def layout(tmp_path):
  """A folder in the layout of MVTec AD, with 8 x 6 images and one defect class."""
  shades = iter(RANDOM.integers(0, 200, (40, 8, 6), np.uint8))

  def save(name, pixels):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(tmp_path / name)

  for number in range(8):
    save(f"train/good/{number:03}.png", next(shades))
    save(f"test/good/{number:03}.png", next(shades))
  for number in range(3):
    save(f"test/scratch/{number:03}.png", next(shades))
    mask = np.zeros((8, 6), np.uint8)
    mask[number : number + 4, 2:4] = 255
    save(f"ground_truth/scratch/{number:03}_mask.png", mask)
  return tmp_path


def test_masks_follow_the_test_images(layout):
  dataset = data.load("folder", str(layout), "unit", one_class="good")
  assert dataset.anomalous.tolist() == [False] * 8 + [True] * 3
  assert not dataset.defects[:8].any()
  for number in range(3):
    expected = np.zeros((8, 6, 1), np.uint8)
    expected[number : number + 4, 2:4] = 1
    np.testing.assert_array_equal(dataset.defects[8 + number], expected)
  assert not any("ground_truth" in remark for remark in dataset.remarks)
  resized = data.load("folder", str(layout), "unit", size=(4, 3), one_class="good")
  np.testing.assert_array_equal(resized.defects[8, :, :, 0], [[0, 1, 0]] * 2 + [[0, 0, 0]] * 2)
  patches = data.load("folder", str(layout), "unit", patch=(4, 6), one_class="good")
  np.testing.assert_array_equal(patches.defects.reshape(-1, 8, 6, 1), dataset.defects)


def test_incomplete_masks_are_named_and_not_read(layout):
  (layout / "ground_truth" / "scratch" / "001_mask.png").unlink()
  dataset = data.load("folder", str(layout), "unit", one_class="good")
  assert dataset.defects is None
  assert any("masks of defects are not read" in remark and "001_mask.png" in remark for remark in dataset.remarks)


def test_test_images_are_named_by_their_files(layout):
  dataset = data.load("folder", str(layout), "unit", one_class="good")
  assert dataset.test_captions(np.array([7, 10])) == ("test/good/007.png", "test/scratch/002.png")
  assert data.load("folder", str(layout), "unit", patch=(4, 6)).test_captions(np.array([3])) == ("test/good/001.png#1",)
  drawn = data.load("folder", str(layout / "test"), "unit", one_class="good")
  expected = ["good" if label == drawn.one_class else "scratch" for label in drawn.test_labels]
  assert [name.split("/")[0] for name in drawn.test_captions(np.arange(len(drawn.test)))] == expected


def test_new_images_are_read_without_the_masks(layout):
  section = {"window": 0, "patch": (), "size": (), "fit": "stretch", "exif_orientation": False, "follow_links": False}
  found = new_files.read(str(layout), Wanted((8, 6, 1), "unit", None, section))
  names = [name for part in found.parts for name in part.names]
  assert len(names) == 19
  assert not any("ground_truth" in name for name in names)
  assert any("not read: ground_truth" in remark for remark in found.remarks)
