"""Random augmentation of the training examples, configured by `config.data.augment`.

An augmentation is a pure function of a random key [], one example (float32 [H, W, C] or [T, C]) and its options. It
returns an example of the same shape. The training step augments each batch before it computes the objective, so the
augmented example is also the target of the reconstruction. If the data have targets or masks, these are augmented with
the same keys, so they get the same shifts and flips as the examples. Evaluation uses the original examples.
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ae_jax import errors
from ae_jax.data import ranges
from ae_jax.types import AnyArray, Keys

# Objectives use the key of an example and fold small numbers into it. Folding in this number gives independent keys.
_STREAM = 2**31

Image = Float[AnyArray, "height width channels"]
Example = Float[AnyArray, "*shape"]  # an image, or a series [T, C]


def flip(key: Key[Array, ""], x: Image) -> Image:
  """Mirrors an image left to right with probability 1/2."""
  return jnp.where(jax.random.bernoulli(key), x[:, ::-1], x)


def shift(key: Key[Array, ""], x: Example, pixels: int) -> Example:
  """Shifts an image by up to `pixels` along both axes, or a series by up to `pixels` time steps.

  All shifts have the same probability. Values at the edge are repeated to fill the gap.
  """
  return _window(key, x, pixels, "edge")


def crop(key: Key[Array, ""], x: Image, pixels: int) -> Image:
  """Pads each side of an image with `pixels` reflected pixels, then crops a random window of the original size.

  This is the usual augmentation of CIFAR, with reflection padding as in Zagoruyko & Komodakis (2016), section 3.
  """
  return _window(key, x, pixels, "reflect")


def brightness(key: Key[Array, ""], x: Example, most: float, low: float, high: float) -> Example:
  """Adds one random number, uniform in [-most, most], to all elements and clips the result to [low, high]."""
  return jnp.clip(x + jax.random.uniform(key, (), x.dtype, -most, most), low, high)


def _window(key: Key[Array, ""], x: Example, pixels: int, mode: str) -> Example:
  """Pads each side by `pixels` in a mode of `jnp.pad`, then crops a random window of the original shape."""
  sides = x.shape[:-1]
  padded = jnp.pad(x, [(pixels, pixels)] * len(sides) + [(0, 0)], mode=mode)
  start = jax.random.randint(key, (len(sides),), 0, 2 * pixels + 1)
  return jax.lax.dynamic_slice(padded, [*start, 0], x.shape)


@dataclasses.dataclass(frozen=True)
class Augment:
  """Sequence of augmentations; a static argument of the training step."""

  calls: tuple[tuple[Callable, tuple], ...]  # augmentation functions, each with its arguments after (key, x)

  def __call__(self, x: Float[AnyArray, " batch *shape"], keys: Keys) -> Float[Array, " batch *shape"]:
    """Returns the augmented batch; each example is augmented with its own key."""
    return jax.vmap(self._augment_example)(x, keys)

  def _augment_example(self, x: Example, key: Key[Array, ""]) -> Example:
    key = jax.random.fold_in(key, _STREAM)
    for position, (function, arguments) in enumerate(self.calls):
      x = function(jax.random.fold_in(key, position), x, *arguments)
    return x


def build(entries: Sequence[Any], shape: tuple[int, ...], value_range: str, span: ranges.Span) -> Augment | None:
  """Returns the augmentation that `config.data.augment` describes, or None if it has no entries.

  Args:
    entries: Dicts such as {"name": "shift", "pixels": 2}. "name" is a key of AUGMENTATIONS; the other keys are options.
      An augmentation without options may be given by its name.
    shape: Shape of an example, [H, W, C] or [T, C].
    value_range: Range of the data, a key of ranges.INTERVALS.
    span: Interval of the values of the data.

  Raises:
    UserError: A name or option is unknown, an option is out of bounds, an augmentation for images is applied to series,
      or the examples are neither images nor series.
  """
  if entries and len(shape) not in (2, 3):
    raise errors.UserError("config.data.augment: augmentations are for images and series; set it to ()")
  errors.check(len(entries) <= errors.MOST_LAYERS, "data.augment", entries, f"at most {errors.MOST_LAYERS} entries")
  calls = []
  for position, entry in enumerate(_as_dicts(entries)):
    key = f"data.augment[{position}]"
    good = isinstance(entry, dict) and "name" in entry and all(isinstance(option, str) for option in entry)
    errors.check(good, key, entry, 'a dict such as {"name": "shift", "pixels": 2}')
    options = {option: value for option, value in entry.items() if option != "name"}
    data = _Data(key, shape, span, ranges.INTERVALS[value_range])
    calls.append(errors.call(AUGMENTATIONS, key, entry["name"], data, **options))
  return Augment(tuple(calls)) if calls else None


def _as_dicts(entries: Sequence[Any]) -> list[Any]:
  """Returns the entries of `config.data.augment`, in which a name is replaced by a dict with this name."""
  return [{"name": entry} if isinstance(entry, str) else entry for entry in entries]


def check_columns(entries: Sequence[Any], columns: Collection[str]) -> None:
  """Raises UserError if the data have masks and an augmentation changes values; masks allow only geometric ones."""
  names = [entry.get("name") for entry in _as_dicts(entries) if isinstance(entry, dict)]
  if "mask" in columns and "brightness" in names:
    raise errors.UserError(
      "config.data.augment: 'brightness' is not available for data with masks (mask_train); remove this entry"
    )


class _Data(NamedTuple):
  """Arguments of the functions in AUGMENTATIONS: the key of an entry in the config, and properties of the data.

  The key is used in error messages. The properties of the data determine which options are valid.
  """

  key: str
  shape: tuple[int, ...]
  span: ranges.Span
  interval: tuple[float, float]


def _flip(data: _Data) -> tuple[Callable, tuple]:
  _check_images(data, "flip")
  return flip, ()


def _shift(data: _Data, *, pixels: Any) -> tuple[Callable, tuple]:
  return shift, (_checked_pixels(data, pixels),)


def _crop(data: _Data, *, pixels: Any) -> tuple[Callable, tuple]:
  _check_images(data, "crop")
  return crop, (_checked_pixels(data, pixels),)


def _brightness(data: _Data, *, level: Any) -> tuple[Callable, tuple]:
  _check_images(data, "brightness")
  good = errors.is_number(level) and 0 < level <= 1
  errors.check(good, f"{data.key}.level", level, "a number in (0, 1], as a fraction of the data range")
  return brightness, (level * (data.span.high - data.span.low), *data.interval)


def _check_images(data: _Data, name: str) -> None:
  """Raises UserError for series, because adding an offset or reversing the time can change the class of a series."""
  errors.check(
    len(data.shape) == 3, f"{data.key}.name", name, "'shift' for series; the other augmentations are for images"
  )


def _checked_pixels(data: _Data, pixels: Any) -> int:
  """Returns `pixels`; raises UserError unless it is a positive integer less than each side of an example."""
  most = min(data.shape[:-1]) - 1
  is_integer = isinstance(pixels, int) and not isinstance(pixels, bool)
  expected = f"an integer from 1 to {most}, less than each side of the example"
  errors.check(is_integer and 1 <= pixels <= most, f"{data.key}.pixels", pixels, expected)
  return pixels


# name -> function (data, **options of the entry) that returns (augmentation, its arguments after (key, x))
AUGMENTATIONS: dict[str, Callable] = {"flip": _flip, "shift": _shift, "crop": _crop, "brightness": _brightness}
