"""Images generated from known factors, as in dSprites (Matthey et al. 2017), so that disentanglement can be measured.

An image shows one white shape on black. The factors are independent, and each can be inferred from the image: no shape
has a symmetry other than half a turn, orientations span at most a quarter of a turn, and all shapes have the same area
at the same scale, so that the amount of white depends on the scale alone.
"""

import functools
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ae_jax.data import splits

_WINDOW, _POSITIONS = 17, 16  # pixels: the side of the window that contains any shape, and its positions along an axis
SIDE = _WINDOW + _POSITIONS - 1  # pixels of an image
AREA = 110.0  # pixels of any shape at scale 1
_TRAIN, _TEST = 10_000, 2_000
_SAMPLES = 8  # per pixel and axis, to estimate the share of the pixel that the shape covers

Coordinate = Float[np.ndarray, "..."]
Inside = Bool[np.ndarray, "..."]


def _rectangle(u: Coordinate, v: Coordinate) -> Inside:
  """Returns which points lie inside a rectangle twice as wide as high."""
  return (np.abs(u) <= np.sqrt(1 / 2)) & (np.abs(v) <= np.sqrt(1 / 8))


def _ellipse(u: Coordinate, v: Coordinate) -> Inside:
  """Returns which points lie inside an ellipse twice as wide as high."""
  return np.square(u / 2) + np.square(v) <= 1 / (2 * np.pi)


def _heart(u: Coordinate, v: Coordinate) -> Inside:
  """Returns which points lie inside a square standing on a corner, with half a disc on each of its upper sides."""
  side = 1 / np.sqrt(1 + np.pi / 4)
  centroid = (7 / 12 + 3 * np.pi / 16) * side**3  # along each lower side, from the corner
  p, q = (v + u) / np.sqrt(2) + centroid, (v - u) / np.sqrt(2) + centroid
  square = (np.minimum(p, q) >= 0) & (np.maximum(p, q) <= side)
  discs = [np.hypot(p - a * side, q - b * side) <= side / 2 for a, b in ((1, 1 / 2), (1 / 2, 1))]
  return square | discs[0] | discs[1]


# name -> (u to the right, v upwards) -> inside the shape; each has area 1 and its centroid at the origin
SHAPES = {"rectangle": _rectangle, "ellipse": _ellipse, "heart": _heart}

# name -> values: scale relative to the largest, degrees anticlockwise, pixels from the left and from the top
FACTORS: dict[str, tuple[Any, ...]] = {
  "shape": tuple(SHAPES),
  "scale": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
  "orientation": tuple(range(0, 100, 10)),
  "x": tuple(range(_WINDOW // 2, _WINDOW // 2 + _POSITIONS)),
  "y": tuple(range(_WINDOW // 2, _WINDOW // 2 + _POSITIONS)),
}


def factors(name: str, path: str) -> dict[str, Any]:
  """Generates 12,000 distinct images of the 46,080 that `FACTORS` defines, drawn uniformly with a fixed seed.

  The test images do not occur in training. The labels are the shapes. `train_factors` and `test_factors` [N, factors]
  hold the indices of the factor values, and `factor_values` is `FACTORS`.
  """
  splits.check_no_path(name, path)
  sizes = [len(values) for values in FACTORS.values()]
  cells = np.random.default_rng(0).permutation(np.prod(sizes))[: _TRAIN + _TEST]
  indices = np.stack(np.unravel_index(cells, sizes), axis=-1)
  held_out = np.arange(len(cells)) >= _TRAIN
  arrays = splits.split(images(indices), indices[:, 0], held_out)
  return arrays | {
    "train_factors": indices[~held_out],
    "test_factors": indices[held_out],
    "factor_values": FACTORS,
  }


def images(indices: Int[np.ndarray, "images factors"]) -> UInt8[np.ndarray, "images height width 1"]:
  """Returns the images that have the factor values at `indices`."""
  window = functools.cache(_window)
  drawn = np.zeros((len(indices), SIDE, SIDE, 1), np.uint8)
  for image, (*window_indices, x, y) in zip(drawn, indices.tolist(), strict=True):
    image[y : y + _WINDOW, x : x + _WINDOW, 0] = window(*window_indices)
  return drawn


def _window(*indices: int) -> UInt8[np.ndarray, "window window"]:
  """Returns the share of each pixel that a centred shape covers, in bytes [_WINDOW, _WINDOW].

  The indices select its shape, scale and orientation in `FACTORS`.
  """
  shape, scale, degrees = (values[index] for values, index in zip(FACTORS.values(), indices, strict=False))
  points = (np.arange(_WINDOW * _SAMPLES) + 0.5) / _SAMPLES - _WINDOW / 2
  right, up = (axis / (scale * np.sqrt(AREA)) for axis in (points[None, :], -points[:, None]))
  cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
  inside = SHAPES[shape](cosine * right + sine * up, cosine * up - sine * right)
  covered = inside.reshape(_WINDOW, _SAMPLES, _WINDOW, _SAMPLES).mean((1, 3))
  return np.round(255 * covered).astype(np.uint8)
