"""Upsampling of images [C, H, W, B]: interpolation, interpolation followed by a convolution, and depth to space.

The indices of the source pixels of each output pixel are constants, so `lax.split` and `lax.concatenate` can select the
source pixels. The selection is exact on every platform, and the gradient needs no scatter.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

_Array = jax.Array | np.ndarray
Image = Float[_Array, "channels height width batch"]
Kernel = Float[_Array, "kh kw channels features"]
Taps = tuple[np.ndarray, np.ndarray, np.ndarray]  # indices of the two source pixels, and the weight of the second


def resize(x: Image, size: Sequence[int], method: str) -> Float[_Array, "channels out_height out_width batch"]:
  """Interpolates to `size` = (height, width) with `method` "nearest" or "bilinear": [C, H, W, B] -> [C, *size, B].

  Pixel centres are at half-integers, and edge pixels are repeated beyond the image. The result equals
  `jax.image.resize` without antialiasing, and PyTorch's `interpolate` with the modes "nearest-exact" and "bilinear".
  """
  for axis, side in zip((1, 2), size, strict=True):
    low, high, weight = METHODS[method](x.shape[axis], side)
    lines = lax.split(x, [1] * x.shape[axis], axis=axis)
    below, above = (lax.concatenate([lines[i] for i in indices], axis) for indices in (low, high))
    weight = jnp.asarray(weight, x.dtype).reshape([side if a == axis else 1 for a in range(4)])
    x = below if (low == high).all() else below * (1 - weight) + above * weight
  return x


def resize_conv(
  x: Image, kernel: Kernel, size: Sequence[int], method: str
) -> Float[Array, "features out_height out_width batch"]:
  """Applies `resize`, then a convolution that keeps the size: [C, H, W, B], [kh, kw, C, C_out] -> [C_out, *size, B].

  Resizing and convolution are linear, so their order can change. On CPU, the channels are mixed before the image is
  enlarged, which saves most of the multiplications. One small matrix per axis then applies the shifts of the kernel and
  the interpolation.
  """
  return lax.platform_dependent(
    x,
    kernel,
    cpu=lambda x, kernel: _resize_conv_as_products(x, kernel, size, method),
    default=lambda x, kernel: _resize_conv_xla(x, kernel, size, method),
  )


def depth_to_space(
  x: Image, ratio: Sequence[int], size: Sequence[int]
) -> Float[Array, "features out_height out_width batch"]:
  """Moves the channels of each pixel into a block of ratio[0] x ratio[1] pixels and crops the image to `size`.

  [C * ratio[0] * ratio[1], H, W, B] -> [C, *size, B]. The centre of the image is kept. If the number of excess rows or
  columns is odd, one more is removed at the top or left than at the bottom or right.
  """
  height, width, batch = x.shape[1:]
  rows, columns = height * ratio[0], width * ratio[1]
  x = x.reshape(-1, *ratio, height, width, batch).transpose(0, 3, 1, 4, 2, 5).reshape(-1, rows, columns, batch)
  top, left = (rows - size[0] + 1) // 2, (columns - size[1] + 1) // 2
  return x[:, top : top + size[0], left : left + size[1]]


def _nearest(size: int, new_size: int) -> Taps:
  source = (2 * np.arange(new_size) + 1) * size // (2 * new_size)
  return source, source, np.zeros(new_size)


def _bilinear(size: int, new_size: int) -> Taps:
  position = np.clip((np.arange(new_size) + 0.5) * size / new_size - 0.5, 0, size - 1)
  low = np.floor(position).astype(int)
  return low, np.minimum(low + 1, size - 1), position - low


# Name of a method -> function (old size, new size) that returns the `Taps` of an axis. The arrays have one entry per
# output pixel.
METHODS = {"nearest": _nearest, "bilinear": _bilinear}


def _resize_conv_xla(x: Image, kernel: Kernel, size: Sequence[int], method: str) -> jax.Array:
  x = resize(x, size, method)
  return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("CHWN", "HWIO", "CHWN"))


def _resize_conv_as_products(x: Image, kernel: Kernel, size: Sequence[int], method: str) -> jax.Array:
  kh, kw, c_in, c_out = kernel.shape
  rows, columns = (
    jnp.asarray(_tap_matrix(METHODS[method](side, new_side), side, k), x.dtype)
    for side, new_side, k in zip(x.shape[1:3], size, kernel.shape[:2], strict=True)
  )
  mixed = kernel.transpose(0, 1, 3, 2).reshape(kh * kw * c_out, c_in) @ x.reshape(c_in, -1)
  mixed = mixed.reshape(kh, kw, c_out, *x.shape[1:])
  mixed = jnp.einsum("yuh,uvchwb->yvcwb", rows, mixed)
  return jnp.einsum("xvw,yvcwb->cyxb", columns, mixed)


def _tap_matrix(taps: Taps, size: int, kernel: int) -> Float[np.ndarray, "new_size kernel size"]:
  """Returns the weights [y, u, x] of the resized convolution along one axis.

  Kernel element u contributes kernel[u] * sum_x weights[y, u, x] * input[x] to output pixel y.
  """
  low, high, weight = taps
  new_size = len(low)
  weights = np.zeros((new_size + kernel - 1, size))  # the convolution pads the resized image with zeros
  inside = (kernel - 1) // 2 + np.arange(new_size)
  weights[inside, low] += 1 - weight
  weights[inside, high] += weight
  return np.stack([weights[u : u + new_size] for u in range(kernel)], axis=1)
