"""Images made from known factors, as dSprites' are (Matthey et al. 2017): what a code should find is known.

An image shows one white shape on black. Its factors are independent of each other, and each can be told from the image:
the shapes have no more symmetry than half a turn, they are turned by a quarter of a turn at most, and at equal scale
their areas are equal, so that the amount of white tells the scale and nothing else.
"""

import functools

import numpy as np

from ae_jax.data import splits

_WINDOW, _POSITIONS = 17, 16  # pixels: the side of the window that any shape fits, and the places where it can be
SIDE = _WINDOW + _POSITIONS - 1  # of an image, in pixels
AREA = 110.0  # pixels, of any shape at scale 1
_TRAIN, _TEST = 10_000, 2_000
_SAMPLES = 8  # along a pixel's side, that give the share of it which the shape covers


def _rectangle(u, v):
  """Whether points lie inside a rectangle twice as wide as high."""
  return (np.abs(u) <= np.sqrt(1 / 2)) & (np.abs(v) <= np.sqrt(1 / 8))


def _ellipse(u, v):
  """Whether points lie inside an ellipse twice as wide as high."""
  return np.square(u / 2) + np.square(v) <= 1 / (2 * np.pi)


def _heart(u, v):
  """Whether points lie inside a square that stands on a corner, with half a disc on each of its upper sides."""
  side = 1 / np.sqrt(1 + np.pi / 4)
  centroid = (7 / 12 + 3 * np.pi / 16) * side**3  # along each lower side, from the corner
  p, q = (v + u) / np.sqrt(2) + centroid, (v - u) / np.sqrt(2) + centroid
  square = (np.minimum(p, q) >= 0) & (np.maximum(p, q) <= side)
  discs = [np.hypot(p - a * side, q - b * side) <= side / 2 for a, b in ((1, 1 / 2), (1 / 2, 1))]
  return square | discs[0] | discs[1]


# name -> whether points (u to the right, v upwards) lie inside; of area 1, with the centroid at the origin
SHAPES = {"rectangle": _rectangle, "ellipse": _ellipse, "heart": _heart}

# name -> values: lengths in units of the largest, degrees anticlockwise, pixels from the left and from the top
FACTORS = {
  "shape": tuple(SHAPES),
  "scale": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
  "orientation": tuple(range(0, 100, 10)),
  "x": tuple(range(_WINDOW // 2, _WINDOW // 2 + _POSITIONS)),
  "y": tuple(range(_WINDOW // 2, _WINDOW // 2 + _POSITIONS)),
}


def factors(name, path):
  """12,000 different ones of the 46,080 images that the values of `FACTORS` give, drawn uniformly with a fixed seed.

  No image for testing is one for training. The labels are the shapes. `train_factors` and `test_factors` [N, factors]
  are the numbers of their values, `factor_values` is `FACTORS`.
  """
  splits.check_no_path(name, path)
  sizes = [len(values) for values in FACTORS.values()]
  cells = np.random.default_rng(0).permutation(np.prod(sizes))[: _TRAIN + _TEST]
  numbers = np.stack(np.unravel_index(cells, sizes), axis=-1)
  held_out = np.arange(len(cells)) >= _TRAIN
  arrays = splits.split(images(numbers), numbers[:, 0], held_out)
  return arrays | {
    "train_factors": numbers[~held_out],
    "test_factors": numbers[held_out],
    "factor_values": FACTORS,
  }


def images(numbers):
  """The images uint8 [N, SIDE, SIDE, 1] of these numbers of values [N, factors]."""
  window = functools.cache(_window)
  made = np.zeros((len(numbers), SIDE, SIDE, 1), np.uint8)
  for image, (*kind, x, y) in zip(made, numbers.tolist(), strict=True):
    image[y : y + _WINDOW, x : x + _WINDOW, 0] = window(*kind)
  return made


def _window(*kind):
  """The share of each pixel that a shape in the middle of its window covers, in bytes: uint8 [_WINDOW, _WINDOW]."""
  shape, scale, degrees = (values[number] for values, number in zip(FACTORS.values(), kind, strict=False))
  places = (np.arange(_WINDOW * _SAMPLES) + 0.5) / _SAMPLES - _WINDOW / 2
  right, up = (axis / (scale * np.sqrt(AREA)) for axis in (places[None, :], -places[:, None]))
  cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
  inside = SHAPES[shape](cosine * right + sine * up, cosine * up - sine * right)
  covered = inside.reshape(_WINDOW, _SAMPLES, _WINDOW, _SAMPLES).mean((1, 3))
  return np.round(255 * covered).astype(np.uint8)
