"""Localisation of defects: compares error maps with masks of the defects by pixel AUROC and per-region overlap."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from ae_jax.evaluators import figures
from ae_jax.evaluators.context import EvalContext, spaced

FALSE_ALARMS = 0.3  # false-positive rate up to which the overlap is integrated (Bergmann et al. 2019, section 4.3)
_MOST_PIXELS = 2**25  # maximum number of pixels of all images; if there are more, evenly spaced images are used
_SHOWN = 8  # number of images in the figure
_NEIGHBOURS = np.ones((3, 3))  # connectivity of regions: pixels that touch at a corner are connected


def analyze(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields the pixel AUROC, the per-region overlap and a figure, or nothing if the data have no masks of defects."""
  defects = context.dataset.defects
  if defects is None or not defects.any():
    return
  chosen = spaced(max(1, _MOST_PIXELS // defects[0].size), len(defects))
  masks = defects[chosen, ..., 0].astype(bool)
  if not masks.any():
    return
  maps = context.squares(context.reconstructions[chosen], chosen).sum(-1)
  if len(chosen) < len(defects):
    yield "localisation", f"the masks of {len(chosen):,} of {len(defects):,} test images are compared with error maps"
  if not np.isfinite(maps).all():
    yield "pixel_auroc_remark", "the error maps are not finite: training diverged; lower config.optimizer.learning_rate"
    return
  yield "pixel_auroc", pixel_auroc(maps, masks)
  yield "region_overlap", region_overlap(maps, masks)
  with_defects = np.flatnonzero(masks.any((1, 2)))
  shown = with_defects[spaced(_SHOWN, len(with_defects))]
  yield "defects", _figure(context, chosen[shown], maps[shown], masks[shown])


def pixel_auroc(
  maps: Float[np.ndarray, "images height width"], masks: Bool[np.ndarray, "images height width"]
) -> float:
  """Returns the area under the ROC curve of all pixels; defect pixels are the positive class."""
  from sklearn.metrics import roc_auc_score  # a second of imports

  return float(roc_auc_score(masks.ravel(), maps.ravel()))


def region_overlap(
  maps: Float[np.ndarray, "images height width"],
  masks: Bool[np.ndarray, "images height width"],
  limit: float = FALSE_ALARMS,
) -> float:
  """Returns the normalised area under the curve of the per-region overlap (PRO; Bergmann et al. 2019, section 4.3).

  Pixels whose score is above a threshold are flagged. The overlap is the fraction of flagged pixels in a connected
  region of defects, averaged over the regions of all images. The curve shows the overlap against the false-positive
  rate: the fraction of flagged pixels among the pixels without defects. The area under the curve up to the rate `limit`
  is divided by `limit`. A perfect result is 1; random scores give `limit / 2`.

  Args:
    maps: Anomaly score of each pixel.
    masks: True for defect pixels; there must be at least one.
    limit: Largest false-positive rate.
  """
  regions = _regions(masks)
  order = np.argsort(-maps, axis=None, kind="stable")
  sizes = np.bincount(regions.ravel())
  weights = np.where(sizes > 0, 1 / np.maximum(sizes, 1) / (len(sizes) - 1), 0.0)
  weights[0] = 0.0
  overlap = np.cumsum(weights[regions.ravel()[order]])
  alarms = np.cumsum((regions.ravel() == 0)[order]) / max(1, sizes[0])
  ordered = maps.ravel()[order]
  last = np.append(ordered[1:] < ordered[:-1], True)  # equal scores are flagged together
  return _area(np.append(0.0, alarms[last]), np.append(0.0, overlap[last]), limit)


def _area(x: Float64[np.ndarray, " points"], y: Float64[np.ndarray, " points"], limit: float) -> float:
  """Returns the mean over [0, limit] of the piecewise linear curve through the points (x, y); x is ascending."""
  inside = x <= limit
  x, y = np.append(x[inside], limit), np.append(y[inside], np.interp(limit, x, y))
  return float(np.trapezoid(y, x) / limit)


def _regions(masks: Bool[np.ndarray, "images height width"]) -> Int[np.ndarray, "images height width"]:
  """Returns the index of the region of each pixel; indices start at 1, and 0 means that the pixel has no defect."""
  from scipy import ndimage

  numbers, count = np.zeros(masks.shape, np.int64), 0
  for image, mask in zip(numbers, masks, strict=True):
    found, regions = ndimage.label(mask, _NEIGHBOURS)
    image[mask] = found[mask] + count
    count += regions
  return numbers


def _figure(
  context: EvalContext,
  numbers: Int[np.ndarray, " shown"],
  maps: Float[np.ndarray, "shown height width"],
  masks: Bool[np.ndarray, "shown height width"],
) -> figures.ExampleRows:
  """Returns a figure of images with defects, their masks, and their error maps; each map is divided by its maximum."""
  images, span = context.test[numbers], context.dataset.span
  largest = maps.max((1, 2), keepdims=True)
  scaled = maps / np.where(largest > 0, largest, 1.0)
  shown = lambda values: np.broadcast_to(
    (span.low + (span.high - span.low) * values[..., None]).astype(np.float32), images.shape
  )
  rows = {"test images": images, "masks": shown(masks), "squared error": shown(scaled)}
  captions = context.dataset.test_captions(numbers)
  return figures.ExampleRows("Defects, their masks and the squared errors", rows, captions=captions)
