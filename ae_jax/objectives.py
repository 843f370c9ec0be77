"""What is minimised: pure functions (model, params, batch, keys) -> (loss, terms).

A batch holds `x` [B, ...], normalised, and `weight` [B], which is 0 on padding; `keys` [B] is the randomness, a key for
each example. Every term is summed over the example and averaged over the batch, in nats or in squared error. The same
function serves training and evaluation.
"""

import functools
import math

import jax
import jax.numpy as jnp

from ae_jax import corruptions, errors, losses, remat
from ae_jax.data import ranges
from ae_jax.models import activations


def batch_mean(per_example, weight):
  """The mean over the examples that are not padding, 0 if all are: [B, ...], [B] -> [...]."""
  return jnp.tensordot(weight, per_example, 1) / jnp.maximum(weight.sum(), 1.0)


def _bernoulli(logits, x, activation):
  del activation  # it is the sigmoid, inside
  return losses.binary_cross_entropy_with_logits(logits, x)


def _gaussian(logits, x, activation):
  return jnp.square(activation(logits) - x)


# The reconstruction term of each element, and its unit, which is also the term's name.
LIKELIHOODS = {"bernoulli": _bernoulli, "gaussian": _gaussian}
_UNITS = {"bernoulli": "nats", "gaussian": "squared_error"}

_NOISE = (1e-12, 1e12)  # of the gaussian likelihood: its square, and errors divided by it, are float32


def _mismatch(model, logits, x, likelihood, activation, *emphasis):
  """The reconstruction term of each example, its elements counting `emphasis` [B, ...] times if that is given: [B]."""

  def term(logits, x, *emphasis):
    return math.prod(emphasis, start=LIKELIHOODS[likelihood](logits, x, activation))

  return losses.sum_over_elements(term, logits, x, *emphasis, batch_last=model.batch_last)


def _reconstruction(model, params, batch, keys, *, likelihood, value_range):
  del keys  # nothing random here
  logits = model.reconstruct(params, batch["x"])
  per_example = _mismatch(model, logits, batch["x"], likelihood, losses.OUTPUT_ACTIVATIONS[value_range])
  loss = batch_mean(per_example, batch["weight"])
  return loss, {_UNITS[likelihood]: loss}


def reconstruction(model, value_range, *, likelihood):
  """The plain autoencoder's objective: "bernoulli" in nats (needs the range "unit"), "gaussian" in squared error."""
  del model
  _check_likelihood(likelihood, value_range)
  return functools.partial(_reconstruction, likelihood=likelihood, value_range=value_range)


def _denoising(model, params, batch, keys, *, likelihood, value_range, corruption, level, alpha, beta):
  x = batch["x"]
  corrupted, touched = corruptions.corrupt(corruption, keys, x, level, ranges.BYTE_SPANS[value_range])
  logits = model.reconstruct(params, corrupted)
  emphasis = jnp.where(touched, alpha, beta)
  per_example = _mismatch(model, logits, x, likelihood, losses.OUTPUT_ACTIVATIONS[value_range], emphasis)
  loss = batch_mean(per_example, batch["weight"])
  return loss, {_UNITS[likelihood]: loss}


def denoising(model, value_range, *, likelihood, corruption, level, alpha, beta):
  """The clean example from a corrupted one, with the emphasised loss of Vincent et al. (2010).

  Elements that the noise touched count `alpha` times, the others `beta` times; gaussian noise touches all.
  """
  del model
  _check_likelihood(likelihood, value_range)
  _check_noise(corruption, level)
  for key, value in {"alpha": alpha, "beta": beta}.items():
    errors.check_not_negative(f"objective.{key}", value)
  options = {"corruption": corruption, "level": float(level), "alpha": float(alpha), "beta": float(beta)}
  return functools.partial(_denoising, likelihood=likelihood, value_range=value_range, **options)


def _layerwise(model, params, batch, keys, *, likelihood, activation, span, layer, corruption, level):
  h = jax.lax.stop_gradient(model.apply("below", params, batch["x"], layer))
  corrupted, _ = corruptions.corrupt(corruption, keys, h, level, span)
  logits = model.apply("layer_logits", params, corrupted, layer)
  loss = batch_mean(_mismatch(model, logits, h, likelihood, activation), batch["weight"])
  return loss, {_UNITS[likelihood]: loss}


