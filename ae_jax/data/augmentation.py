"""Augmentation: random changes of the training examples, which `config.data.augment` describes.

An augmentation is a pure function of a random key [], one example, float32 [H, W, C] (image) or [T, C] (series), and
numbers; it returns an example of the same shape. The training step augments its batch before the objective sees it, so
the augmented example is also the target of the reconstruction. Evaluation never augments.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ae_jax import errors
from ae_jax.data import ranges

# Objectives use an example's key itself and small numbers folded into it; this number keeps augmentation apart.
_STREAM = 2**31


def flip(key: jax.Array, x: jax.Array) -> jax.Array:
  """Mirrors an image left to right with probability 1/2."""
  return jnp.where(jax.random.bernoulli(key), x[:, ::-1], x)


def shift(key: jax.Array, x: jax.Array, pixels: int) -> jax.Array:
  """Moves an image by up to `pixels` along both axes, a series by up to `pixels` time steps; repeats the edge.

  All distances are equally probable.
  """
  return _window(key, x, pixels, "edge")


def crop(key: jax.Array, x: jax.Array, pixels: int) -> jax.Array:
  """Pads each side of an image with `pixels` reflected pixels, and crops it to its size at random.

  The usual augmentation of CIFAR, with reflections as in Zagoruyko & Komodakis (2016), section 3.
  """
  return _window(key, x, pixels, "reflect")


def brightness(key: jax.Array, x: jax.Array, most: float, low: float, high: float) -> jax.Array:
  """Adds one number to all elements, uniform in [-most, most], and clips the result to [low, high]."""
  return jnp.clip(x + jax.random.uniform(key, (), x.dtype, -most, most), low, high)


def _window(key, x, pixels, mode):
  """Pads each side of an example by `pixels` as `jnp.pad` does in a mode, and cuts out its shape at random."""
  sides = x.shape[:-1]
  padded = jnp.pad(x, [(pixels, pixels)] * len(sides) + [(0, 0)], mode=mode)
  start = jax.random.randint(key, (len(sides),), 0, 2 * pixels + 1)
  return jax.lax.dynamic_slice(padded, [*start, 0], x.shape)


@dataclasses.dataclass(frozen=True)
class Augment:
  """Augmentations in the order in which they are applied: a static argument of the training step."""

  calls: tuple[tuple[Callable, tuple], ...]  # functions above, each with its arguments after (key, x)

  def __call__(self, x: jax.Array, keys: jax.Array) -> jax.Array:
    """Augments a batch [B, ...] by the keys [B] of its examples; each result depends on its own key alone."""
    return jax.vmap(self._one)(x, keys)

  def _one(self, x, key):
    key = jax.random.fold_in(key, _STREAM)
    for number, (function, arguments) in enumerate(self.calls):
      x = function(jax.random.fold_in(key, number), x, *arguments)
    return x


def build(entries, shape: tuple[int, ...], value_range: str, span: ranges.Span) -> Augment | None:
  """Returns the function (x [B, ...], keys [B]) -> x that `config.data.augment` describes, None for no entries.

  Args:
    entries: dicts such as {"name": "shift", "pixels": 2}: a key of AUGMENTATIONS and its options.
    shape: of an example, [H, W, C] or [T, C].
    value_range: range of the data, a key of ranges.INTERVALS.
    span: of the data.

  Raises:
    UserError: for an unknown name or option, a number out of bounds, and an augmentation of images for series.
  """
  errors.check(len(entries) <= errors.MOST_LAYERS, "data.augment", entries, f"at most {errors.MOST_LAYERS} entries")
  calls = []
  for number, entry in enumerate(entries):
    key = f"data.augment[{number}]"
    good = isinstance(entry, dict) and "name" in entry and all(isinstance(option, str) for option in entry)
    errors.check(good, key, entry, 'a dict such as {"name": "shift", "pixels": 2}')
    options = {option: value for option, value in entry.items() if option != "name"}
    data = _Data(key, shape, span, ranges.INTERVALS[value_range])
    calls.append(errors.call(AUGMENTATIONS, key, entry["name"], data, **options))
  return Augment(tuple(calls)) if calls else None


class _Data(NamedTuple):
  """The key of an entry of the config, and the data that it must fit."""

  key: str  # of the entry
  shape: tuple[int, ...]
  span: ranges.Span
  interval: tuple[float, float]


def _flip(data):
  _check_images(data, "flip")
  return flip, ()


def _shift(data, *, pixels):
  return shift, (_checked_pixels(data, pixels),)


def _crop(data, *, pixels):
  _check_images(data, "crop")
  return crop, (_checked_pixels(data, pixels),)


def _brightness(data, *, level):
  _check_images(data, "brightness")
  good = errors.is_number(level) and 0 < level <= 1
  errors.check(good, f"{data.key}.level", level, "a number above 0, at most 1, in units of the width of the data")
  return brightness, (level * (data.span.high - data.span.low), *data.interval)


def _check_images(data, name):
  """Raises UserError for series: with an offset, mirrored or reflected in time, they change their kind."""
  errors.check(len(data.shape) == 3, f"{data.key}.name", name, "'shift' for series; the others are for images")


def _checked_pixels(data, pixels):
  """Returns the number of pixels; UserError unless it is a positive integer less than each side of an example."""
  most = min(data.shape[:-1]) - 1
  whole = isinstance(pixels, int) and not isinstance(pixels, bool)
  wanted = f"an integer from 1 to {most}, less than each side of the example"
  errors.check(whole and 1 <= pixels <= most, f"{data.key}.pixels", pixels, wanted)
  return pixels


# name -> (data, **options) -> (function, its arguments after (key, x)); the options are those of `config.data.augment`
AUGMENTATIONS: dict[str, Callable] = {"flip": _flip, "shift": _shift, "crop": _crop, "brightness": _brightness}
