"""Convolution, transposed convolution and max-pooling of images laid out [C, H, W, B], kernels [kh, kw, C_in, C_out].

On CPU they are matrix products over stacked shifts of the image, on anything else XLA's own convolutions; the platform
is chosen when the program is lowered. With the batch as the contiguous axis every shift is a copy of whole vectors, and
pooling and bias run at memory speed. Shifts are taken apart with `lax.split`, whose transpose is one concatenation
(that of indexing is a padded sum per piece). All of it is plain differentiable code: any order, forward or reverse.
"""

import math

import jax.numpy as jnp
from jax import lax

_LAYOUT = ("CHWN", "HWIO", "CHWN")


def conv(x, kernel):
  """Cross-correlation without padding: [C, H, W, B] -> [C_out, H - kh + 1, W - kw + 1, B]."""
  return lax.platform_dependent(x, kernel, cpu=_conv_as_product, default=_conv_xla)


def conv_same(x, kernel):
  """Cross-correlation that keeps the image's size, zeros around it: [C, H, W, B] -> [C_out, H, W, B].

  Of the kh - 1 zeros in a column the smaller half is above the image, of the kw - 1 in a row on its left, as in "SAME".
  """
  kh, kw, c_in, c_out = kernel.shape
  if c_out < c_in:  # adding up shifts of the output is less than stacking shifts of the input
    return conv_transpose(x, kernel, 1, x.shape[1:3])
  return conv(jnp.pad(x, ((0, 0), ((kh - 1) // 2, kh // 2), ((kw - 1) // 2, kw // 2), (0, 0))), kernel)


def conv_adjoint(y, kernel):
  """The transpose of `conv` as a linear map: [C_out, H, W, B] -> [C, H + kh - 1, W + kw - 1, B].

  With the same kernel [kh, kw, C, C_out], so that <conv(x, kernel), y> = <x, conv_adjoint(y, kernel)>.
  """
  return conv_transpose(y, kernel[::-1, ::-1].swapaxes(2, 3), 1, transposed_size(y.shape[1:3], kernel.shape, 1))


def conv_transpose(x, kernel, stride, size):
  """The transpose of a strided convolution, cropped to `size` = (height, width): [C, H, W, B] -> [C_out, *size, B].

  Input pixel i adds kernel element u to output pixel stride * i + u - crop, with crop = ceil(excess / 2) and excess =
  stride * (H - 1) + kh - height >= 0: what PyTorch computes with padding = crop and output_padding = 2 crop - excess.
  The kernel is stored as Flax stores it, flipped in space.
  """
  crops = [
    full - wanted for full, wanted in zip(transposed_size(x.shape[1:3], kernel.shape, stride), size, strict=True)
  ]
  if min(crops) < 0:
    raise ValueError(f"a kernel {kernel.shape[:2]} at stride {stride} does not reach from {x.shape[1:3]} to {size}")
  crops = [((crop + 1) // 2, crop // 2) for crop in crops]
  return lax.platform_dependent(
    x,
    kernel,
    cpu=lambda x, kernel: _conv_transpose_as_product(x, kernel, stride, crops),
    default=lambda x, kernel: _conv_transpose_xla(x, kernel, stride, crops),
  )


def max_pool(x, window):
  """The maximum over windows (height, width) that do not overlap, the rest cut off: [C, H, W, B] -> [C, H', W', B].

  The gradient goes to the first of equal maxima, in reading order.
  """
  channels, height, width, batch = x.shape
  h, w = height // window[0], width // window[1]
  x = x[:, : h * window[0], : w * window[1]].reshape(channels, h, window[0], w, window[1], batch)
  for axis in (4, 2):
    first, *others = lax.split(x, [1] * x.shape[axis], axis=axis)
    for other in others:
      first = jnp.where(first >= other, first, other)
    x = first
  return x.reshape(channels, h, w, batch)


def transposed_size(size, kernel, stride):
  """(height, width) of an uncropped transposed convolution."""
  return tuple(stride * (side - 1) + k for side, k in zip(size, kernel[:2], strict=True))


def _conv_xla(x, kernel):
  return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=_LAYOUT)


def _conv_as_product(x, kernel):
  kh, kw, c_in, c_out = kernel.shape
  h, w, batch = x.shape[1] - kh + 1, x.shape[2] - kw + 1, x.shape[3]
  shifts = jnp.concatenate([x[:, i : i + h, j : j + w] for i in range(kh) for j in range(kw)])
  product = kernel.reshape(kh * kw * c_in, c_out).T @ shifts.reshape(kh * kw * c_in, h * w * batch)
  return product.reshape(c_out, h, w, batch)


def _conv_transpose_xla(x, kernel, stride, crops):
  padding = [(k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel.shape[:2], crops, strict=True)]
  return lax.conv_transpose(x, kernel, (stride, stride), padding, dimension_numbers=_LAYOUT)


def _conv_transpose_as_product(x, kernel, stride, crops):
  kh, kw, c_in, c_out = kernel.shape
  height, width, batch = x.shape[1:]
  # The output pixels of one phase (row and column modulo the stride) see a kernel of m x n elements at stride 1.
  m, n = math.ceil(kh / stride), math.ceil(kw / stride)
  kernel = jnp.pad(kernel[::-1, ::-1], ((0, m * stride - kh), (0, n * stride - kw), (0, 0), (0, 0)))
  phases = c_out * stride * stride
  rows = kernel.reshape(m, stride, n, stride, c_in, c_out).transpose(0, 2, 5, 1, 3, 4).reshape(m * n * phases, c_in)
  product = (rows @ x.reshape(c_in, height * width * batch)).reshape(m * n * phases, height, width, batch)
  pieces = lax.split(product, [phases] * (m * n))

  def row(i):  # pieces overlap along a row first, then row upon row: m + n sums that XLA keeps apart, not m * n in one
    return sum(jnp.pad(pieces[i * n + j], ((0, 0), (0, 0), (j, n - 1 - j), (0, 0))) for j in range(n))

  y = sum(jnp.pad(row(i), ((0, 0), (i, m - 1 - i), (0, 0), (0, 0))) for i in range(m))
  h, w = height + m - 1, width + n - 1
  y = (
    y.reshape(c_out, stride, stride, h, w, batch)
    .transpose(0, 3, 1, 4, 2, 5)
    .reshape(c_out, h * stride, w * stride, batch)
  )
  (top, bottom), (left, right) = crops
  full = transposed_size((height, width), (kh, kw), stride)
  return y[:, top : full[0] - bottom, left : full[1] - right]
