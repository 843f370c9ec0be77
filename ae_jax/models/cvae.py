"""The conditional variational autoencoder: encoder and decoder know the label of the example (Sohn et al. 2015)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ae_jax import errors
from ae_jax.models import activations, bottlenecks
from ae_jax.models.dense import DenseDecoder, DenseEncoder, check_widths
from ae_jax.models.dropout import check_rate
from ae_jax.models.interface import AutoencoderModule, CodeSpec, Encoding, Gaussian
from ae_jax.ops import losses


class ConditionalVAE(AutoencoderModule):
  """A dense encoder of (x, label) to a gaussian posterior, and a dense decoder of (z, label).

  The label enters both as a one-hot vector beside the example or the code. The prior does not depend on it.
  """

  encoder: nn.Module
  decoder: nn.Module
  spec: CodeSpec
  known: tuple[int, ...]  # the labels; the column "label" holds positions in this tuple

  @property
  def code_spec(self):
    return self.spec

  @property
  def columns(self):
    return ("label",)

  @property
  def labels(self):
    return self.known

  @property
  def has_posterior(self):
    return True

  def encode(self, x, given=None, dropout=None):
    mean, log_variance = jnp.split(self.encoder(self._beside(losses.flat(x), given), dropout), 2, axis=-1)
    return Encoding(mean, Gaussian(mean, log_variance))

  def decode(self, z, given=None, dropout=None):
    return self.decoder(self._beside(z, given), dropout)

  def _beside(self, vectors, given):
    return jnp.concatenate([vectors, jax.nn.one_hot(given["label"], len(self.known), dtype=vectors.dtype)], axis=1)


def build(shape, labels, *, latent, widths, decoder_widths, activation, dropout=0.0):
  """Returns the conditional VAE of examples of a shape with these labels; the options are those of the dense family."""
  errors.check_positive("model.latent", latent)
  check_widths(widths, decoder_widths)
  check_rate(dropout)
  function = activations.choose(activation, "activation")
  encoder = DenseEncoder(2 * latent, widths, function, dropout)
  decoder = DenseDecoder(shape, decoder_widths or widths[::-1], function, dropout)
  spec = bottlenecks.spec("gaussian", latent)._replace(size_axis=None)  # the label's rows follow those of the code
  return ConditionalVAE(encoder, decoder, spec, labels)
