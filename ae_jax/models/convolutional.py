"""The convolutional autoencoder: convolutions and pooling down to a code, and one of several ways back up.

Inside, images are laid out [C, H, W, B] (see `ae_jax.ops.convolutions`).
"""

import math
from collections.abc import Callable

import flax.linen as nn

from ae_jax import errors
from ae_jax.models import activations, bottlenecks, upsampling
from ae_jax.models.dropout import DECODER, check_rate, drop
from ae_jax.models.interface import AutoencoderModule, CodeSpec
from ae_jax.ops import convolutions, resizing


class Conv(nn.Module):
  """A convolution, of a kind, and a bias: [C, H, W, B] -> [features, H', W', B]."""

  features: int
  kernel: int
  operation: Callable  # (image, kernel) -> image: one of ops.convolutions, or `conv_pool`

  @nn.compact
  def __call__(self, x):
    kernel = self.param("kernel", upsampling.KERNEL_INIT, (self.kernel, self.kernel, x.shape[0], self.features))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return self.operation(x, kernel) + bias[:, None, None, None]


def down(h, encoder, operation, dropout):
  """Applies the stages of an encoder, within its compact method: convolution and pooling, activation, dropout.

  `operation` is the convolution with pooling: (image, kernel) -> image.
  """
  for number, features in enumerate(encoder.channels):
    h = encoder.activation(Conv(features, encoder.kernel, operation)(h))
    h = drop(h, dropout, encoder.dropout, number, -1)
  return h


class ConvEncoder(nn.Module):
  """Per stage convolution, 2x2 max-pooling, activation; then one dense layer: [B, H, W, C] -> [B, outputs].

  Any activation that never falls, such as ReLU, may as well stand before the pooling: here it has a quarter to do.
  """

  outputs: int
  channels: tuple[int, ...]
  kernel: int
  activation: Callable
  dropout: float

  @nn.compact
  def __call__(self, x, dropout=None):
    h = x.transpose(3, 1, 2, 0)  # [C, H, W, B]
    h = down(h, self, conv_pool, dropout)
    return nn.Dense(self.outputs, name="code")(flat(h))


class ConvDecoder(nn.Module):
  """A dense layer to the smallest image, then per stage a layer that enlarges it to the next of `sizes`: logits."""

  shape: tuple[int, int, int]
  channels: tuple[int, ...]  # of the smallest image, then of the output of each stage but the last
  sizes: tuple[tuple[int, int], ...]  # of the smallest image, then of the output of each stage
  kernels: tuple[tuple[int, int], ...]
  strides: tuple[int, ...]
  activation: Callable
  layer: Callable  # of upsampling.LAYERS
  dropout: float

  @nn.compact
  def __call__(self, z, dropout=None):
    smallest = (self.channels[0], *self.sizes[0])
    h = self.activation(nn.Dense(math.prod(smallest))(z))
    h = drop(h.T.reshape(*smallest, z.shape[0]), dropout, self.dropout, DECODER, -1)  # [C, H, W, B]
    stages = zip((*self.channels[1:], self.shape[2]), self.kernels, self.strides, self.sizes[1:], strict=True)
    for stage, (features, kernel, stride, size) in enumerate(stages):
      h = h if stage == 0 else drop(self.activation(h), dropout, self.dropout, DECODER + stage, -1)
      h = self.layer(features, kernel, stride, size)(h)
    return h.transpose(3, 1, 2, 0)


class TiedConv(AutoencoderModule):
  """The convolutional autoencoder whose decoder has the encoder's weights, and biases of its own.

  Back up, the code goes through the transposed dense layer; then per stage, last to first, the image is enlarged to
  the size that pooling saw (the nearest pixel) and goes through the transpose of the stage's convolution.
  """

  shape: tuple[int, int, int]
  latent: int
  channels: tuple[int, ...]
  kernel: int
  activation: Callable
  decoder_activation: Callable
  code_activation: Callable
  spec: CodeSpec
  dropout: float

  @property
  def code_spec(self):
    return self.spec

  def setup(self):
    init, zeros = upsampling.KERNEL_INIT, nn.initializers.zeros
    self.convolved, pooled = stage_sizes(self.shape[:2], self.kernel, len(self.channels))
    self.smallest = (self.channels[-1], *pooled[-1])
    stages = list(enumerate(zip((self.shape[2], *self.channels), self.channels, strict=False)))
    self.kernels = [self.param(f"kernel_{i}", init, (self.kernel, self.kernel, *pair)) for i, pair in stages]
    self.biases = [self.param(f"bias_{i}", zeros, pair[1:]) for i, pair in stages]
    self.decoder_biases = [self.param(f"decoder_bias_{i}", zeros, pair[:1]) for i, pair in stages]
    features = math.prod(self.smallest)
    self.code_kernel = self.param("code_kernel", init, (features, self.latent))
    self.code_bias = self.param("code_bias", zeros, (self.latent,))
    self.decoder_code_bias = self.param("decoder_code_bias", zeros, (features,))

  def encode(self, x, given=None, dropout=None):
    h = x.transpose(3, 1, 2, 0)
    for number, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
      h = self.activation(conv_pool(h, kernel) + bias[:, None, None, None])
      h = drop(h, dropout, self.dropout, number, -1)
    return bottlenecks.encoding(self.code_activation, flat(h) @ self.code_kernel + self.code_bias[None])

  def decode(self, z, given=None, dropout=None):
    h = (z @ self.code_kernel.T + self.decoder_code_bias[None]).T.reshape(*self.smallest, z.shape[0])
    stages = zip(self.kernels, self.decoder_biases, self.convolved, strict=True)
    for number, (kernel, bias, size) in enumerate(reversed(list(stages))):
      h = drop(self.decoder_activation(h), dropout, self.dropout, DECODER + number, -1)
      h = resizing.resize(h, size, "nearest")
      h = convolutions.conv_adjoint(h, kernel) + bias[:, None, None, None]
    return h.transpose(3, 1, 2, 0)


