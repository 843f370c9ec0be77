"""Objectives that reconstruct the clean example from a corrupted copy."""

import dataclasses
import functools
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ae_jax import errors, models
from ae_jax.data import ranges
from ae_jax.models import activations
from ae_jax.objectives import base, corruptions
from ae_jax.ops import losses
from ae_jax.types import Batch, Keys, Number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Denoising(base.Objective):
  """Reconstruction of the clean example from a corrupted copy (Vincent et al. 2010).

  The loss is emphasised (section 4.2): the weight of corrupted elements is `alpha`, the weight of other elements is
  `beta`. Gaussian noise corrupts all elements. If the data have targets, the examples are already corrupted copies:
  no noise is added, and all elements have weight 1.
  """

  corruption: str  # a key of corruptions.CORRUPTIONS
  # probability that an element is corrupted; for gaussian noise, standard deviation / (span.high - span.low)
  level: Number = dataclasses.field(metadata=base.NUMERIC)
  alpha: Number = dataclasses.field(metadata=base.NUMERIC)
  beta: Number = dataclasses.field(metadata=base.NUMERIC)

  @classmethod
  def check(cls, model: models.Model, value_range: str, options: Mapping[str, Any]) -> None:
    super().check(model, value_range, options)
    _check_noise(options["corruption"], options["level"])
    for key in ("alpha", "beta"):
      errors.check_not_negative(f"objective.{key}", options[key])

  def check_columns(self, columns: Collection[str]) -> list[str]:
    if "target" not in columns:
      return []
    return [
      "config.objective.name='denoising': the data have targets (target_train), so the examples are used without "
      "artificial noise; corruption, level, alpha and beta have no effect"
    ]

  def statistics(
    self, model: models.Model, variables: models.Variables, batch: Batch, keys: Keys | None, train: bool = False
  ) -> base.ExampleStatistics:
    if "target" in batch:
      return super().statistics(model, variables, batch, keys, train)
    x, *observed = base.compared(batch)
    corrupted, mask = corruptions.corrupt(self.corruption, keys, x, self.level, self.span)
    if observed:
      corrupted = jnp.where(observed[0] > 0, corrupted, x)
    emphasis = jnp.where(mask, self.alpha, self.beta)
    encoding, logits = model.autoencode(variables, corrupted, batch, keys=keys, train=train)
    term = self.reconstruction_term(model, logits, x, emphasis, *observed)
    return base.example_statistics({self.unit: term}, encoding)


# Span of the outputs of tanh layers. Other hidden layers use `ranges.SPANS["unit"]`, whose width is 1, so that the
# noise level is not rescaled.
_TANH_SPAN = ranges.Span(-1.0, 1.0, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layerwise(base.Objective):
  """Trains one encoder layer of a dense model and the matching decoder layer as a denoising autoencoder.

  This is greedy layer-wise pretraining (Vincent et al. 2010, section 3.5). Layer 0 reconstructs the data. Layer k
  reconstructs the output of layer k - 1, and the layers below layer k are fixed. The decoder must mirror the encoder
  and have its own weights.
  """

  layer: int  # index of the encoder layer
  corruption: str  # a key of corruptions.CORRUPTIONS
  level: Number = dataclasses.field(metadata=base.NUMERIC)  # see `Denoising`

  @classmethod
  def check(cls, model: models.Model, value_range: str, options: Mapping[str, Any]) -> None:
    encoder, decoder = model.module.layers or (None, None)
    if encoder is None or encoder.widths != decoder.widths[::-1]:
      raise errors.UserError(
        "config.objective.name='layerwise' needs config.model.name='dense', config.model.decoder_widths=(), "
        "config.model.tied=False and a config.model.bottleneck other than 'gaussian'"
      )
    layer, likelihood, layers = options["layer"], options["likelihood"], len(encoder.widths) + 1
    valid = isinstance(layer, int) and not isinstance(layer, bool) and 0 <= layer < layers
    errors.check(valid, "objective.layer", layer, f"an integer from 0 to {layers - 1} (index of an encoder layer)")
    _check_noise(options["corruption"], options["level"])
    if layer == 0:
      base.check_likelihood(likelihood, value_range, len(model.shape))
    else:
      errors.choose(base.LIKELIHOODS, likelihood, "objective.likelihood")
      wanted = "'gaussian' or 'bernoulli': hidden layers have no categories"
      errors.check(likelihood != "mixed", "objective.likelihood", likelihood, wanted)
      if likelihood == "bernoulli" and encoder.activation is not activations.sigmoid:
        raise errors.UserError(
          f"config.objective.likelihood='bernoulli' for layer {layer} needs config.model.activation='sigmoid'; set "
          "this activation, or use likelihood 'gaussian'"
        )

  def check_columns(self, columns: Collection[str]) -> list[str]:
    if "target" in columns:
      raise errors.UserError(
        "config.objective.name='layerwise': reconstructs the examples, but the data have targets (target_train); "
        "remove the targets, or use the objective 'reconstruction'"
      )
    return []

  def statistics(
    self, model: models.Model, variables: models.Variables, batch: Batch, keys: Keys | None, train: bool = False
  ) -> base.ExampleStatistics:
    del train  # dropout is used only when all layers are trained together
    activation, span = functools.partial(model.outputs, value_range=self.value_range), self.span
    if self.layer:
      activation = model.module.layers[0].activation
      span = _TANH_SPAN if activation is activations.tanh else ranges.SPANS["unit"]
    h = jax.lax.stop_gradient(model.apply("below", variables, batch["x"], self.layer))
    corrupted, _ = corruptions.corrupt(self.corruption, keys, h, self.level, span)
    observed = () if self.layer else tuple(map(losses.flat, base.compared(batch)[1:]))  # hidden layers have no mask
    if observed:
      corrupted = jnp.where(observed[0] > 0, corrupted, h)
    logits = model.apply("layer_logits", variables, corrupted, self.layer)
    term = base.reconstruction_term(model, self.likelihood, activation, logits, h, *observed)
    return base.ExampleStatistics({self.unit: term})


def _check_noise(corruption: Any, level: Any) -> None:
  errors.choose(corruptions.CORRUPTIONS, corruption, "objective.corruption")
  errors.check(errors.is_number(level) and 0 <= level <= 1, "objective.level", level, "a number from 0 to 1")
