"""Images that are rendered from known factors, as in dSprites (Matthey et al. 2017), to measure disentanglement.

Each image shows one white shape on black. The factors are independent, and each factor can be inferred from the image.
Orientations span a quarter turn, and no shape has a rotational symmetry other than a half turn. All shapes of the same
scale have the same area, so the amount of white depends only on the scale.
"""

import functools
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ae_jax.data import splits

_WINDOW, _POSITIONS = 17, 16  # side in pixels of the window that contains a shape; number of its positions per axis
SIDE = _WINDOW + _POSITIONS - 1  # side of an image in pixels
AREA = 110.0  # area of every shape at scale 1, in pixels
_TRAIN, _TEST = 10_000, 2_000
_SAMPLES = 8  # sample points per pixel and axis, to estimate the fraction of the pixel that the shape covers

Coordinate = Float[np.ndarray, "..."]
Inside = Bool[np.ndarray, "..."]


def _rectangle(u: Coordinate, v: Coordinate) -> Inside:
  """Returns the mask of the points inside a rectangle that is twice as wide as high."""
  return (np.abs(u) <= np.sqrt(1 / 2)) & (np.abs(v) <= np.sqrt(1 / 8))


def _ellipse(u: Coordinate, v: Coordinate) -> Inside:
  """Returns the mask of the points inside an ellipse that is twice as wide as high."""
  return np.square(u / 2) + np.square(v) <= 1 / (2 * np.pi)


def _heart(u: Coordinate, v: Coordinate) -> Inside:
  """Returns the mask of the points inside a heart: a square standing on a corner with half discs on its upper sides."""
  side = 1 / np.sqrt(1 + np.pi / 4)
  centroid = (7 / 12 + 3 * np.pi / 16) * side**3  # distance from the lower corner, along each lower side
  p, q = (v + u) / np.sqrt(2) + centroid, (v - u) / np.sqrt(2) + centroid
  square = (np.minimum(p, q) >= 0) & (np.maximum(p, q) <= side)
  discs = [np.hypot(p - a * side, q - b * side) <= side / 2 for a, b in ((1, 1 / 2), (1 / 2, 1))]
  return square | discs[0] | discs[1]


# name -> function (u, v) that returns the mask of the points inside a shape of area 1 with its centroid at the origin;
# u points to the right and v upwards
SHAPES = {"rectangle": _rectangle, "ellipse": _ellipse, "heart": _heart}

# factor -> its values: scale relative to the largest, orientation in degrees anticlockwise, x and y of the centre in
# pixels from the left and the top
FACTORS: dict[str, tuple[Any, ...]] = {
  "shape": tuple(SHAPES),
  "scale": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
  "orientation": tuple(range(0, 100, 10)),
  "x": tuple(range(_WINDOW // 2, _WINDOW // 2 + _POSITIONS)),
  "y": tuple(range(_WINDOW // 2, _WINDOW // 2 + _POSITIONS)),
}


def factors(name: str, path: str) -> dict[str, Any]:
  """Renders images for 12,000 of the 46,080 combinations of `FACTORS`, drawn without replacement with a fixed seed.

  10,000 images are the training set, and 2,000 are the test set. The label is the index of the shape. `train_factors`
  and `test_factors` [N, factors] contain, for each factor, the index of its value in `factor_values` (= `FACTORS`).
  """
  splits.check_no_path(name, path)
  sizes = [len(values) for values in FACTORS.values()]
  cells = np.random.default_rng(0).permutation(np.prod(sizes))[: _TRAIN + _TEST]
  indices = np.stack(np.unravel_index(cells, sizes), axis=-1)
  held_out = np.arange(len(cells)) >= _TRAIN
  arrays = splits.train_and_test(images(indices), indices[:, 0], held_out)
  return arrays | {
    "train_factors": indices[~held_out],
    "test_factors": indices[held_out],
    "factor_values": FACTORS,
    "class_names": FACTORS["shape"],
  }


def images(indices: Int[np.ndarray, "images factors"]) -> UInt8[np.ndarray, "images height width 1"]:
  """Renders one image for each row of `indices`, which contains the index of the value of each factor in `FACTORS`."""
  window = functools.cache(_window)
  canvas = np.zeros((len(indices), SIDE, SIDE, 1), np.uint8)
  for image, (*window_indices, x, y) in zip(canvas, indices.tolist(), strict=True):
    image[y : y + _WINDOW, x : x + _WINDOW, 0] = window(*window_indices)
  return canvas


def _window(*indices: int) -> UInt8[np.ndarray, "window window"]:
  """Returns the fraction of each pixel that a centred shape covers, as bytes from 0 to 255.

  The indices select the shape, the scale and the orientation in `FACTORS`.
  """
  shape, scale, degrees = (values[index] for values, index in zip(FACTORS.values(), indices, strict=False))
  points = (np.arange(_WINDOW * _SAMPLES) + 0.5) / _SAMPLES - _WINDOW / 2
  right, up = (axis / (scale * np.sqrt(AREA)) for axis in (points[None, :], -points[:, None]))
  cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
  inside = SHAPES[shape](cosine * right + sine * up, cosine * up - sine * right)
  covered = inside.reshape(_WINDOW, _SAMPLES, _WINDOW, _SAMPLES).mean((1, 3))
  return np.round(255 * covered).astype(np.uint8)
