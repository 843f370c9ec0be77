"""The convolutional autoencoder: an encoder of convolutions and max-pooling, and a choice of upsampling decoders.

The layers expect images in the layout [C, H, W, B] (see `ae_jax.ops.convolutions`). Series [T, C] are
images of width 1.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from ae_jax import errors
from ae_jax.models import activations, bottlenecks, layouts, linear_paths, stage_sizes, upsampling
from ae_jax.models.dropout import DECODER, check_rate, drop
from ae_jax.models.interface import AutoencoderModule, CodeSpec, Encoding, Examples, Latents, Logits
from ae_jax.models.upsampling import Maps, OutputMaps
from ae_jax.ops import convolutions, resizing
from ae_jax.types import AnyArray, Columns, Keys


class Conv(nn.Module):
  """A convolution with bias: [C, H, W, B] -> [features, H', W', B]."""

  features: int
  kernel: tuple[int, int]  # (height, width)
  operation: Callable  # (images, kernel) -> images, e.g. `ops.convolutions.conv` or `conv_pool`

  @nn.compact
  def __call__(self, x: Maps) -> OutputMaps:
    kernel = self.param("kernel", upsampling.default_init, (*self.kernel, x.shape[0], self.features))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return self.operation(x, kernel) + bias[:, None, None, None]


def down(h: Maps, encoder: nn.Module, operation: Callable, dropout: Keys | None) -> OutputMaps:
  """Applies all stages of an encoder: each is a convolution with pooling, an activation and dropout.

  This function creates the layers, so the encoder must call it in its compact method.

  Args:
    h: Images [C, H, W, B].
    encoder: Module with the fields `channels`, `kernel`, `activation` and `dropout`.
    operation: Convolution with pooling, (images, kernel) -> images.
    dropout: One random key per example; None disables dropout.
  """
  for number, features in enumerate(encoder.channels):
    h = encoder.activation(Conv(features, encoder.kernel, operation)(h))
    h = drop(h, dropout, encoder.dropout, number, -1)
  return h


class ConvEncoder(nn.Module):
  """Stages of convolution, 2x2 max-pooling and activation, then a dense layer: [B, H, W, C] -> [B, outputs].

  The activation follows the pooling, so it is applied to a quarter of the elements. For a monotone activation such as
  ReLU, activation before pooling gives the same result.
  """

  outputs: int
  channels: tuple[int, ...]  # output channels of each stage
  kernel: tuple[int, int]
  activation: Callable
  dropout: float
  output_init: Callable = linear_paths.default_init  # initialiser of the dense layer

  @nn.compact
  def __call__(self, x: Examples, dropout: Keys | None = None) -> Float[Array, "batch outputs"]:
    h = down(layouts.to_maps(x), self, conv_pool, dropout)
    return nn.Dense(self.outputs, kernel_init=self.output_init, name="code")(flat(h))


class ConvDecoder(nn.Module):
  """A dense layer to the smallest image, then one upsampling layer per stage: [B, latent] -> logits [B, H, W, C]."""

  shape: tuple[int, ...]
  channels: tuple[int, ...]  # channels of the smallest image, then of the output of each stage except the last
  sizes: tuple[tuple[int, int], ...]  # (height, width) of the smallest image, then of the output of each stage
  kernels: tuple[tuple[int, int], ...]
  strides: tuple[int, ...]
  activation: Callable
  layer: Callable  # a value of upsampling.LAYERS
  dropout: float
  output_init: Callable = linear_paths.default_init  # initialiser of the last layer

  @nn.compact
  def __call__(self, z: Latents, dropout: Keys | None = None) -> Logits:
    smallest = (self.channels[0], *self.sizes[0])
    h = self.activation(nn.Dense(math.prod(smallest))(z))
    h = drop(h.T.reshape(*smallest, z.shape[0]), dropout, self.dropout, DECODER, -1)  # [C, H, W, B]
    stages = zip((*self.channels[1:], self.shape[-1]), self.kernels, self.strides, self.sizes[1:], strict=True)
    for stage, (features, kernel, stride, size) in enumerate(stages):
      h = h if stage == 0 else drop(self.activation(h), dropout, self.dropout, DECODER + stage, -1)
      init = self.output_init if stage == len(self.kernels) - 1 else linear_paths.default_init
      h = self.layer(features, kernel, stride, size, init)(h)
    return layouts.from_maps(h, self.shape)


class TiedConv(AutoencoderModule):
  """The convolutional autoencoder with tied weights: the decoder uses the encoder's kernels and separate biases.

  The decoder first applies the transposed dense layer. Then, for each encoder stage from last to first, it upsamples
  the image to the size before pooling (nearest neighbour) and applies the transpose of the stage's convolution.
  """

  shape: tuple[int, ...]
  latent: int
  channels: tuple[int, ...]
  kernel: tuple[int, int]
  activation: Callable
  decoder_activation: Callable
  code_activation: Callable
  spec: CodeSpec
  dropout: float

  @property
  def code_spec(self) -> CodeSpec:
    return self.spec

  def setup(self) -> None:
    init, zeros = upsampling.default_init, nn.initializers.zeros
    self.convolved, pooled = stage_sizes.unpadded(self.shape, self.kernel, len(self.channels))
    self.smallest = (self.channels[-1], *pooled[-1])
    stages = list(enumerate(zip((self.shape[-1], *self.channels), self.channels, strict=False)))
    self.kernels = [self.param(f"kernel_{i}", init, (*self.kernel, *pair)) for i, pair in stages]
    self.biases = [self.param(f"bias_{i}", zeros, pair[1:]) for i, pair in stages]
    self.decoder_biases = [self.param(f"decoder_bias_{i}", zeros, pair[:1]) for i, pair in stages]
    features = math.prod(self.smallest)
    self.code_kernel = self.param("code_kernel", init, (features, self.latent))
    self.code_bias = self.param("code_bias", zeros, (self.latent,))
    self.decoder_code_bias = self.param("decoder_code_bias", zeros, (features,))

  def encode(self, x: Examples, batch: Columns | None = None, dropout: Keys | None = None) -> Encoding:
    h = layouts.to_maps(x)
    for number, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
      h = self.activation(conv_pool(h, kernel) + bias[:, None, None, None])
      h = drop(h, dropout, self.dropout, number, -1)
    return bottlenecks.encoding(self.code_activation, flat(h) @ self.code_kernel + self.code_bias[None])

  def decode(self, z: Latents, batch: Columns | None = None, dropout: Keys | None = None) -> Logits:
    h = (z @ self.code_kernel.T + self.decoder_code_bias[None]).T.reshape(*self.smallest, z.shape[0])
    stages = zip(self.kernels, self.decoder_biases, self.convolved, strict=True)
    for number, (kernel, bias, size) in enumerate(reversed(list(stages))):
      h = drop(self.decoder_activation(h), dropout, self.dropout, DECODER + number, -1)
      h = resizing.resize(h, size, "nearest")
      h = convolutions.conv_adjoint(h, kernel) + bias[:, None, None, None]
    return layouts.from_maps(h, self.shape)


def conv_pool(
  h: Maps,
  kernel: Float[AnyArray, "kernel_height kernel_width channels features"],
) -> OutputMaps:
  """Returns `pool(convolutions.conv(h, kernel))`: a convolution without padding, then 2x2 max-pooling."""
  convolved = (side - k + 1 for side, k in zip(h.shape[1:3], kernel.shape[:2], strict=True))
  return convolutions.conv_max_pool(h, kernel, _pooling_window(convolved))


def pool(h: Maps) -> Float[Array, "channels rows columns batch"]:
  """Applies 2x2 max-pooling: [C, H, W, B] -> [C, max(1, H // 2), max(1, W // 2), B]; a side of 1 is not pooled."""
  return convolutions.max_pool(h, _pooling_window(h.shape[1:3]))


def _pooling_window(size):
  """Returns the pooling window (height, width) for images of the given (height, width)."""
  return tuple(min(2, side) for side in size)


def flat(h: Maps) -> Float[AnyArray, "batch features"]:
  """Flattens images [C, H, W, B] to vectors [B, C * H * W]."""
  return h.reshape(math.prod(h.shape[:3]), h.shape[3]).T


def build(
  shape: tuple[int, ...],
  *,
  latent: Any,
  channels: Any,
  kernel: Any,
  activation: Any,
  bottleneck: Any,
  decoder: Any,
  decoder_kernels: Any,
  decoder_strides: Any,
  decoder_activation: Any,
  dropout: Any = 0.0,
  linear_path: Any = "none",
) -> AutoencoderModule:
  """Builds the convolutional autoencoder for images [H, W, C] or series [T, C].

  `decoder` is a key of `upsampling.LAYERS`, or "tied" for `TiedConv`, which ignores `decoder_kernels` and
  `decoder_strides`. The last decoder stage returns images of the size of the example. Each other decoder stage returns
  images of the size that the matching encoder convolution returns. For 28x28 images, the sizes are 5 -> 11 -> 28.
  If `decoder_kernels` or `decoder_strides` has fewer numbers than there are stages, its first number is repeated at the
  beginning. `decoder_activation="identity"` makes the decoder affine. `dropout` is the dropout rate after each
  hidden layer in training. For series, kernels and strides span time steps only. `linear_path` is a key of
  `linear_paths.LINEAR_PATHS`; `models.build` adds the path.

  Raises:
    UserError: An option is invalid, or the examples are too small for the stages.
  """
  _check_options(shape, channels, kernel, decoder_kernels, decoder_strides, dropout)
  output_init = linear_paths.output_init(linear_path, bottleneck, "decoder='transposed'" if decoder == "tied" else "")
  decoder_kernels, decoder_strides = (_per_stage(sizes, len(channels)) for sizes in (decoder_kernels, decoder_strides))
  kernel = layouts.square(kernel, shape)
  convolved, pooled = stage_sizes.unpadded(shape, kernel, len(channels))
  encoder_function = activations.choose(activation, "activation")
  decoder_function = activations.choose(decoder_activation, "decoder_activation")
  layer = errors.choose({**upsampling.LAYERS, "tied": None}, decoder, "model.decoder")
  if decoder == "tied":
    functions = {"activation": encoder_function, "decoder_activation": decoder_function}
    return _build_tied(bottleneck, latent, shape=shape, channels=channels, kernel=kernel, dropout=dropout, **functions)
  sizes = (pooled[-1], *convolved[:0:-1], layouts.image_shape(shape)[:2])
  kernels = tuple(layouts.square(k, shape) for k in decoder_kernels)
  if decoder == "transposed":
    kernels = _enlarged_kernels(kernels, decoder_strides, sizes)
  return bottlenecks.build_autoencoder(
    bottleneck,
    latent,
    lambda outputs: ConvEncoder(outputs, channels, kernel, encoder_function, dropout, output_init),
    ConvDecoder(shape, channels[::-1], sizes, kernels, decoder_strides, decoder_function, layer, dropout, output_init),
  )


def _check_options(shape, channels, kernel, decoder_kernels, decoder_strides, dropout):
  """Raises UserError if an option of the stages is invalid, even if the decoder does not use the option."""
  errors.check_positive("model.kernel", kernel)
  errors.check_all_positive("model.channels", channels)
  check_rate(dropout)
  for key, value in {"decoder_kernels": decoder_kernels, "decoder_strides": decoder_strides}.items():
    errors.check_all_positive(f"model.{key}", value)
    wanted = f"a tuple of at most {len(channels)} numbers, one per stage of config.model.channels={channels}"
    errors.check(len(value) <= len(channels), f"model.{key}", value, wanted)
    errors.check_kernel_size(f"model.{key}", value, shape[:-1])


def _per_stage(sizes: tuple[int, ...], stages: int) -> tuple[int, ...]:
  """Pads `sizes` to one entry per stage by repeating its first entry at the front."""
  return sizes[:1] * (stages - len(sizes)) + sizes


def _build_tied(bottleneck, latent, **fields):
  """Builds a `TiedConv`; `fields` are the fields that do not depend on the bottleneck and the latent size."""
  errors.check_positive("model.latent", latent)
  wanted = f"one of {', '.join(bottlenecks.DETERMINISTIC)} if config.model.decoder='tied'"
  errors.check(bottleneck != "gaussian", "model.bottleneck", bottleneck, wanted)
  code_activation = errors.choose(bottlenecks.DETERMINISTIC, bottleneck, "model.bottleneck")
  spec = bottlenecks.spec(bottleneck, latent)
  return TiedConv(latent=latent, code_activation=code_activation, spec=spec, **fields)


def automatic_options(shape: tuple[int, ...], options: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the options that are chosen from the size of the images if `channels` is ().

  The options are `channels`, `decoder_kernels` and `decoder_strides`. The last two are those in `options`, shortened to
  the number of stages.

  Args:
    shape: Shape (H, W, C) of an image, or (T, C) of a series.
    options: Options of `build`.
  """
  kernel = options["kernel"]
  errors.check_positive("model.kernel", kernel)
  channels = stage_sizes.automatic_channels(shape[:-1], lambda side: (side - kernel + 1) // 2 or int(side == kernel))
  decoder = {key: options[key][-len(channels) :] for key in ("decoder_kernels", "decoder_strides")}
  return {"channels": channels, **decoder}


def _enlarged_kernels(
  kernels: Sequence[tuple[int, int]], strides: Sequence[int], sizes: Sequence[tuple[int, ...]]
) -> tuple[tuple[int, ...], ...]:
  """Returns the kernel sizes, enlarged where a transposed convolution would not cover its whole output."""
  return tuple(
    tuple(max(side, after - stride * (before - 1)) for side, before, after in zip(kernel, small, large, strict=True))
    for kernel, stride, small, large in zip(kernels, strides, sizes, sizes[1:], strict=False)
  )
