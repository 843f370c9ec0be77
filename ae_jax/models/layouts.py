"""The layout [C, H, W, B] of the convolutional layers. A series [T, C] is treated as an image of width 1."""

from ae_jax.models.interface import Examples, Logits
from ae_jax.models.upsampling import Maps


def to_maps(x: Examples) -> Maps:
  """Returns images [B, H, W, C] as [C, H, W, B], and series [B, T, C] as [C, T, 1, B]."""
  return (x if x.ndim == 4 else x[:, :, None]).transpose(3, 1, 2, 0)


def from_maps(h: Maps, shape: tuple[int, ...]) -> Logits:
  """Inverts `to_maps`; `shape` is the shape of an example."""
  x = h.transpose(3, 1, 2, 0)
  return x if len(shape) == 3 else x[:, :, 0]


def image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
  """Returns the shape (H, W, C) that the layers see: `shape` for images, (T, 1, C) for series (T, C)."""
  return shape if len(shape) == 3 else (shape[0], 1, shape[1])


def square(side: int, shape: tuple[int, ...]) -> tuple[int, int]:
  """Returns the size (height, width) of a kernel or patch: (side, side) for images, (side, 1) for series."""
  return (side, side if len(shape) == 3 else 1)


def size_text(size: tuple[int, ...], shape: tuple[int, ...]) -> str:
  """Returns a size (height, width) as text, e.g. "28x28" for images or "100 steps" for series.

  `shape` is the shape of an example.
  """
  return f"{size[0]}x{size[1]}" if len(shape) == 3 else f"{size[0]} step{'s' if size[0] > 1 else ''}"


def example_text(shape: tuple[int, ...]) -> str:
  """Returns the kind and the size of an example as text, e.g. "an image of 28x28" or "a series of 100 steps"."""
  return ("an image" if len(shape) == 3 else "a series") + f" of {size_text(shape[:2], shape)}"
