"""Unfolding of images to the patches under a sliding kernel, and its adjoint, for matrix products on CPU.

`unfold` and `fold` are primitives of JAX, and each is the transpose of the other. With JAX's own transposes, XLA would
compute the gradient of an output once for each element of the kernel.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from ae_jax.types import AnyArray


def unfold(
  x: Float[AnyArray, "channels full_height full_width batch"], kernel: tuple[int, int], stride: int = 1
) -> Float[Array, "kh kw channels height width batch"]:
  """Returns the patches of images under a kernel of size (kh, kw): element [u, v, c, i, j] is x[c, s i + u, s j + v].

  s is the stride; the sides of the images are stride * (side - 1) + kernel size.
  """
  return _UNFOLD.bind(x, kernel=kernel, stride=stride)


def fold(
  patches: Float[AnyArray, "kh kw channels height width batch"], stride: int = 1
) -> Float[Array, "channels full_height full_width batch"]:
  """Returns the adjoint of `unfold`: adds each element of the patches to its pixel."""
  return _FOLD.bind(patches, stride=stride)


def _unfolded(x: Any, *, kernel: tuple[int, int], stride: int) -> Any:
  channels, batch = x.shape[0], x.shape[3]
  height, width = ((side - k) // stride + 1 for side, k in zip(x.shape[1:3], kernel, strict=True))
  blocks = [-(-side // stride) for side in x.shape[1:3]]
  margins = [(0, count * stride - side) for count, side in zip(blocks, x.shape[1:3], strict=True)]
  x = jnp.pad(x, ((0, 0), *margins, (0, 0))).reshape(channels, blocks[0], stride, blocks[1], stride, batch)
  x = x.transpose(2, 4, 0, 1, 3, 5)  # [stride, stride, C, blocks, blocks, B]
  high, wide = _sizes(kernel, stride)
  # Concatenation in two steps needs kh + kw pieces instead of kh * kw.
  x = jnp.concatenate([x[:, :size, :, :, j : j + width] for j, size in enumerate(wide)], 1)
  return jnp.concatenate([x[:size, :, :, i : i + height] for i, size in enumerate(high)])


def _folded(patches: Any, *, stride: int) -> Any:
  kh, kw, channels, height, width, batch = patches.shape
  high, wide = _sizes((kh, kw), stride)
  # The pieces of each row are summed first, then the rows: m + n separate sums instead of one fused sum of m * n terms.
  pieces = [lax.split(row, wide, axis=1) for row in lax.split(patches, high)]
  rows = [_overlap_add(row, 1, stride) for row in pieces]
  y = _overlap_add(rows, 0, stride)  # [stride, stride, C, blocks, blocks, B]
  y = y.transpose(2, 3, 0, 4, 1, 5).reshape(channels, y.shape[3] * stride, y.shape[4] * stride, batch)
  return y[:, : stride * (height - 1) + kh, : stride * (width - 1) + kw]


def _sizes(kernel: tuple[int, int], stride: int) -> list[list[int]]:
  """Returns the sizes of the parts into which each side of the kernel is cut: at most `stride` elements each."""
  return [[min(stride, k - start) for start in range(0, k, stride)] for k in kernel]


def _overlap_add(pieces: Any, axis: int, stride: int) -> Any:
  """Shifts piece i by i blocks along the axis `axis` + 3 and returns the sum of all pieces.

  A piece is padded with zeros to size `stride` along `axis`, because the last piece can be shorter.
  """
  padding = lambda shift, piece: [
    {axis: (0, stride - piece.shape[axis]), axis + 3: (shift, len(pieces) - 1 - shift)}.get(a, (0, 0)) for a in range(6)
  ]
  return sum(jnp.pad(piece, padding(shift, piece)) for shift, piece in enumerate(pieces))


def _primitive(name: str, function: Callable[..., Any], transpose: Callable[..., Any]) -> Primitive:
  """Returns a primitive for a linear function of one array whose last axis is the batch.

  Args:
    name: Name of the primitive.
    function: Function (array, **options) -> array.
    transpose: Its transpose: (gradient of the result, undefined array, **options) -> gradient of the array.
  """
  primitive = Primitive(name)
  primitive.def_impl(jax.jit(function, static_argnames=tuple(inspect.signature(function).parameters)[1:]))
  primitive.def_abstract_eval(
    lambda x, **options: x.update(shape=jax.eval_shape(lambda x: function(x, **options), x).shape)
  )
  mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
  ad.deflinear2(primitive, lambda gradient, x, **options: [transpose(gradient, x, **options)])

  def batched(arrays: Sequence[Any], axes: Sequence[int], **options: Any) -> tuple[jax.Array, int]:
    x = jnp.moveaxis(arrays[0], axes[0], -1)
    y = primitive.bind(x.reshape(*x.shape[:-2], -1), **options)
    return y.reshape(*y.shape[:-1], *x.shape[-2:]), y.ndim

  batching.primitive_batchers[primitive] = batched
  return primitive


_UNFOLD = _primitive("unfold", _unfolded, lambda gradient, x, *, kernel, stride: fold(gradient, stride))
_FOLD = _primitive("fold", _folded, lambda gradient, x, *, stride: unfold(gradient, x.aval.shape[:2], stride))
