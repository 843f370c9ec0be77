"""The conditional variational autoencoder: encoder and decoder receive the label of the example (Sohn et al. 2015)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ae_jax import errors
from ae_jax.models import activations, bottlenecks
from ae_jax.models.dense import DenseDecoder, DenseEncoder, check_widths
from ae_jax.models.dropout import check_rate
from ae_jax.models.interface import AutoencoderModule, CodeSpec, Encoding, Examples, Gaussian, Latents, Logits
from ae_jax.ops import losses
from ae_jax.types import AnyArray, Columns, Keys


class ConditionalVAE(AutoencoderModule):
  """A dense encoder (x, label) -> Gaussian posterior [B, latent], and a dense decoder (z, label) -> logits [B, *shape].

  The label is a one-hot vector. It is concatenated with the flattened example in the encoder, and with the latents in
  the decoder. The prior does not depend on the label.
  """

  encoder: nn.Module
  decoder: nn.Module
  spec: CodeSpec
  classes: tuple[int, ...]  # the distinct labels; the column "label" holds indices into this tuple

  @property
  def code_spec(self) -> CodeSpec:
    return self.spec

  @property
  def columns(self) -> tuple[str, ...]:
    return ("label",)

  @property
  def labels(self) -> tuple[int, ...]:
    return self.classes

  @property
  def has_posterior(self) -> bool:
    return True

  def encode(self, x: Examples, batch: Columns | None = None, dropout: Keys | None = None) -> Encoding:
    outputs = self.encoder(self._with_label(losses.flat(x), batch), dropout)
    mean, log_variance = jnp.split(outputs, 2, axis=-1)
    return Encoding(mean, Gaussian(mean, log_variance))

  def decode(self, z: Latents, batch: Columns | None = None, dropout: Keys | None = None) -> Logits:
    return self.decoder(self._with_label(z, batch), dropout)

  def _with_label(
    self, vectors: Float[AnyArray, "batch features"], batch: Columns
  ) -> Float[Array, "batch features_and_labels"]:
    one_hot = jax.nn.one_hot(batch["label"], len(self.classes), dtype=vectors.dtype)
    return jnp.concatenate([vectors, one_hot], axis=1)


def build(
  shape: tuple[int, ...],
  labels: tuple[int, ...],
  *,
  latent: Any,
  widths: Any,
  decoder_widths: Any,
  activation: Any,
  dropout: Any = 0.0,
) -> ConditionalVAE:
  """Builds the conditional VAE; `labels` are the distinct labels of the training examples.

  The options have the same meaning as in `dense.build`.

  Raises:
    UserError: An option is invalid.
  """
  errors.check_positive("model.latent", latent)
  check_widths(widths, decoder_widths)
  check_rate(dropout)
  function = activations.choose(activation, "activation")
  encoder = DenseEncoder(2 * latent, widths, function, dropout)
  decoder = DenseDecoder(shape, decoder_widths or widths[::-1], function, dropout)
  # In the decoder's first kernel, label rows follow latent rows, so padding cannot append latent units.
  spec = bottlenecks.spec("gaussian", latent)._replace(size_axis=None)
  return ConditionalVAE(encoder, decoder, spec, labels)