def layerwise(model, value_range, *, likelihood, layer, corruption, level):
  """One layer of a dense stack as a denoising autoencoder of what the clean layers below give; the others stay.

  Greedy pretraining (Vincent et al. 2010, section 3.5): `layer` 0 sees the data; layer k is trained together with the
  decoder's layer opposite to it. Needs a dense model whose decoder mirrors its encoder, with weights of its own.
  """
  module = model.module
  if not model.can("layer_logits") or module.encoder.widths != module.decoder.widths[::-1]:
    raise errors.UserError(
      "config.objective.name='layerwise': needs config.model.name='dense' with a mirrored decoder, tied=False and a "
      "deterministic bottleneck"
    )
  layers = len(module.encoder.widths) + 1
  whole = isinstance(layer, int) and not isinstance(layer, bool) and 0 <= layer < layers
  errors.check(whole, "objective.layer", layer, f"an integer from 0 to {layers - 1}, a layer of the encoder")
  _check_noise(corruption, level)
  if layer == 0:
    activation, span = losses.OUTPUT_ACTIVATIONS[value_range], ranges.BYTE_SPANS[value_range]
    _check_likelihood(likelihood, value_range)
  else:
    activation, span = module.encoder.activation, (0.0, 1.0)
    if (
      errors.choose(LIKELIHOODS, likelihood, "objective.likelihood") is _bernoulli and activation is not jax.nn.sigmoid
    ):
      raise errors.UserError(
        f"config.objective.likelihood='bernoulli' for layer {layer} needs config.model.activation='sigmoid'; use "
        "'gaussian'"
      )
  options = {"layer": layer, "corruption": corruption, "level": float(level)}
  return functools.partial(_layerwise, likelihood=likelihood, activation=activation, span=span, **options)


def _with_penalty(
  model, params, batch, keys, *, likelihood, value_range, weight, name, penalty, mean=batch_mean, **options
):
  """The reconstruction and `weight` times a penalty(model, params, batch, keys, mean), which is called `name`."""
  loss, terms = _reconstruction(model, params, batch, keys, likelihood=likelihood, value_range=value_range)
  extra = penalty(model, params, batch, keys, mean, **options)
  return loss + weight * extra, {**terms, name: extra}


def _l1(model, params, batch, keys, mean):
  del keys
  return mean(jnp.abs(model.encode(params, batch["x"])).sum(-1), batch["weight"])


def _sparsity_kl(model, params, batch, keys, mean, *, target):
  del keys
  return (model.units * losses.bernoulli_kl(target, mean(model.encode(params, batch["x"]), batch["weight"]))).sum()


def sparse(model, value_range, *, likelihood, penalty, weight, target):
  """The reconstruction and `weight` times how active the code is.

  "l1" is the sum of |z|; "kl" the sum over units of KL(target || mean activation in the batch), for a code in (0, 1),
  as the bottleneck "sigmoid" gives (Ng 2011). `target` (rho, often 0.05) is not used by "l1".
  """
  _check_likelihood(likelihood, value_range)
  errors.check_not_negative("objective.weight", weight)
  errors.check(errors.is_number(target) and 0 < target < 1, "objective.target", target, "between 0 and 1")
  function = errors.choose({"l1": _l1, "kl": _sparsity_kl}, penalty, "objective.penalty")
  if penalty == "kl" and getattr(model.module, "code_activation", None) is not activations.sigmoid:
    raise errors.UserError("config.objective.penalty='kl' needs config.model.bottleneck='sigmoid'; or use 'l1'")
  options = {"weight": float(weight), "name": {"l1": "l1", "kl": "sparsity_kl"}[penalty], "penalty": function}
  options |= {"mean": batch_mean, "target": float(target)} if penalty == "kl" else {}
  return functools.partial(_with_penalty, likelihood=likelihood, value_range=value_range, **options)


def _contraction(model, params, batch, keys, mean, *, probes):
  encode = functools.partial(model.encode, params)
  norm = (
    losses.jacobian_norm_estimate(encode, batch["x"], keys, probes)
    if probes
    else losses.jacobian_norm(encode, batch["x"])
  )
  return mean(norm, batch["weight"])


def contractive(model, value_range, *, likelihood, weight, probes):
  """The reconstruction and `weight` times the squared Frobenius norm of the code's Jacobian (Rifai et al. 2011).

  `probes` = 0 takes it exactly, `latent` passes backward; k >= 1 estimates it without bias from k random ones.
  """
  del model
  _check_likelihood(likelihood, value_range)
  errors.check_not_negative("objective.weight", weight)
  whole = isinstance(probes, int) and not isinstance(probes, bool) and 0 <= probes <= errors.LARGEST_COUNT
  errors.check(whole, "objective.probes", probes, "an integer, 0 (exact) or more")
  options = {"weight": float(weight), "name": "jacobian", "penalty": _contraction, "probes": probes}
  return functools.partial(_with_penalty, likelihood=likelihood, value_range=value_range, **options)


