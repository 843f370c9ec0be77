"""A convolutional autoencoder with symmetric skip connections (Dong et al., arXiv 1611.09119; U-Net, arXiv 1505.04597).

The layers expect images in the layout [C, H, W, B] (see `ae_jax.ops.convolutions`). Series [T, C] are
images of width 1.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ae_jax import errors
from ae_jax.models import activations, bottlenecks, layouts, stage_sizes
from ae_jax.models.convolutional import Conv, flat, pool
from ae_jax.models.dropout import DECODER, check_rate, drop
from ae_jax.models.interface import AutoencoderModule, CodeSpec, Encoding, Examples, Latents, Logits
from ae_jax.ops import convolutions, resizing
from ae_jax.types import Columns, Keys


class UNet(AutoencoderModule):
  """A U-Net with a dense bottleneck: [B, H, W, C] -> latents [B, latent] -> logits [B, H, W, C].

  Each encoder stage applies a size-preserving convolution, an activation and 2x2 max-pooling. A dense layer maps the
  output of the last stage to the latents. The decoder starts with a dense layer. Each decoder stage applies an
  activation and nearest-neighbour upsampling, concatenates the result with the skip connection of the same size, and
  applies a convolution.

  The skip connection of an encoder stage is its output before pooling. Skip connections bypass the latents. `decode`
  replaces them by zeros. `decode_beside` computes them from an image, which can differ from the image that was encoded
  to the latents.
  """

  shape: tuple[int, ...]
  latent: int
  channels: tuple[int, ...]
  kernel: tuple[int, int]
  activation: Callable
  join: Callable  # a value of SKIPS
  dropout: float

  @property
  def code_spec(self) -> CodeSpec:
    return bottlenecks.spec("identity", self.latent)

  @property
  def has_skips(self) -> bool:
    return self.join is not SKIPS["none"]

  def setup(self) -> None:
    self.sizes = stage_sizes.halved(self.shape, len(self.channels))
    self.smallest = (self.channels[-1], *self.sizes[-1])
    self.down = [self._conv(features) for features in self.channels]
    self.code = nn.Dense(self.latent)
    self.uncode = nn.Dense(math.prod(self.smallest))
    self.up = [self._conv(features) for features in (self.shape[-1], *self.channels[:-1])]

  def __call__(self, x: Examples, batch: Columns | None = None, dropout: Keys | None = None) -> tuple[Encoding, Logits]:
    z, skips = self._encode_with_skips(x, dropout)
    return Encoding(z), self._decode_with_skips(z, skips, dropout)

  def encode(self, x: Examples, batch: Columns | None = None, dropout: Keys | None = None) -> Encoding:
    return Encoding(self._encode_with_skips(x, dropout)[0])

  def decode(self, z: Latents, batch: Columns | None = None, dropout: Keys | None = None) -> Logits:
    stages = zip(self.channels, self.sizes[:-1], strict=True)
    skips = [jnp.zeros((features, *size, z.shape[0]), z.dtype) for features, size in stages]
    return self._decode_with_skips(z, skips, dropout)

  def decode_beside(self, z: Latents, x: Examples) -> Logits:
    """Returns the logits decoded from latents z with the skip connections of images x."""
    return self._decode_with_skips(z, self._encode_with_skips(x, None)[1], None)

  def _conv(self, features: int) -> Conv:
    return Conv(features, self.kernel, convolutions.conv_same)

  def _encode_with_skips(self, x: Examples, dropout: Keys | None) -> tuple[Float[Array, "batch latent"], list[Array]]:
    """Returns the latents and one skip connection [C, H, W, B] per stage."""
    h, skips = layouts.to_maps(x), []
    for number, conv in enumerate(self.down):
      skips.append(drop(self.activation(conv(h)), dropout, self.dropout, number, -1))
      h = pool(skips[-1])
    return self.code(flat(h)), skips

  def _decode_with_skips(self, z: Latents, skips: Sequence[Array], dropout: Keys | None) -> Logits:
    h = self.uncode(z).T.reshape(*self.smallest, z.shape[0])
    for number, (conv, skip) in enumerate(reversed(list(zip(self.up, skips, strict=True)))):
      h = drop(self.activation(h), dropout, self.dropout, DECODER + number, -1)
      h = resizing.resize(h, skip.shape[1:3], "nearest")
      h = conv(self.join(h, skip))
    return layouts.from_maps(h, self.shape)


def _concatenated(h, skip):
  return jnp.concatenate([h, skip])


def _none(h, skip):
  del skip
  return h


# config.model.skips -> function that joins decoder images with a skip connection of the same size, both [C, H, W, B].
SKIPS = {"additive": operator.add, "concatenated": _concatenated, "none": _none}


def build(
  shape: tuple[int, ...],
  *,
  latent: Any,
  channels: Any,
  kernel: Any,
  activation: Any,
  skips: Any,
  dropout: Any = 0.0,
) -> UNet:
  """Builds the autoencoder with skip connections for images [H, W, C] or series [T, C].

  `channels` has one number per encoder stage. `skips` is a key of `SKIPS`; "none" omits the skip connections. `dropout`
  is the dropout rate after each hidden layer in training.

  Raises:
    UserError: An option is invalid, or the examples are too small for the stages.
  """
  errors.check_positive("model.latent", latent)
  errors.check_positive("model.kernel", kernel)
  errors.check_kernel_size("model.kernel", kernel, shape[:-1])
  errors.check_all_positive("model.channels", channels)
  check_rate(dropout)
  stage_sizes.halved(shape, len(channels))
  join = errors.choose(SKIPS, skips, "model.skips")
  function, kernel = activations.choose(activation, "activation"), layouts.square(kernel, shape)
  return UNet(shape, latent, channels, kernel, function, join, dropout)


def automatic_options(shape: tuple[int, ...], options: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the options that are chosen from the size of the images if `channels` is ()."""
  del options
  return {"channels": stage_sizes.automatic_channels(shape[:-1], lambda side: side // 2)}
