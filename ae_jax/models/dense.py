"""The dense autoencoder: an encoder and a decoder of fully connected layers, with separate or tied weights."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ae_jax import errors
from ae_jax.models import activations, bottlenecks, linear_paths
from ae_jax.models.dropout import DECODER, check_rate, drop
from ae_jax.models.interface import AutoencoderModule, CodeSpec, Encoding, Examples, Latents, Logits
from ae_jax.models.linear_paths import default_init
from ae_jax.ops import losses
from ae_jax.types import AnyArray, Columns, Keys


class DenseEncoder(nn.Module):
  """A multilayer perceptron: [B, *shape] -> hidden layers of sizes `widths` -> [B, outputs].

  The output layer has no activation.
  """

  outputs: int
  widths: tuple[int, ...]
  activation: Callable
  dropout: float
  output_init: Callable = default_init  # initialiser of the output layer

  def setup(self) -> None:
    self.hidden = [nn.Dense(width) for width in self.widths]
    self.code = nn.Dense(self.outputs, kernel_init=self.output_init)

  def __call__(self, x: Examples, dropout: Keys | None = None) -> Float[Array, "batch outputs"]:
    return self.code(self.below(x, len(self.widths), dropout))

  def below(self, x: Examples, layer: int, dropout: Keys | None = None) -> Float[AnyArray, "batch inputs"]:
    """Returns the input of layer `layer`; layers are numbered from 0."""
    h = losses.flat(x)
    for number, dense in enumerate(self.hidden[:layer]):
      h = drop(self.activation(dense(h)), dropout, self.dropout, number)
    return h

  def up(self, h: Float[AnyArray, "batch inputs"], layer: int) -> Float[Array, "batch outputs"]:
    """Applies layer `layer` and its activation; the output layer has no activation."""
    return self.activation(self.hidden[layer](h)) if layer < len(self.widths) else self.code(h)


class DenseDecoder(nn.Module):
  """A multilayer perceptron: latents [B, latent] -> hidden layers of sizes `widths` -> logits [B, *shape]."""

  shape: tuple[int, ...]
  widths: tuple[int, ...]
  activation: Callable
  dropout: float
  output_init: Callable = default_init  # initialiser of the output layer

  def setup(self) -> None:
    self.hidden = [nn.Dense(width) for width in self.widths]
    self.logits = nn.Dense(math.prod(self.shape), kernel_init=self.output_init)

  def __call__(self, z: Latents, dropout: Keys | None = None) -> Logits:
    h = z
    for number, dense in enumerate(self.hidden):
      h = drop(self.activation(dense(h)), dropout, self.dropout, DECODER + number)
    return self.logits(h).reshape(-1, *self.shape)

  def down(self, h: Float[AnyArray, "batch inputs"], layer: int) -> Float[Array, "batch outputs"]:
    """Applies layer `layer` without its activation. Layers are numbered backwards: 0 is the output layer."""
    return self.logits(h) if layer == 0 else self.hidden[-layer](h)


class Stack(bottlenecks.Autoencoder):
  """The dense autoencoder with separate weights, which supports greedy layer-wise training.

  Encoder layer i is paired with decoder layer i; decoder layer 0 is the output layer. Each pair can be trained as an
  autoencoder of the input of encoder layer i.
  """

  @property
  def layers(self) -> tuple[nn.Module, nn.Module]:
    return self.encoder, self.decoder

  def below(self, x: Examples, layer: int) -> Float[AnyArray, "batch features"]:
    """Returns the input of encoder layer `layer`; layers are numbered from 0."""
    return self.encoder.below(x, layer)

  def layer_logits(self, h: Float[AnyArray, "batch features"], layer: int) -> Float[Array, "batch features"]:
    """Reconstructs `h` with encoder layer `layer` and the paired decoder layer; returns logits.

    `h` is the input of this encoder layer.
    """
    return self.decoder.down(self.encoder.up(h, layer), layer)


class Tied(AutoencoderModule):
  """The dense autoencoder with tied weights: the decoder uses the encoder's transposed kernels and separate biases."""

  shape: tuple[int, ...]
  widths: tuple[int, ...]  # sizes of the hidden layers, then the latent size
  activation: Callable
  code_activation: Callable
  spec: CodeSpec
  dropout: float

  @property
  def code_spec(self) -> CodeSpec:
    return self.spec

  def setup(self) -> None:
    sizes = (math.prod(self.shape), *self.widths)
    init, zeros = default_init, nn.initializers.zeros
    layers = list(enumerate(itertools.pairwise(sizes)))
    self.kernels = [self.param(f"kernel_{i}", init, pair, jnp.float32) for i, pair in layers]
    self.biases = [self.param(f"bias_{i}", zeros, pair[1:], jnp.float32) for i, pair in layers]
    self.decoder_biases = [self.param(f"decoder_bias_{i}", zeros, pair[:1], jnp.float32) for i, pair in layers]

  def encode(self, x: Examples, batch: Columns | None = None, dropout: Keys | None = None) -> Encoding:
    h = losses.flat(x)
    for number, (kernel, bias) in enumerate(zip(self.kernels[:-1], self.biases[:-1], strict=True)):
      h = drop(self.activation(h @ kernel + bias[None]), dropout, self.dropout, number)
    return bottlenecks.encoding(self.code_activation, h @ self.kernels[-1] + self.biases[-1][None])

  def decode(self, z: Latents, batch: Columns | None = None, dropout: Keys | None = None) -> Logits:
    h = z
    for number, (kernel, bias) in enumerate(zip(self.kernels[:0:-1], self.decoder_biases[:0:-1], strict=True)):
      h = drop(self.activation(h @ kernel.T + bias[None]), dropout, self.dropout, DECODER + number)
    return (h @ self.kernels[0].T + self.decoder_biases[0][None]).reshape(-1, *self.shape)


