"""Objectives that reconstruct the clean example from a corrupted one."""

import dataclasses

import jax
import jax.numpy as jnp

from ae_jax import errors
from ae_jax.data import ranges
from ae_jax.models import activations
from ae_jax.objectives import base, corruptions
from ae_jax.ops import losses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Denoising(base.Objective):
  """Reconstruction of the clean example from a corrupted one (Vincent et al. 2010).

  With their emphasised loss (section 4.2), corrupted elements count `alpha` times, the others `beta` times; gaussian
  noise corrupts all. `level` is a probability, or a standard deviation in units of the width of the data.
  """

  corruption: str  # a key of corruptions.CORRUPTIONS
  level: float = base.number()
  alpha: float = base.number()
  beta: float = base.number()

  def check(self, model):
    super().check(model)
    _check_noise(self.corruption, self.level)
    for key in ("alpha", "beta"):
      errors.check_not_negative(f"objective.{key}", getattr(self, key))

  def statistics(self, model, variables, batch, keys, train=False):
    x = batch["x"]
    corrupted, touched = corruptions.corrupt(self.corruption, keys, x, self.level, self.span)
    emphasis = jnp.where(touched, self.alpha, self.beta)
    encoding, logits = model.autoencode(variables, corrupted, batch, keys=keys, train=train)
    return base.measured({self.unit: self.mismatch(model, logits, x, emphasis)}, encoding)


# The span of a hidden layer whose activations are in (-1, 1); of others the level of noise is in their own unit.
_TANH_SPAN = ranges.Span(-1.0, 1.0, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layerwise(base.Objective):
  """One layer of a dense stack as a denoising autoencoder of the output of the layers below, which stay fixed.

  Greedy pretraining (Vincent et al. 2010, section 3.5): `layer` 0 sees the data; layer k is trained together with the
  decoder's layer opposite to it. Needs a dense model whose decoder mirrors its encoder and has weights of its own.
  """

  layer: int
  corruption: str  # a key of corruptions.CORRUPTIONS
  level: float = base.number()

  def check(self, model):
    encoder, decoder = model.module.layers or (None, None)
    if encoder is None or encoder.widths != decoder.widths[::-1]:
      raise errors.UserError(
        "config.objective.name='layerwise': needs config.model.name='dense' with a mirrored decoder, tied=False and a "
        "deterministic bottleneck"
      )
    layers = len(encoder.widths) + 1
    whole = isinstance(self.layer, int) and not isinstance(self.layer, bool) and 0 <= self.layer < layers
    errors.check(whole, "objective.layer", self.layer, f"an integer from 0 to {layers - 1}, a layer of the encoder")
    _check_noise(self.corruption, self.level)
    if self.layer == 0:
      base.check_likelihood(self.likelihood, self.value_range)
    else:
      errors.choose(base.LIKELIHOODS, self.likelihood, "objective.likelihood")
      if self.likelihood == "bernoulli" and encoder.activation is not activations.sigmoid:
        raise errors.UserError(
          f"config.objective.likelihood='bernoulli' for layer {self.layer} needs config.model.activation='sigmoid'; "
          "use 'gaussian'"
        )

  def statistics(self, model, variables, batch, keys, train=False):
    del train  # dropout belongs to the training of all layers together
    activation, span = losses.OUTPUT_ACTIVATIONS[self.value_range], self.span
    if self.layer:
      activation = model.module.layers[0].activation
      span = _TANH_SPAN if activation is activations.tanh else ranges.SPANS["unit"]
    h = jax.lax.stop_gradient(model.apply("below", variables, batch["x"], self.layer))
    corrupted, _ = corruptions.corrupt(self.corruption, keys, h, self.level, span)
    logits = model.apply("layer_logits", variables, corrupted, self.layer)
    return base.Measured({self.unit: base.mismatch(model, self.likelihood, activation, logits, h)})


def _check_noise(corruption, level):
  errors.choose(corruptions.CORRUPTIONS, corruption, "objective.corruption")
  errors.check(errors.is_number(level) and 0 <= level <= 1, "objective.level", level, "a number from 0 to 1")
