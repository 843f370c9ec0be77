"""Convolution, transposed convolution and max pooling for images [C, H, W, B] and kernels [kh, kw, C_in, C_out].

On CPU, each convolution is a matrix product over stacked shifts of the image. On other platforms, it is XLA's
convolution. The implementation is chosen when the program is lowered. The batch is the contiguous axis, so each shift
copies whole vectors, and pooling and bias run at memory speed. Arrays are cut with `lax.split`, not by indexing: the
transpose of `lax.split` is one concatenation, and the transpose of indexing is a padded sum for each piece. All
operations can be differentiated to any order, in forward and reverse mode.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ae_jax.ops import folding

_Array = jax.Array | np.ndarray
Image = Float[_Array, "channels height width batch"]
Kernel = Float[_Array, "kh kw channels features"]

_LAYOUT = ("CHWN", "HWIO", "CHWN")

# Up to this number of input channels, one product over whole pooling windows is faster on CPU, although it needs 16 / 9
# times as many multiplications (3x3 kernel, 2x2 window).
_FEW_CHANNELS = 3


def conv(x: Image, kernel: Kernel) -> Float[Array, "features out_height out_width batch"]:
  """Returns the cross-correlation without padding: [C, H, W, B] -> [C_out, H - kh + 1, W - kw + 1, B]."""
  return lax.platform_dependent(x, kernel, cpu=_conv_as_product, default=_conv_xla)


def conv_max_pool(
  x: Image, kernel: Kernel, window: Sequence[int]
) -> Float[Array, "features out_height out_width batch"]:
  """Returns `max_pool(conv(x, kernel), window)` without computing convolution outputs that pooling drops."""
  height, width = (
    (side - k + 1) // w * w + k - 1 for side, k, w in zip(x.shape[1:3], kernel.shape[:2], window, strict=True)
  )
  return lax.platform_dependent(
    x[:, :height, :width],
    kernel,
    cpu=lambda x, kernel: _conv_max_pool_as_product(x, kernel, window),
    default=lambda x, kernel: max_pool(_conv_xla(x, kernel), window),
  )


def conv_same(x: Image, kernel: Kernel) -> Float[Array, "features height width batch"]:
  """Returns the cross-correlation with zero padding as in "SAME": [C, H, W, B] -> [C_out, H, W, B]."""
  kh, kw, c_in, c_out = kernel.shape
  if c_out < c_in:  # summing shifts of the output is cheaper than stacking shifts of the input
    return conv_transpose(x, kernel, 1, x.shape[1:3])
  return conv(pad_same(x, (kh, kw)), kernel)


def pad_same(x: Image, size: Sequence[int]) -> Float[Array, "channels padded_height padded_width batch"]:
  """Pads images with zeros as in `conv_same`, for a kernel of `size` (kh, kw).

  Adds (kh - 1) // 2 rows above the image and kh // 2 rows below, (kw - 1) // 2 columns on the left and kw // 2 columns
  on the right.
  """
  kh, kw = size
  return jnp.pad(x, ((0, 0), ((kh - 1) // 2, kh // 2), ((kw - 1) // 2, kw // 2), (0, 0)))


def conv_adjoint(
  y: Float[_Array, "features height width batch"], kernel: Kernel
) -> Float[Array, "channels full_height full_width batch"]:
  """Returns the adjoint of `conv`: [C_out, H, W, B] -> [C, H + kh - 1, W + kw - 1, B].

  With the same kernel [kh, kw, C, C_out] in both functions, <conv(x, kernel), y> = <x, conv_adjoint(y, kernel)>.
  """
  return conv_transpose(y, kernel[::-1, ::-1].swapaxes(2, 3), 1, transposed_size(y.shape[1:3], kernel.shape, 1))


def conv_transpose(
  x: Image, kernel: Kernel, stride: int, size: Sequence[int]
) -> Float[Array, "features out_height out_width batch"]:
  """Returns the transposed convolution, cropped to `size` = (height, width): [C, H, W, B] -> [C_out, *size, B].

  The kernel is flipped along both spatial axes, as in Flax. Along each axis, the product of input pixel i and element u
  of the flipped kernel is added to output pixel stride * i + u - crop, with crop = ceil(excess / 2). For the vertical
  axis, excess = stride * (H - 1) + kh - height >= 0. PyTorch gives the same result with padding = crop and
  output_padding = 2 crop - excess.

  Raises:
    ValueError: `size` is larger than the uncropped output.
  """
  full_size = transposed_size(x.shape[1:3], kernel.shape, stride)
  excess = [full - cropped for full, cropped in zip(full_size, size, strict=True)]
  if min(excess) < 0:
    raise ValueError(
      f"size={tuple(size)}: must be at most {full_size}, the uncropped output size for input size {x.shape[1:3]}, "
      f"kernel size {kernel.shape[:2]} and stride {stride}"
    )
  crops = [((total + 1) // 2, total // 2) for total in excess]
  return lax.platform_dependent(
    x,
    kernel,
    cpu=lambda x, kernel: _conv_transpose_as_product(x, kernel, stride, crops),
    default=lambda x, kernel: _conv_transpose_xla(x, kernel, stride, crops),
  )


def max_pool(x: Image, window: Sequence[int]) -> Float[Array, "channels out_height out_width batch"]:
  """Returns the maximum over non-overlapping windows (height, width): [C, H, W, B] -> [C, H', W', B].

  Rows and columns that do not fill a window are dropped. If several elements of a window are equal to the maximum, the
  gradient goes to the first of these elements in row-major order.
  """
  channels, height, width, batch = x.shape
  h, w = height // window[0], width // window[1]
  x = x[:, : h * window[0], : w * window[1]].reshape(channels, h, window[0], w, window[1], batch)
  for axis in (4, 2):
    x = _maximum(lax.split(x, [1] * x.shape[axis], axis=axis))
  return x.reshape(channels, h, w, batch)


def transposed_size(size: Sequence[int], kernel: Sequence[int], stride: int) -> tuple[int, ...]:
  """Returns the uncropped output size (height, width) of `conv_transpose`; `kernel` is a shape (kh, kw, ...)."""
  return tuple(stride * (side - 1) + k for side, k in zip(size, kernel[:2], strict=True))


def _conv_xla(x: Image, kernel: Kernel) -> jax.Array:
  return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=_LAYOUT)


def _conv_as_product(x: Image, kernel: Kernel) -> jax.Array:
  kh, kw, c_in, c_out = kernel.shape
  h, w, batch = x.shape[1] - kh + 1, x.shape[2] - kw + 1, x.shape[3]
  patches = folding.unfold(x, (kh, kw)).reshape(kh * kw * c_in, h * w * batch)
  product = kernel.reshape(kh * kw * c_in, c_out).T @ patches
  return product.reshape(c_out, h, w, batch)


def _conv_max_pool_as_product(x: Image, kernel: Kernel, window: Sequence[int]) -> jax.Array:
  kh, kw, c_in, c_out = kernel.shape
  if c_in > _FEW_CHANNELS:
    return max_pool(_conv_as_product(x, kernel), window)
  # One column of the product holds all outputs of a pooling window. Patches then overlap less, and the maximum is taken
  # over contiguous slabs.
  rows, columns = window
  h, w, batch = (x.shape[1] - kh + 1) // rows, (x.shape[2] - kw + 1) // columns, x.shape[3]
  high, wide = kh + rows - 1, kw + columns - 1  # receptive field of a window
  ends = (1 + rows * (h - 1), 1 + columns * (w - 1))
  corners = list(itertools.product(range(high), range(wide)))
  slices = [lax.slice(x, (0, i, j, 0), (c_in, i + ends[0], j + ends[1], batch), (1, *window, 1)) for i, j in corners]
  patches = jnp.concatenate(slices).reshape(high * wide * c_in, h * w * batch)
  offsets = itertools.product(range(rows), range(columns))
  padded = [jnp.pad(kernel, ((i, rows - 1 - i), (j, columns - 1 - j), (0, 0), (0, 0))) for i, j in offsets]
  matrix = jnp.stack(padded).transpose(0, 4, 1, 2, 3).reshape(rows * columns * c_out, high * wide * c_in)
  slabs = lax.split(matrix @ patches, [c_out] * (rows * columns))
  return _maximum(slabs).reshape(c_out, h, w, batch)


def _maximum(arrays: Sequence[jax.Array]) -> jax.Array:
  """Returns the elementwise maximum of arrays; the gradient goes to the first array that is equal to the maximum."""
  while len(arrays) > 1:  # in pairs, because XLA's fusions grow exponentially with the length of a chain of selections
    pairs = [jnp.where(a >= b, a, b) for a, b in zip(arrays[::2], arrays[1::2], strict=False)]
    arrays = pairs + list(arrays[2 * len(pairs) :])
  return arrays[0]


def _conv_transpose_xla(x: Image, kernel: Kernel, stride: int, crops: Sequence[tuple[int, int]]) -> jax.Array:
  padding = [(k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel.shape[:2], crops, strict=True)]
  return lax.conv_transpose(x, kernel, (stride, stride), padding, dimension_numbers=_LAYOUT)


def _conv_transpose_as_product(x: Image, kernel: Kernel, stride: int, crops: Sequence[tuple[int, int]]) -> jax.Array:
  kh, kw, c_in, c_out = kernel.shape
  height, width, batch = x.shape[1:]
  matrix = kernel[::-1, ::-1].swapaxes(2, 3).reshape(kh * kw * c_out, c_in)
  product = matrix @ x.reshape(c_in, height * width * batch)
  y = folding.fold(product.reshape(kh, kw, c_out, height, width, batch), stride)
  (top, bottom), (left, right) = crops
  full = transposed_size((height, width), (kh, kw), stride)
  return y[:, top : full[0] - bottom, left : full[1] - right]