def build(
  shape: tuple[int, ...],
  *,
  latent: Any,
  widths: Any,
  decoder_widths: Any,
  activation: Any,
  bottleneck: Any,
  tied: Any,
  dropout: Any = 0.0,
  linear_path: Any = "none",
) -> AutoencoderModule:
  """Builds the dense autoencoder for examples of any shape.

  `widths` are the sizes of the encoder's hidden layers; () means no hidden layer. `decoder_widths` are the sizes of the
  decoder's hidden layers; () means `widths` in reverse order. `tied` ties the decoder's weights to the encoder's
  weights; `decoder_widths` must then be () or `widths` in reverse order. `dropout` is the dropout rate after each
  hidden layer in training. `linear_path` is a key of `linear_paths.LINEAR_PATHS`; `models.build` adds the path.

  Raises:
    UserError: An option is invalid.
  """
  errors.check_positive("model.latent", latent)
  check_widths(widths, decoder_widths)
  errors.check_flag("model.tied", tied)
  check_rate(dropout)
  output_init = linear_paths.output_init(linear_path, bottleneck, "tied=False" if tied else "")
  function = activations.choose(activation, "activation")
  decoder_widths = decoder_widths or widths[::-1]
  if not tied:
    return bottlenecks.build_autoencoder(
      bottleneck,
      latent,
      lambda outputs: DenseEncoder(outputs, widths, function, dropout, output_init),
      DenseDecoder(shape, decoder_widths, function, dropout, output_init),
      deterministic=Stack,
    )
  if decoder_widths != widths[::-1]:
    raise errors.UserError(
      f"config.model.decoder_widths={decoder_widths}: must be config.model.widths={widths} in reverse order if "
      "config.model.tied=True; set config.model.decoder_widths=() or config.model.tied=False"
    )
  wanted = f"one of {', '.join(bottlenecks.DETERMINISTIC)} if config.model.tied=True"
  errors.check(bottleneck != "gaussian", "model.bottleneck", bottleneck, wanted)
  code_activation = errors.choose(bottlenecks.DETERMINISTIC, bottleneck, "model.bottleneck")
  return Tied(shape, (*widths, latent), function, code_activation, bottlenecks.spec(bottleneck, latent), dropout)


def check_widths(widths: Any, decoder_widths: Any) -> None:
  """Raises UserError unless `widths` and `decoder_widths` are tuples of positive integers; () is valid."""
  for key, value in {"widths": widths, "decoder_widths": decoder_widths}.items():
    if not isinstance(value, tuple) or value:
      errors.check_all_positive(f"model.{key}", value)
