"""Convolution, transposed convolution and max-pooling of images laid out [C, H, W, B], kernels [kh, kw, C_in, C_out].

On CPU they are matrix products over stacked shifts of the image, on anything else XLA's own convolutions; the platform
is chosen when the program is lowered. With the batch as the contiguous axis every shift is a copy of whole vectors, and
pooling and bias run at memory speed. Shifts are taken apart with `lax.split`, whose transpose is one concatenation
(that of indexing is a padded sum per piece). All of it is plain differentiable code: any order, forward or reverse.
"""

import itertools

import jax.numpy as jnp
from jax import lax

_LAYOUT = ("CHWN", "HWIO", "CHWN")

# Input channels up to which a product over whole pooling windows is faster on CPU, though 16 / 9 the multiplications.
_FEW_CHANNELS = 3


def conv(x, kernel):
  """Cross-correlation without padding: [C, H, W, B] -> [C_out, H - kh + 1, W - kw + 1, B]."""
  return lax.platform_dependent(x, kernel, cpu=_conv_as_product, default=_conv_xla)


def conv_max_pool(x, kernel, window):
  """`max_pool(conv(x, kernel), window)`, which computes only what pooling keeps: [C, H, W, B] -> [C_out, H', W', B]."""
  height, width = (
    (side - k + 1) // w * w + k - 1 for side, k, w in zip(x.shape[1:3], kernel.shape[:2], window, strict=True)
  )
  return lax.platform_dependent(
    x[:, :height, :width],
    kernel,
    cpu=lambda x, kernel: _conv_max_pool_as_product(x, kernel, window),
    default=lambda x, kernel: max_pool(_conv_xla(x, kernel), window),
  )


def conv_same(x, kernel):
  """Cross-correlation that keeps the image's size, zeros around it: [C, H, W, B] -> [C_out, H, W, B].

  Of the kh - 1 zeros in a column the smaller half is above the image, of the kw - 1 in a row on its left, as in "SAME".
  """
  kh, kw, c_in, c_out = kernel.shape
  if c_out < c_in:  # adding up shifts of the output is less than stacking shifts of the input
    return conv_transpose(x, kernel, 1, x.shape[1:3])
  return conv(pad_same(x, (kh, kw)), kernel)


