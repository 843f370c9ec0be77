"""Enlarging images laid out [C, H, W, B]: interpolation, interpolation and convolution in one, and depth to space.

What is interpolated between is known when the program is traced, so that rows and columns are taken apart with
`lax.split` and put together again: exact on every platform, and no gradient scatters.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax


def resize(x, size, method):
  """Interpolation to `size` = (height, width) by "nearest" or "bilinear": [C, H, W, B] -> [C, *size, B].

  Pixels are squares whose centres lie at halves; outside the image its edge goes on. What `jax.image.resize` gives
  without antialiasing, and PyTorch's `interpolate` for "bilinear" and "nearest-exact".
  """
  for axis, after in zip((1, 2), size, strict=True):
    low, high, share = METHODS[method](x.shape[axis], after)
    lines = lax.split(x, [1] * x.shape[axis], axis=axis)
    below, above = (lax.concatenate([lines[i] for i in indices], axis) for indices in (low, high))
    share = jnp.asarray(share, x.dtype).reshape([after if a == axis else 1 for a in range(4)])
    x = below if (low == high).all() else below * (1 - share) + above * share
  return x


def resize_conv(x, kernel, size, method):
  """`resize`, then a convolution that keeps the size: [C, H, W, B], [kh, kw, C, C_out] -> [C_out, *size, B].

  Both are linear: on CPU the channels are mixed before the image is enlarged, which saves most of the multiplications,
  and shifting and interpolating along an axis are one small matrix.
  """
  return lax.platform_dependent(
    x,
    kernel,
    cpu=lambda x, kernel: _resize_conv_as_products(x, kernel, size, method),
    default=lambda x, kernel: _resize_conv_xla(x, kernel, size, method),
  )


def depth_to_space(x, ratio, size):
  """Each pixel's channels become the ratio[0] x ratio[1] pixels of a block; the middle `size` of the image is kept.

  [C * ratio[0] * ratio[1], H, W, B] -> [C, *size, B]; an odd rest is cut off at the top and on the left.
  """
  height, width, batch = x.shape[1:]
  rows, columns = height * ratio[0], width * ratio[1]
  x = x.reshape(-1, *ratio, height, width, batch).transpose(0, 3, 1, 4, 2, 5).reshape(-1, rows, columns, batch)
  top, left = (rows - size[0] + 1) // 2, (columns - size[1] + 1) // 2
  return x[:, top : top + size[0], left : left + size[1]]


def _nearest(before, after):
  source = (2 * np.arange(after) + 1) * before // (2 * after)
  return source, source, np.zeros(after)


def _bilinear(before, after):
  position = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
  low = np.floor(position).astype(int)
  return low, np.minimum(low + 1, before - 1), position - low


# (sides before, after) -> per pixel after: the two that it lies between, and the share of the second.
METHODS = {"nearest": _nearest, "bilinear": _bilinear}


def _resize_conv_xla(x, kernel, size, method):
  x = resize(x, size, method)
  return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("CHWN", "HWIO", "CHWN"))


def _resize_conv_as_products(x, kernel, size, method):
  kh, kw, c_in, c_out = kernel.shape
  rows, columns = (
    jnp.asarray(_shifted(METHODS[method](side, after), side, k), x.dtype)
    for side, after, k in zip(x.shape[1:3], size, kernel.shape[:2], strict=True)
  )
  mixed = kernel.transpose(0, 1, 3, 2).reshape(kh * kw * c_out, c_in) @ x.reshape(c_in, -1)
  mixed = mixed.reshape(kh, kw, c_out, *x.shape[1:])
  mixed = jnp.einsum("yuh,uvchwb->yvcwb", rows, mixed)
  return jnp.einsum("xvw,yvcwb->cyxb", columns, mixed)


def _shifted(taps, before, kernel):
  """The weights [after, kernel, before] that input pixels have in what each element of a kernel sees."""
  low, high, share = taps
  after = len(low)
  weights = np.zeros((after + kernel - 1, before))  # outside of the image the convolution sees zeros
  inside = (kernel - 1) // 2 + np.arange(after)
  weights[inside, low] += 1 - share
  weights[inside, high] += share
  return np.stack([weights[u : u + after] for u in range(kernel)], axis=1)
