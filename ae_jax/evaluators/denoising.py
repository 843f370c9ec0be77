"""Denoising: PSNR of noisy test examples and of their reconstructions, for several kinds and levels of noise.

The kinds and levels do not depend on the noise in training.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

from ae_jax import data
from ae_jax.data import ranges
from ae_jax.evaluators import base, figures, reconstruction, shown
from ae_jax.evaluators.context import EvalContext, spaced
from ae_jax.objectives import corruptions
from ae_jax.ops import losses
from ae_jax.types import AnyArray, Keys

NOISES = (  # (kind, level); a kind is a key of corruptions.CORRUPTIONS
  ("gaussian", 0.25),
  ("gaussian", 0.5),
  ("masking", 0.25),
  ("masking", 0.5),
  ("salt_and_pepper", 0.1),
  ("salt_and_pepper", 0.25),
)


def noises(axes: int) -> tuple[tuple[str, float], ...]:
  """Returns the entries of `NOISES` for examples with a number of axes: salt and pepper is for images and volumes."""
  return tuple(noise for noise in NOISES if noise[0] != "salt_and_pepper" or axes > 2)


def per_example(
  model: Any, variables: Any, batch: Mapping[str, AnyArray], keys: Keys, value_range: str, span: ranges.Span
) -> dict[str, Float[Array, " batch"]]:
  """Returns the squared errors of the noisy examples and of their reconstructions, relative to the clean examples.

  The keys are "noisy/KIND_LEVEL" and "restored/KIND_LEVEL".
  """

  def squared_errors(noisy):
    restored = model.outputs(model.reconstruct(variables, noisy, batch), value_range)
    return {"noisy": losses.squared_error(noisy, batch["x"]), "restored": losses.squared_error(restored, batch["x"])}

  errors = _for_each_noise(squared_errors, keys, batch["x"], span)
  chosen = noises(batch["x"].ndim - 1)
  return {f"{name}/{_name(*noise)}": rows[n] for name, rows in errors.items() for n, noise in enumerate(chosen)}


def metrics(values: Mapping[str, np.ndarray], dataset: data.Dataset) -> Iterator[tuple[str, float]]:
  """Yields, for each noise, the PSNR in dB of the noisy examples ("in") and of their reconstructions ("out").

  Anomalies are left out. Levels of noise are fractions of the width of the data's values. This width is the peak, also
  without a fixed range.
  """
  elements = np.prod(dataset.shape)
  for kind, level in noises(len(dataset.shape)):
    for side, name in {"in": "noisy", "out": "restored"}.items():
      squared_errors = reconstruction.trained_class_only(values[f"{name}/{_name(kind, level)}"], dataset)
      mse = squared_errors.mean(dtype=np.float64) / elements
      yield f"test/psnr_{side}/{_name(kind, level)}", reconstruction.psnr(float(mse), dataset.peak)


def analyze(context: EvalContext) -> Iterator[tuple[str, figures.ExampleRows]]:
  """Yields a figure of test examples, noisy versions of them, and the reconstructions of the noisy versions."""
  indices = spaced(shown.SHOWN, len(context.test))
  examples = context.test[indices]
  whole, missing = shown.marked(context, indices)
  rows = {shown.NAMES[context.dataset.kind]: whole}
  for name, noisy in disturbed(context, examples).items():
    label = name.replace("_", " ")
    rows |= {label: noisy, f"{label} restored": context.reconstruct(noisy, indices)}
  title = f"Noisy test examples and their reconstructions{missing}"
  yield "denoised", figures.ExampleRows(title, rows, captions=context.dataset.test_captions(indices))


def disturbed(context: EvalContext, examples: Float[np.ndarray, "examples ..."]) -> dict[str, np.ndarray]:
  """Returns noisy versions of the examples for all `noises`: {"gaussian_0.25": [N, ...], ...}.

  The noise depends on the seed of the run.
  """
  span = context.dataset.span
  noisy = context.map_examples(
    lambda variables, x, keys: jnp.moveaxis(_for_each_noise(lambda noisy: noisy, keys, x, span), 0, 1), examples
  )
  return {_name(*noise): noisy[:, number] for number, noise in enumerate(noises(examples.ndim - 1))}


def _for_each_noise(
  function: Callable[[Array], PyTree], keys: Keys, x: Float[AnyArray, "batch ..."], span: ranges.Span
) -> PyTree:
  """For each entry of `noises`, applies a function to noisy examples; stacks the results along a new first axis.

  The random keys of a noise are derived from the keys of the examples and the index of the noise. The function and each
  kind of noise are compiled once.
  """
  kinds, chosen = list(corruptions.CORRUPTIONS), noises(x.ndim - 1)
  branches = [lambda keys, level, kind=kind: corruptions.corrupt(kind, keys, x, level, span)[0] for kind in kinds]

  def noisy(noise):
    number, kind, level = noise
    return lax.switch(kind, branches, jax.vmap(jax.random.fold_in, (0, None))(keys, number), level)

  indices = jnp.asarray([kinds.index(kind) for kind, _ in chosen])
  levels = jnp.asarray([level for _, level in chosen], x.dtype)
  return lax.map(lambda noise: function(noisy(noise)), (jnp.arange(len(chosen)), indices, levels))


def _name(kind: str, level: float) -> str:
  return f"{kind}_{level:g}"


EVALUATOR = base.Evaluator(
  name="denoising",
  skipped_without=("complete", "no_targets"),
  per_example=per_example,
  metrics=metrics,
  analyses=(base.Analysis(analyze),),
)
