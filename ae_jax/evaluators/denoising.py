"""How much of a noise a model takes away, for noises that it was and was not trained on."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ae_jax.evaluators import base, figures, reconstruction
from ae_jax.evaluators.context import shown
from ae_jax.objectives import corruptions
from ae_jax.ops import losses

NOISES = (
  ("gaussian", 0.25),
  ("gaussian", 0.5),
  ("masking", 0.25),
  ("masking", 0.5),
  ("salt_and_pepper", 0.1),
  ("salt_and_pepper", 0.25),
)


def per_example(model, variables, batch, keys, value_range, span):
  """Squared error of the noisy input and of its reconstruction, both against the clean example: [B] per noise."""

  def both(noisy):
    restored = losses.OUTPUT_ACTIVATIONS[value_range](model.reconstruct(variables, noisy, batch))
    return {"noisy": losses.squared_error(noisy, batch["x"]), "restored": losses.squared_error(restored, batch["x"])}

  found = _of_each_noise(both, keys, batch["x"], span)
  return {f"{way}/{_name(*noise)}": rows[n] for way, rows in found.items() for n, noise in enumerate(NOISES)}


def metrics(values, dataset):
  """Generates PSNR in dB of the noisy input and of what the model makes of it, per noise."""
  elements = np.prod(dataset.shape)
  for name, level in NOISES:
    for way, key in {"in": "noisy", "out": "restored"}.items():
      mse = values[f"{key}/{_name(name, level)}"].mean(dtype=np.float64) / elements
      yield f"test/psnr_{way}/{_name(name, level)}", reconstruction.psnr(float(mse), dataset.peak)


def analyze(context):
  """Generates test examples with each of the noises, and what becomes of them."""
  numbers = shown(reconstruction.SHOWN, len(context.test))
  examples = context.test[numbers]
  rows = {reconstruction.KINDS[examples.ndim]: examples}
  for name, noisy in disturbed(context, examples).items():
    words = name.replace("_", " ")
    rows |= {words: noisy, f"{words} restored": context.reconstruct(noisy, numbers)}
  yield "denoised", figures.ExampleRows("noisy test examples, and what becomes of them", rows)


def disturbed(context, examples):
  """Examples [N, ...] with each of the noises, {"gaussian_0.25": [N, ...], ...}; each has its own of the run's seed."""
  span = context.dataset.span
  noisy = context.each(
    lambda variables, x, keys: jnp.moveaxis(_of_each_noise(lambda noisy: noisy, keys, x, span), 0, 1), examples
  )
  return {_name(*noise): noisy[:, number] for number, noise in enumerate(NOISES)}


def _of_each_noise(function, keys, x, span):
  """A function of the examples [B, ...] with a noise, over all noises: what it gives, with an axis of them before.

  A noise has keys of its own, folded from the examples'. Function and kinds of noise are compiled once each.
  """
  kinds = list(corruptions.CORRUPTIONS)
  branches = [lambda keys, level, kind=kind: corruptions.corrupt(kind, keys, x, level, span)[0] for kind in kinds]

  def noisy(noise):
    number, kind, level = noise
    return lax.switch(kind, branches, jax.vmap(jax.random.fold_in, (0, None))(keys, number), level)

  which = jnp.asarray([kinds.index(kind) for kind, _ in NOISES])
  levels = jnp.asarray([level for _, level in NOISES], x.dtype)
  return lax.map(lambda noise: function(noisy(noise)), (jnp.arange(len(NOISES)), which, levels))


def _name(kind, level):
  return f"{kind}_{level:g}"


EVALUATOR = base.Evaluator(
  name="denoising", per_example=per_example, metrics=metrics, analyses=(base.Analysis(analyze),)
)
