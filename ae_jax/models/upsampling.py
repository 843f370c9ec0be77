"""What a convolutional decoder enlarges images with, each with a kernel and a bias: [C, H, W, B] -> [C', H', W', B]."""

import flax.linen as nn
import jax.numpy as jnp

from ae_jax.ops import convolutions, resizing

KERNEL_INIT = nn.initializers.lecun_normal()  # as nn.Conv's


class ConvTranspose(nn.Module):
  """A transposed convolution with bias, cropped to `size`: [C, H, W, B] -> [features, *size, B]."""

  features: int
  kernel: tuple[int, int]
  stride: int
  size: tuple[int, int]

  @nn.compact
  def __call__(self, x):
    kernel = self.param("kernel", KERNEL_INIT, (*self.kernel, x.shape[0], self.features))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return convolutions.conv_transpose(x, kernel, self.stride, self.size) + bias[:, None, None, None]


class ResizeConv(nn.Module):
  """Interpolation to `size`, then a convolution that keeps it, with bias: [C, H, W, B] -> [features, *size, B].

  Free of the checkerboards that overlapping transposed kernels leave (Odena et al. 2016, Distill).
  """

  features: int
  kernel: tuple[int, int]
  size: tuple[int, int]
  method: str  # of ae_jax.ops.resizing.METHODS

  @nn.compact
  def __call__(self, x):
    kernel = self.param("kernel", KERNEL_INIT, (*self.kernel, x.shape[0], self.features))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return resizing.resize_conv(x, kernel, self.size, self.method) + bias[:, None, None, None]


class SubpixelConv(nn.Module):
  """A convolution whose channels become pixels, cropped to `size`: [C, H, W, B] -> [features, *size, B].

  Each pixel becomes a block of r = ceil(after / before) pixels a side. At initialisation the filters of a block are
  equal (ICNR, Aitken et al. 2017, arXiv 1707.02937), so that the blocks are constant and nothing shows their pattern.
  """

  features: int
  kernel: tuple[int, int]
  size: tuple[int, int]

  @nn.compact
  def __call__(self, x):
    ratio = tuple(-(-after // before) for before, after in zip(x.shape[1:3], self.size, strict=True))
    block = ratio[0] * ratio[1]

    def icnr(key, shape):
      return jnp.repeat(KERNEL_INIT(key, (*shape[:-1], self.features)), block, axis=-1)

    kernel = self.param("kernel", icnr, (*self.kernel, x.shape[0], self.features * block))
    bias = self.param("bias", nn.initializers.zeros, (self.features * block,))
    return resizing.depth_to_space(convolutions.conv_same(x, kernel) + bias[:, None, None, None], ratio, self.size)


def _nearest(features, kernel, stride, size):
  del stride
  return ResizeConv(features, kernel, size, "nearest")


def _bilinear(features, kernel, stride, size):
  del stride
  return ResizeConv(features, kernel, size, "bilinear")


def _subpixel(features, kernel, stride, size):
  del stride
  return SubpixelConv(features, kernel, size)


# The decoder's name -> (features, kernel, stride, size) -> the layer that reaches the size; one alone has a stride.
LAYERS = {"transposed": ConvTranspose, "nearest": _nearest, "bilinear": _bilinear, "subpixel": _subpixel}
