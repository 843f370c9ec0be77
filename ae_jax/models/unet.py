"""A convolutional autoencoder with symmetric skip connections (Dong et al., arXiv 1611.09119; U-Net, arXiv 1505.04597).

Inside, images are laid out [C, H, W, B] (see `ae_jax.ops.convolutions`).
"""

import math
import operator
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from ae_jax import errors
from ae_jax.models import activations, bottlenecks
from ae_jax.models.convolutional import Conv, flat, pool
from ae_jax.models.dropout import DECODER, check_rate, drop
from ae_jax.models.interface import AutoencoderModule, Encoding
from ae_jax.ops import convolutions, resizing


class UNet(AutoencoderModule):
  """Per stage a padded convolution and 2x2 max-pooling down to a code, and back up beside what was pooled.

  The skips go around the code: `decode` is the decoder without them (zeros), `decode_beside` has those of an image that
  need not be the code's.
  """

  shape: tuple[int, int, int]
  latent: int
  channels: tuple[int, ...]
  kernel: int
  activation: Callable
  join: Callable  # of SKIPS
  dropout: float

  @property
  def code_spec(self):
    return bottlenecks.spec("identity", self.latent)

  @property
  def has_skips(self):
    return self.join is not SKIPS["none"]

  def setup(self):
    self.sizes = stage_sizes(self.shape[:2], len(self.channels))
    self.smallest = (self.channels[-1], *self.sizes[-1])
    self.down = [self._conv(features) for features in self.channels]
    self.code = nn.Dense(self.latent)
    self.uncode = nn.Dense(math.prod(self.smallest))
    self.up = [self._conv(features) for features in (self.shape[2], *self.channels[:-1])]

  def __call__(self, x, given=None, dropout=None):
    z, skips = self._descend(x, dropout)
    return Encoding(z), self._ascend(z, skips, dropout)

  def encode(self, x, given=None, dropout=None):
    return Encoding(self._descend(x, dropout)[0])

  def decode(self, z, given=None, dropout=None):
    stages = zip(self.channels, self.sizes[:-1], strict=True)
    return self._ascend(z, [jnp.zeros((features, *size, z.shape[0]), z.dtype) for features, size in stages], dropout)

  def decode_beside(self, z, x):
    """Codes [B, latent] and images [B, H, W, C] that give the skips -> logits [B, H, W, C]."""
    return self._ascend(z, self._descend(x, None)[1], None)

  def _conv(self, features):
    return Conv(features, self.kernel, convolutions.conv_same)

  def _descend(self, x, dropout):
    h, skips = x.transpose(3, 1, 2, 0), []
    for number, conv in enumerate(self.down):
      skips.append(drop(self.activation(conv(h)), dropout, self.dropout, number, -1))
      h = pool(skips[-1])
    return self.code(flat(h)), skips

  def _ascend(self, z, skips, dropout):
    h = self.uncode(z).T.reshape(*self.smallest, z.shape[0])
    for number, (conv, skip) in enumerate(reversed(list(zip(self.up, skips, strict=True)))):
      h = drop(self.activation(h), dropout, self.dropout, DECODER + number, -1)
      h = resizing.resize(h, skip.shape[1:3], "nearest")
      h = conv(self.join(h, skip))
    return h.transpose(3, 1, 2, 0)


def _concatenated(h, skip):
  return jnp.concatenate([h, skip])


def _none(h, skip):
  del skip
  return h


# How an image on its way up meets what was pooled on the way down, both [C, H, W, B].
SKIPS = {"additive": operator.add, "concatenated": _concatenated, "none": _none}


def build(shape, *, latent, channels, kernel, activation, skips, dropout=0.0):
  """The autoencoder with skip connections; "none" leaves them out. Raises UserError, also for an image too small."""
  errors.check_positive("model.latent", latent)
  errors.check_positive("model.kernel", kernel)
  errors.check_reach("model.kernel", kernel, shape[:2])
  errors.check_all_positive("model.channels", channels)
  check_rate(dropout)
  stage_sizes(shape[:2], len(channels))
  join = errors.choose(SKIPS, skips, "model.skips")
  return UNet(shape, latent, channels, kernel, activations.choose(activation, "activation"), join, dropout)


def stage_sizes(size, stages):
  """The (height, width) of the image and after each pooling; each stage halves, an odd side loses its last pixel."""
  sizes = [size]
  for stage in range(stages):
    if min(sizes[-1]) < 2:
      raise errors.UserError(
        f"config.model.channels has {stages} stages, but an image of {size[0]}x{size[1]} is {sizes[-1][0]}x"
        f"{sizes[-1][1]} after {stage} and cannot be halved; {_fix(stage)}"
      )
    sizes.append(tuple(side // 2 for side in sizes[-1]))
  return tuple(sizes)


def _fix(stages):
  """Returns the advice for an image that can be halved so many times."""
  if stages == 0:
    return "use config.model.name='dense' for images with a side of 1"
  return f"use at most {stages} stage{'s' if stages > 1 else ''}"
