"""Upsampling layers of convolutional decoders, each with a kernel and a bias: [C, H, W, B] -> [features, *size, B]."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ae_jax.models.linear_paths import default_init
from ae_jax.ops import convolutions, resizing
from ae_jax.types import AnyArray

Maps = Float[AnyArray, "channels height width batch"]
OutputMaps = Float[Array, "features rows columns batch"]


class ConvTranspose(nn.Module):
  """A transposed convolution with bias, cropped to `size`: [C, H, W, B] -> [features, *size, B]."""

  features: int
  kernel: tuple[int, int]
  stride: int
  size: tuple[int, int]
  kernel_init: Callable = default_init

  @nn.compact
  def __call__(self, x: Maps) -> OutputMaps:
    kernel = self.param("kernel", self.kernel_init, (*self.kernel, x.shape[0], self.features))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return convolutions.conv_transpose(x, kernel, self.stride, self.size) + bias[:, None, None, None]


class ResizeConv(nn.Module):
  """Interpolation to `size`, then a size-preserving convolution with bias: [C, H, W, B] -> [features, *size, B].

  This layer avoids the checkerboard artifacts of transposed convolutions with overlapping kernels (Odena et al. 2016,
  Distill).
  """

  features: int
  kernel: tuple[int, int]
  size: tuple[int, int]
  method: str  # a key of ae_jax.ops.resizing.METHODS
  kernel_init: Callable = default_init

  @nn.compact
  def __call__(self, x: Maps) -> OutputMaps:
    kernel = self.param("kernel", self.kernel_init, (*self.kernel, x.shape[0], self.features))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return resizing.resize_conv(x, kernel, self.size, self.method) + bias[:, None, None, None]


class SubpixelConv(nn.Module):
  """A sub-pixel convolution (depth to space) with bias, cropped to `size`: [C, H, W, B] -> [features, *size, B].

  Each pixel becomes a block of ceil(size / [H, W]) pixels. At initialisation, the filters of all pixels of a block are
  equal (ICNR, Aitken et al. 2017, arXiv 1707.02937). Each block is then constant, which avoids checkerboard artifacts.
  """

  features: int
  kernel: tuple[int, int]
  size: tuple[int, int]
  kernel_init: Callable = default_init

  @nn.compact
  def __call__(self, x: Maps) -> OutputMaps:
    ratio = tuple(-(-after // before) for before, after in zip(x.shape[1:3], self.size, strict=True))
    block = ratio[0] * ratio[1]

    def icnr(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
      return jnp.repeat(self.kernel_init(key, (*shape[:-1], self.features)), block, axis=-1)

    kernel = self.param("kernel", icnr, (*self.kernel, x.shape[0], self.features * block))
    bias = self.param("bias", nn.initializers.zeros, (self.features * block,))
    return resizing.depth_to_space(convolutions.conv_same(x, kernel) + bias[:, None, None, None], ratio, self.size)


def _nearest(
  features: int, kernel: tuple[int, int], stride: int, size: tuple[int, int], init: Callable = default_init
) -> ResizeConv:
  del stride
  return ResizeConv(features, kernel, size, "nearest", init)


def _bilinear(
  features: int, kernel: tuple[int, int], stride: int, size: tuple[int, int], init: Callable = default_init
) -> ResizeConv:
  del stride
  return ResizeConv(features, kernel, size, "bilinear", init)


def _subpixel(
  features: int, kernel: tuple[int, int], stride: int, size: tuple[int, int], init: Callable = default_init
) -> SubpixelConv:
  del stride
  return SubpixelConv(features, kernel, size, init)


# config.model.decoder -> function (features, kernel, stride, size, initialiser of the kernel) that builds the layer;
# only "transposed" uses the stride.
LAYERS: dict[str, Callable[..., nn.Module]] = {
  "transposed": ConvTranspose,
  "nearest": _nearest,
  "bilinear": _bilinear,
  "subpixel": _subpixel,
}