def pad_same(x, size):
  """Pads images with the zeros of `conv_same` for a kernel of size (kh, kw)."""
  kh, kw = size
  return jnp.pad(x, ((0, 0), ((kh - 1) // 2, kh // 2), ((kw - 1) // 2, kw // 2), (0, 0)))


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
    x = _maximum(lax.split(x, [1] * x.shape[axis], axis=axis))
  return x.reshape(channels, h, w, batch)


def transposed_size(size, kernel, stride):
  """(height, width) of an uncropped transposed convolution."""
  return tuple(stride * (side - 1) + k for side, k in zip(size, kernel[:2], strict=True))


def _conv_xla(x, kernel):
  return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=_LAYOUT)


def _conv_as_product(x, kernel):
  kh, kw, c_in, c_out = kernel.shape
  h, w, batch = x.shape[1] - kh + 1, x.shape[2] - kw + 1, x.shape[3]
  shifts = jnp.concatenate([x[:, :, j : j + w] for j in range(kw)])  # in two steps: kh + kw pieces, not kh * kw
  shifts = jnp.concatenate([shifts[:, i : i + h] for i in range(kh)])
  product = kernel.reshape(kh * kw * c_in, c_out).T @ shifts.reshape(kh * kw * c_in, h * w * batch)
  return product.reshape(c_out, h, w, batch)


def _conv_max_pool_as_product(x, kernel, window):
  kh, kw, c_in, c_out = kernel.shape
  if c_in > _FEW_CHANNELS:
    return max_pool(_conv_as_product(x, kernel), window)
  # All outputs of a pooling window in one column of the product: patches overlap less, and pooling is between slabs.
  rows, columns = window
  h, w, batch = (x.shape[1] - kh + 1) // rows, (x.shape[2] - kw + 1) // columns, x.shape[3]
  high, wide = kh + rows - 1, kw + columns - 1  # what a window sees
  ends = (1 + rows * (h - 1), 1 + columns * (w - 1))
  corners = list(itertools.product(range(high), range(wide)))
  patches = [lax.slice(x, (0, i, j, 0), (c_in, i + ends[0], j + ends[1], batch), (1, *window, 1)) for i, j in corners]
  patches = jnp.concatenate(patches).reshape(high * wide * c_in, h * w * batch)
  places = itertools.product(range(rows), range(columns))
  kernels = [jnp.pad(kernel, ((i, rows - 1 - i), (j, columns - 1 - j), (0, 0), (0, 0))) for i, j in places]
  kernels = jnp.stack(kernels)
  kernels = kernels.transpose(0, 4, 1, 2, 3).reshape(rows * columns * c_out, high * wide * c_in)
  slabs = lax.split(kernels @ patches, [c_out] * (rows * columns))
  return _maximum(slabs).reshape(c_out, h, w, batch)


def _maximum(arrays):
  """The greatest of equally shaped arrays, elementwise; the gradient goes to the first of equals."""
  while len(arrays) > 1:  # in pairs: a chain of selections makes XLA's fusions grow exponentially with its length
    pairs = [jnp.where(a >= b, a, b) for a, b in zip(arrays[::2], arrays[1::2], strict=False)]
    arrays = pairs + list(arrays[2 * len(pairs) :])
  return arrays[0]


def _conv_transpose_xla(x, kernel, stride, crops):
  padding = [(k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel.shape[:2], crops, strict=True)]
  return lax.conv_transpose(x, kernel, (stride, stride), padding, dimension_numbers=_LAYOUT)


def _conv_transpose_as_product(x, kernel, stride, crops):
  kh, kw, c_in, c_out = kernel.shape
  height, width, batch = x.shape[1:]
  # A kernel is cut into m x n blocks of at most stride x stride elements: what a block gives is one piece of the
  # product, its elements being pixels side by side, and the pieces lie a pixel of the input apart.
  kernel = kernel[::-1, ::-1].transpose(3, 0, 1, 2)
  high, wide = ([min(stride, k - start) for start in range(0, k, stride)] for k in (kh, kw))
  corners = list(itertools.product(range(len(high)), range(len(wide))))
  rows = [kernel[:, stride * i : stride * i + high[i], stride * j : stride * j + wide[j]] for i, j in corners]
  product = jnp.concatenate([block.reshape(-1, c_in) for block in rows]) @ x.reshape(c_in, height * width * batch)
  pieces = {
    (i, j): piece.reshape(c_out, high[i], wide[j], height, width, batch)
    for (i, j), piece in zip(corners, lax.split(product, [c_out * high[i] * wide[j] for i, j in corners]), strict=True)
  }
  # Summed along a row first, then row upon row: m + n sums that XLA keeps apart, not m * n in one.
  rows = [_overlapped([pieces[i, j] for j in range(len(wide))], 2, stride) for i in range(len(high))]
  y = _overlapped(rows, 1, stride)
  y = y.transpose(0, 3, 1, 4, 2, 5).reshape(c_out, y.shape[3] * stride, y.shape[4] * stride, batch)
  (top, bottom), (left, right) = crops
  full = transposed_size((height, width), (kh, kw), stride)
  return y[:, top : full[0] - bottom, left : full[1] - right]


def _overlapped(pieces, axis, stride):
  """The sum of pieces [c, rows, columns, H, W, B], each a pixel of `axis` + 2 behind the one before.

  Their `axis`, as long as the stride or, in the last piece, shorter, is filled up with zeros.
  """
  padding = lambda place, piece: [
    {axis: (0, stride - piece.shape[axis]), axis + 2: (place, len(pieces) - 1 - place)}.get(a, (0, 0)) for a in range(6)
  ]
  return sum(jnp.pad(piece, padding(place, piece)) for place, piece in enumerate(pieces))
