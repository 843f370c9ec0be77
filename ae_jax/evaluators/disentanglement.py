"""Disentanglement: scores of how well each latent unit encodes a single factor (MIG, SAP, DCI and FactorVAE).

Factors are the variables from which the examples were generated. For a model with a posterior, the latent code is the
posterior mean. Constant units, and inactive units of a posterior, are treated as uninformative. Each score is computed
for the latent code ("code") and for a baseline ("pca"): as many principal components as the latent code has units.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from ae_jax.evaluators import base, factor_scores, figures, pca, posterior, reconstruction
from ae_jax.evaluators.context import EvalContext
from ae_jax.evaluators.factor_scores import CodesAndFactors
from ae_jax.ops import losses
from ae_jax.runs import metric_names

_STEPS, _ENDS = 9, (0.02, 0.98)  # number of steps of a unit's traversal, and the quantiles of its first and last step


def analyze(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields scores of the latent code and of PCA (means over the factors), scores of the code by factor, and figures."""
  rows = reconstruction.trained_class_only(np.arange(len(context.test)), context.dataset)
  train_factors, test_factors = context.train_factors, context.dataset.test_factors
  assert train_factors is not None  # ensured by the requirement "factors"
  assert test_factors is not None
  factors = (train_factors, test_factors[rows])
  values = context.dataset.factor_values
  varied = [number for number in range(len(values)) if all(len(np.unique(split[:, number])) > 1 for split in factors)]
  names = [list(values)[number] for number in varied]
  if len(names) < 2:
    yield "remark", "there are no disentanglement scores: fewer than two factors vary among the examples"
    return
  if len(names) < len(values):
    yield (
      "constant",
      f"factors with a single value are omitted: {', '.join(name for name in values if name not in names)}",
    )
  if context.run.model.code.size == 1:
    yield "gaps", "MIG, SAP and completeness are omitted: they compare latent units, and this latent code has only one"
  nominal = [isinstance(values[name][0], str) for name in names]
  results = {}
  for kind, (in_use, *codes) in _codes(context, rows).items():
    train, test = (_sorted(code, split[:, varied]) for code, split in zip(codes, factors, strict=True))
    results[kind] = factor_scores.scores(train, test, in_use, nominal, context.generator())
    yield from ((f"{name}/{kind}", float(np.mean(score))) for name, score in results[kind].items())
  yield "factorvae/chance", 1 / len(names)
  for name, score in results["code"].items():
    if np.ndim(score):
      yield from (
        (f"{name}_by_factor/{metric_names.part(factor)}", float(x)) for factor, x in zip(names, score, strict=True)
      )
  yield from _figures(context, rows, factors[1][:, varied], names)


def _codes(
  context: EvalContext, rows: Int[np.ndarray, " rows"]
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Returns {"code": ..., "pca": ...}; each value is (mask of active units, training latents, test latents).

  The shapes are [units], [N, units] and [M, units]. `rows` holds the indices of the M test examples. For "pca", the
  latents are the principal component scores.
  """
  flat, flat_test = (np.asarray(losses.flat(x)) for x in (context.train, context.test[rows]))
  transform = pca.fit(flat, context.run.model.code.size).transform
  codes, components = context.test_codes[rows], transform(flat_test)
  return {
    "code": (units_in_use(context, codes), context.train_codes, codes),
    "pca": (factor_scores.varying_units(components), transform(flat), components),
  }


def units_in_use(context: EvalContext, codes: Float[np.ndarray, "examples units"]) -> Bool[np.ndarray, " units"]:
  """Returns the mask of the active units of a posterior, or of the varying units if the model has no posterior."""
  return (posterior.active if context.run.model.has_posterior else factor_scores.varying_units)(codes)


def _sorted(
  codes: Float[np.ndarray, "examples units"], factors: Integer[np.ndarray, "examples factors"]
) -> CodesAndFactors:
  """Returns the latents and factors, sorted by the factors and then by the first unit.

  Results then do not depend on the order of the examples.
  """
  order = np.lexsort((codes[:, 0], *factors.T))
  return codes[order].astype(np.float64), factors[order]


def _figures(
  context: EvalContext, rows: np.ndarray, factors: Integer[np.ndarray, "examples factors"], names: Sequence[str]
) -> Iterator[tuple[str, Any]]:
  """Yields figures: the mutual information of units and factors, and traversals of the most informative units."""
  codes = context.test_codes[rows].astype(np.float64)
  nats = np.where(units_in_use(context, codes)[:, None], factor_scores.information(codes, factors), 0.0)
  if not nats.any():
    return
  chosen = np.argsort(-nats.sum(1), kind="stable")[: min((nats > 0).any(1).sum(), factor_scores.MOST_UNITS)]
  chosen = chosen[np.lexsort((-nats[chosen].max(1), nats[chosen].argmax(1)))]
  title = f"Mutual information of latent units with {', '.join(names)}; units are grouped by factor"
  yield "factor_information", figures.Heatmap(title, "nats", nats[chosen].T, "unit, sorted", "factor")
  middle = np.square((codes - np.median(codes, 0)) / np.where(codes.std(0) > 0, codes.std(0), 1.0)).sum(1).argmin()
  traversals, columns = {}, context.columns("test", [0] * _STEPS)
  for name, unit, most in zip(names, nats.argmax(0), nats.max(0), strict=True):
    steps = np.tile(codes[middle], (_STEPS, 1))
    low, high = np.quantile(codes[:, unit], _ENDS)
    steps[:, unit] = np.linspace(low, high, _STEPS)
    traversals[f"{name}: unit {unit + 1}, {most:.2f} nats"] = context.decode(steps.astype(np.float32), columns)
  title = "Traversal of the most informative latent unit for each factor, from its low to its high values"
  yield "factors_moved", figures.ExampleRows(title, traversals)


EVALUATOR = base.Evaluator(name="disentanglement", needs=("factors",), analyses=(base.Analysis(analyze),))