def _elbo(model, params, batch, keys, *, likelihood, value_range, noise, beta, free_bits, mean=batch_mean):
  centre, log_variance = model.apply("posterior", params, batch["x"])
  normal = jax.vmap(lambda key: jax.random.normal(key, centre.shape[1:], centre.dtype))(keys)
  logits = model.decode(params, centre + jnp.exp(0.5 * log_variance) * normal)
  per_example = _mismatch(model, logits, batch["x"], likelihood, losses.OUTPUT_ACTIVATIONS[value_range])
  if likelihood == "gaussian":
    per_example = 0.5 * per_example / noise**2 + math.prod(model.shape) * (0.5 * math.log(2 * math.pi) + jnp.log(noise))
  nats = batch_mean(per_example, batch["weight"])
  kl = mean(losses.gaussian_kl(centre, log_variance), batch["weight"])  # [latent]
  return nats + beta * (model.units * jnp.maximum(kl, free_bits)).sum(), {"nats": nats, "kl": kl.sum()}


def elbo(model, value_range, *, likelihood, noise, beta, free_bits):
  """The negative evidence lower bound in nats, from one sample of the posterior (Kingma & Welling 2014).

  `noise` is the standard deviation of the gaussian likelihood in the data's unit (not used by "bernoulli"); the KL
  counts `beta` times (Higgins et al. 2017), and each dimension's mean over the batch at least `free_bits` nats
  (Kingma et al. 2016, equation 15). The bound itself is beta = 1, free_bits = 0.
  """
  _check_likelihood(likelihood, value_range)
  if not model.can("posterior"):
    raise errors.UserError("config.objective.name='elbo' needs config.model.bottleneck='gaussian'")
  least, most = _NOISE
  good = errors.is_number(noise) and least <= noise <= most
  errors.check(good, "objective.noise", noise, f"a positive number from {least:g} to {most:g}")
  for key, value in {"beta": beta, "free_bits": free_bits}.items():
    errors.check_not_negative(f"objective.{key}", value)
  options = {"noise": float(noise), "beta": float(beta), "free_bits": float(free_bits)}
  options |= {"mean": batch_mean} if free_bits else {}
  return functools.partial(_elbo, likelihood=likelihood, value_range=value_range, **options)


OBJECTIVES = {
  "reconstruction": reconstruction,
  "denoising": denoising,
  "layerwise": layerwise,
  "sparse": sparse,
  "contractive": contractive,
  "elbo": elbo,
}


def build(name, model, value_range, **options):
  """The objective that `config.objective` describes, for a model and a range; UserError for what does not fit."""
  return errors.call(OBJECTIVES, "objective", name, model, value_range, **options)


def is_joint(objective):
  """Whether the loss is no mean over examples: it holds a function of a mean over the batch, its keyword `mean`."""
  return "mean" in getattr(objective, "keywords", {})


def with_mean(objective, mean):
  """The objective for a part of a batch, where `mean` (per example, weight) is the mean over the whole."""
  return functools.partial(objective, mean=mean) if is_joint(objective) else objective


def _rematerialised(model, params, batch, keys, *, function, **options):
  return remat.in_segments(functools.partial(function, model, **options))(params, batch, keys)


def rematerialised(objective):
  """The same, most of whose intermediates are computed again for the gradient."""
  return functools.partial(_rematerialised, function=objective.func, **objective.keywords)


def check_bottleneck(name, latent, shape):
  """Raises UserError for a code as large as the example where nothing else keeps the model from copying it."""
  elements = math.prod(shape)
  if name == "reconstruction" and latent > elements:
    raise errors.UserError(
      f"config.model.latent={latent}: larger than the data, {elements} numbers, is no bottleneck and can copy; use at "
      f"most {elements}, or an objective that regularises (sparse, contractive, denoising, elbo)"
    )


def _check_likelihood(likelihood, value_range):
  errors.choose(LIKELIHOODS, likelihood, "objective.likelihood")
  if likelihood == "bernoulli" and value_range != "unit":
    raise errors.UserError(
      f"config.objective.likelihood='bernoulli' needs config.data.range='unit', not {value_range!r}; use 'gaussian'"
    )


def _check_noise(corruption, level):
  errors.choose(corruptions.CORRUPTIONS, corruption, "objective.corruption")
  errors.check(errors.is_number(level) and 0 <= level <= 1, "objective.level", level, "a number from 0 to 1")
