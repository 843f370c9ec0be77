"""The convolutional autoencoder: convolutions and pooling down to a code, transposed convolutions back up.

Inside, images are laid out [C, H, W, B] (see `ae_jax.ops.convolutions`).
"""

import math
from collections.abc import Callable

import flax.linen as nn

from ae_jax import errors
from ae_jax.models import activations
from ae_jax.ops import convolutions

_KERNEL_INIT = nn.initializers.lecun_normal()  # as nn.Conv's


class Conv(nn.Module):
  """A convolution without padding, with bias: [C, H, W, B] -> [features, H - k + 1, W - k + 1, B]."""

  features: int
  kernel: int

  @nn.compact
  def __call__(self, x):
    kernel = self.param("kernel", _KERNEL_INIT, (self.kernel, self.kernel, x.shape[0], self.features))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return convolutions.conv(x, kernel) + bias[:, None, None, None]


class ConvTranspose(nn.Module):
  """A transposed convolution with bias, cropped to `size`: [C, H, W, B] -> [features, *size, B]."""

  features: int
  kernel: tuple[int, int]
  stride: int
  size: tuple[int, int]

  @nn.compact
  def __call__(self, x):
    kernel = self.param("kernel", _KERNEL_INIT, (*self.kernel, x.shape[0], self.features))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return convolutions.conv_transpose(x, kernel, self.stride, self.size) + bias[:, None, None, None]


class ConvEncoder(nn.Module):
  """Per stage convolution, activation, 2x2 max-pooling; then one dense layer to the code [B, latent]."""

  latent: int
  channels: tuple[int, ...]
  kernel: int
  activation: Callable

  @nn.compact
  def __call__(self, x):
    h = x.transpose(3, 1, 2, 0)  # [C, H, W, B]
    for features in self.channels:
      h = self.activation(Conv(features, self.kernel)(h))
      h = convolutions.max_pool(h, tuple(min(2, side) for side in h.shape[1:3]))
    h = h.reshape(math.prod(h.shape[:3]), x.shape[0]).T  # [B, features]
    return nn.Dense(self.latent, name="code")(h)


class ConvDecoder(nn.Module):
  """A dense layer to the smallest image, then per stage a transposed convolution to the next of `sizes`: logits."""

  shape: tuple[int, int, int]
  channels: tuple[int, ...]  # of the smallest image, then of the output of each stage but the last
  sizes: tuple[tuple[int, int], ...]  # of the smallest image, then of the output of each stage
  kernels: tuple[tuple[int, int], ...]
  strides: tuple[int, ...]
  activation: Callable

  @nn.compact
  def __call__(self, z):
    smallest = (self.channels[0], *self.sizes[0])
    h = self.activation(nn.Dense(math.prod(smallest))(z))
    h = h.T.reshape(*smallest, z.shape[0])  # [C, H, W, B]
    stages = zip((*self.channels[1:], self.shape[2]), self.kernels, self.strides, self.sizes[1:], strict=True)
    for stage, (features, kernel, stride, size) in enumerate(stages):
      h = ConvTranspose(features, kernel, stride, size)(h if stage == 0 else self.activation(h))
    return h.transpose(3, 1, 2, 0)


def build(shape, *, latent, channels, kernel, activation, decoder_kernels, decoder_strides, decoder_activation):
  """The lecture's convolutional autoencoder for any image size, any number of stages and any widths.

  The decoder goes from the smallest image to the outputs of the encoder's convolutions, last to second, and from there
  to the image: at 28x28, 5 -> 11 -> 28. Its paddings follow from these sizes. A kernel of `decoder_kernels` that would
  leave the far edge of its output without input is enlarged until it reaches. `decoder_activation="identity"` is the
  affine decoder. Raises UserError, also for an image too small for the stages.
  """
  errors.check_positive("model.latent", latent)
  errors.check_positive("model.kernel", kernel)
  errors.check_all_positive("model.channels", channels)
  for key, value in {"decoder_kernels": decoder_kernels, "decoder_strides": decoder_strides}.items():
    errors.check_all_positive(f"model.{key}", value)
    wanted = f"one number for each of the {len(channels)} stages of model.channels={channels}"
    errors.check(len(value) == len(channels), f"model.{key}", value, wanted)
  convolved, pooled = stage_sizes(shape[:2], kernel, len(channels))
  sizes = (pooled[-1], *convolved[:0:-1], shape[:2])
  kernels = tuple(
    tuple(max(k, after - stride * (before - 1)) for before, after in zip(small, large, strict=True))
    for k, stride, small, large in zip(decoder_kernels, decoder_strides, sizes, sizes[1:], strict=False)
  )
  encoder = ConvEncoder(latent, channels, kernel, activations.choose(activation, "activation"))
  back = activations.choose(decoder_activation, "decoder_activation")
  return encoder, ConvDecoder(shape, channels[::-1], sizes, kernels, decoder_strides, back)


def stage_sizes(size, kernel, stages):
  """The (height, width) after the convolution and after the pooling of each stage; a side of 1 is not pooled."""
  convolved, pooled = [], [size]
  for stage in range(stages):
    convolved.append(tuple(side - kernel + 1 for side in pooled[-1]))
    if min(convolved[-1]) < 1:
      raise errors.UserError(
        f"config.model.channels has {stages} stages, but an image of {size[0]}x{size[1]} is {pooled[-1][0]}x"
        f"{pooled[-1][1]} after {stage} and its {kernel}x{kernel} convolution does not fit; use at most {stage} stages "
        "or a smaller config.model.kernel"
      )
    pooled.append(tuple(max(1, side // 2) for side in convolved[-1]))
  return convolved, pooled[1:]
