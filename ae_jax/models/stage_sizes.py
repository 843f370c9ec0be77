"""Stages of convolutional encoders: the channels that suit an image size, and the image size after each stage."""

from collections.abc import Callable

from ae_jax import errors
from ae_jax.models import layouts

# Constants of `automatic_channels`. Images of 28x28 and 32x32 get the channels (16, 32) of the shipped configs.
_SMALL_ENOUGH, _FEWEST_STAGES, _FIRST_CHANNELS, _MOST_CHANNELS = 8, 2, 16, 128


def automatic_channels(size: tuple[int, ...], after_stage: Callable[[int], int]) -> tuple[int, ...]:
  """Returns the channels of each encoder stage, (16, 32, 64, 128, 128, ...); the size decides the number of stages.

  Stages are added until the smaller side of the image is at most 8 pixels, so that the dense layer stays small. There
  are at least two stages, or one if the images are too small for two.

  Args:
    size: (height, width) of an image, or (steps,) of a series.
    after_stage: Maps the side of an image to its side after a stage, or to 0 if it is too small for the stage.
  """
  side, stages = min(size), 0
  while after_stage(side) > 0 and (side > _SMALL_ENOUGH or stages < _FEWEST_STAGES):
    side, stages = after_stage(side), stages + 1
  return tuple(min(_FIRST_CHANNELS * 2**stage, _MOST_CHANNELS) for stage in range(max(1, stages)))


def unpadded(
  shape: tuple[int, ...], kernel: tuple[int, int], stages: int
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
  """Returns the image sizes in an encoder; each stage is a convolution without padding and 2x2 max-pooling.

  Series [T, C] are images of width 1. A side of 1 is not pooled.

  Args:
    shape: Shape (H, W, C) of an image, or (T, C) of a series.
    kernel: (height, width) of the kernel.
    stages: Number of stages.

  Returns:
    The sizes (height, width) after the convolution of each stage, and the sizes after the pooling of each stage.

  Raises:
    UserError: The examples are too small for the stages.
  """
  convolved, pooled = [], [layouts.image_shape(shape)[:2]]
  for stage in range(stages):
    convolved.append(tuple(side - k + 1 for side, k in zip(pooled[-1], kernel, strict=True)))
    if min(convolved[-1]) < 1:
      advice = f"use at most {_count(stage)} or " if stage else "use "
      width = f"{kernel[0]}x{kernel[1]} convolution" if len(shape) == 3 else f"convolution of {kernel[0]} steps"
      raise errors.UserError(
        f"{_too_many(stages, shape, stage, pooled[-1])}is too small for a {width}; {advice}a smaller "
        "config.model.kernel"
      )
    pooled.append(tuple(max(1, side // 2) for side in convolved[-1]))
  return convolved, pooled[1:]


def halved(shape: tuple[int, ...], stages: int) -> tuple[tuple[int, ...], ...]:
  """Returns the (height, width) of an image [H, W, C] and of the output of each encoder stage.

  A stage halves both sides and rounds down. A series [T, C] is an image of width 1, which is not halved.

  Raises:
    UserError: The example is too small for the stages.
  """
  sizes, sides = [layouts.image_shape(shape)[:2]], len(shape) - 1
  for stage in range(stages):
    if min(sizes[-1][:sides]) < 2:
      other = "images with a side of 1" if sides == 2 else "series of one step"
      advice = f"use at most {_count(stage)}" if stage else f"use config.model.name='dense' for {other}"
      raise errors.UserError(f"{_too_many(stages, shape, stage, sizes[-1])}cannot be halved; {advice}")
    sizes.append(tuple(max(1, side // 2) for side in sizes[-1]))
  return tuple(sizes)


def _too_many(stages: int, shape: tuple[int, ...], possible: int, size: tuple[int, ...]) -> str:
  """Returns the start of an error message: after `possible` of the stages, examples shrink to `size`."""
  shrinks = f"shrinks to {layouts.size_text(size, shape)} after {_count(possible)} and " if possible else ""
  return f"config.model.channels has {_count(stages)}, but {layouts.example_text(shape)} {shrinks}"


def _count(count: int) -> str:
  """Returns a number of stages as text, e.g. "1 stage" or "2 stages"."""
  return "1 stage" if count == 1 else f"{count} stages"