def conv_pool(h, kernel):
  """Convolution without padding, then `pool`: [C, H, W, B], [k, k, C, C_out] -> [C_out, H', W', B]."""
  convolved = (side - k + 1 for side, k in zip(h.shape[1:3], kernel.shape[:2], strict=True))
  return convolutions.conv_max_pool(h, kernel, _window(convolved))


def pool(h):
  """2x2 max-pooling, a side of 1 left alone: [C, H, W, B] -> [C, max(1, H // 2), max(1, W // 2), B]."""
  return convolutions.max_pool(h, _window(h.shape[1:3]))


def _window(size):
  """Of pooling, for an image of (height, width)."""
  return tuple(min(2, side) for side in size)


def flat(h):
  """Images [C, H, W, B] -> features [B, C * H * W]."""
  return h.reshape(math.prod(h.shape[:3]), h.shape[3]).T


def build(
  shape,
  *,
  latent,
  channels,
  kernel,
  activation,
  bottleneck,
  decoder,
  decoder_kernels,
  decoder_strides,
  decoder_activation,
  dropout=0.0,
):
  """The lecture's convolutional autoencoder for any image size, any number of stages and any widths.

  The decoder goes from the smallest image to the outputs of the encoder's convolutions, last to second, and from there
  to the image: at 28x28, 5 -> 11 -> 28. It is one of `upsampling.LAYERS`, or "tied" (`TiedConv`), which needs neither
  kernels nor strides. The paddings of "transposed" follow from these sizes, and a kernel of `decoder_kernels` that
  would leave the far edge of its output without input is enlarged until it reaches. `decoder_activation="identity"` is
  the affine decoder; `dropout` is the rate behind each hidden layer in training. Raises UserError, also for an image
  too small for the stages.
  """
  errors.check_positive("model.kernel", kernel)
  errors.check_all_positive("model.channels", channels)
  check_rate(dropout)
  for key, value in {"decoder_kernels": decoder_kernels, "decoder_strides": decoder_strides}.items():
    errors.check_all_positive(f"model.{key}", value)
    wanted = f"one number for each of the {len(channels)} stages of model.channels={channels}"
    errors.check(len(value) == len(channels), f"model.{key}", value, wanted)
    errors.check_reach(f"model.{key}", value, shape[:2])
  convolved, pooled = stage_sizes(shape[:2], kernel, len(channels))
  sizes = (pooled[-1], *convolved[:0:-1], shape[:2])
  function = activations.choose(activation, "activation")
  back = activations.choose(decoder_activation, "decoder_activation")
  layer = errors.choose({**upsampling.LAYERS, "tied": None}, decoder, "model.decoder")
  if decoder == "tied":
    errors.check_positive("model.latent", latent)
    wanted = f"one of {', '.join(bottlenecks.DETERMINISTIC)} with config.model.decoder='tied'"
    errors.check(bottleneck != "gaussian", "model.bottleneck", bottleneck, wanted)
    code = errors.choose(bottlenecks.DETERMINISTIC, bottleneck, "model.bottleneck")
    spec = bottlenecks.spec(bottleneck, latent)
    return TiedConv(shape, latent, channels, kernel, function, back, code, spec, dropout)
  kernels = tuple((k, k) for k in decoder_kernels)
  if decoder == "transposed":
    kernels = _reaching(kernels, decoder_strides, sizes)
  return bottlenecks.build_autoencoder(
    bottleneck,
    latent,
    lambda outputs: ConvEncoder(outputs, channels, kernel, function, dropout),
    ConvDecoder(shape, channels[::-1], sizes, kernels, decoder_strides, back, layer, dropout),
  )


def stage_sizes(size, kernel, stages):
  """The (height, width) after the convolution and after the pooling of each stage; a side of 1 is not pooled."""
  convolved, pooled = [], [size]
  for stage in range(stages):
    convolved.append(tuple(side - kernel + 1 for side in pooled[-1]))
    if min(convolved[-1]) < 1:
      raise errors.UserError(
        f"config.model.channels has {stages} stages, but an image of {size[0]}x{size[1]} is {pooled[-1][0]}x"
        f"{pooled[-1][1]} after {stage} and its {kernel}x{kernel} convolution does not fit; {_fix(stage)}use a smaller "
        "config.model.kernel"
      )
    pooled.append(tuple(max(1, side // 2) for side in convolved[-1]))
  return convolved, pooled[1:]


def _fix(stages):
  """Returns the advice for an image that is large enough for so many stages; "" for none."""
  return f"use at most {stages} stage{'s' if stages > 1 else ''}, or " if stages else ""


def _reaching(kernels, strides, sizes):
  """The kernels, enlarged where a transposed convolution of this stride would not reach its size."""
  return tuple(
    tuple(max(side, after - stride * (before - 1)) for side, before, after in zip(kernel, small, large, strict=True))
    for kernel, stride, small, large in zip(kernels, strides, sizes, sizes[1:], strict=False)
  )
