"""Disentanglement: whether each latent unit encodes one factor of the data, by MIG, SAP, DCI and the FactorVAE score.

The latent code of a gaussian posterior is its mean. Units that are constant, or inactive units of a posterior, count as
uninformative. Predictors are fitted on training examples and scored on test examples. The baseline ("pca") is as many
principal components as the latent code ("code") has units.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from ae_jax.evaluators import base, figures, posterior, reconstruction
from ae_jax.evaluators.context import EvalContext
from ae_jax.ops import losses

BINS = 20  # of equal width, per unit
GROUPS, GROUP = 200, 64  # groups per factor, and examples per group, which agree in the factor
_MOST_UNITS = 64  # most informative units, to which trees, linear scores and groups are limited
_TREES, _TREE_EXAMPLES, _LEAF = 32, 2500, 5  # trees per forest, examples per tree, examples per leaf at least
_C = 0.01  # of the linear support vector machines (Locatello et al. 2019)
_ROUNDING = 1e-6  # share of a unit's largest value below which its deviation is rounding
_STEPS, _ENDS = 9, (0.02, 0.98)  # steps of a unit's traversal, and the quantiles where it starts and ends

# latent codes and factors of the training or test examples, whose numbers differ
Half = tuple[Float[np.ndarray, "_ units"], Integer[np.ndarray, "_ factors"]]


def analyze(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields the scores of the latent code and of PCA, the scores by factor, and figures."""
  rows = reconstruction.trained_class_only(np.arange(len(context.test)), context.dataset)
  train_factors, test_factors = context.train_factors, context.dataset.test_factors
  assert train_factors is not None  # because the evaluator needs "factors"
  assert test_factors is not None
  factors = (train_factors, test_factors[rows])
  values = context.dataset.factor_values
  varied = [number for number in range(len(values)) if all(len(np.unique(half[:, number])) > 1 for half in factors)]
  names = [list(values)[number] for number in varied]
  if len(names) < 2:
    yield "remark", "there are no scores: fewer than two factors vary among the examples"
    return
  if len(names) < len(values):
    yield "constant", f"factors that never vary are omitted: {', '.join(name for name in values if name not in names)}"
  if context.run.model.code.size == 1:
    yield "gaps", "MIG, SAP and completeness are omitted: they compare units, and this latent code has only one"
  nominal = [isinstance(values[name][0], str) for name in names]
  results = {}
  for kind, (in_use, *codes) in _codes(context, rows).items():
    train, test = (_sorted(code, half[:, varied]) for code, half in zip(codes, factors, strict=True))
    results[kind] = scores(train, test, in_use, nominal, context.generator())
    yield from ((f"{name}/{kind}", float(np.mean(score))) for name, score in results[kind].items())
  yield "factorvae/chance", 1 / len(names)
  for name, score in results["code"].items():
    if np.ndim(score):
      yield from ((f"{name}_by_factor/{factor}", float(x)) for factor, x in zip(names, score, strict=True))
  yield from _figures(context, rows, factors[1][:, varied], names)


def _codes(
  context: EvalContext, rows: Int[np.ndarray, " rows"]
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Returns {"code" or "pca": (units in use [units], training codes [N, units], codes of the test examples)}."""
  flat, flat_test = (np.asarray(losses.flat(x)) for x in (context.train, context.test[rows]))
  transform = reconstruction.fitted_pca(flat, context.run.model.code.size).transform
  codes, components = context.test_codes[rows], transform(flat_test)
  return {
    "code": (units_in_use(context, codes), context.train_codes, codes),
    "pca": (varying_units(components), transform(flat), components),
  }


def units_in_use(context: EvalContext, codes: Float[np.ndarray, "examples units"]) -> Bool[np.ndarray, " units"]:
  """Returns which units of the latent codes are active (with a posterior) or vary (without)."""
  return (posterior.active if context.run.model.has_posterior else varying_units)(codes)


def varying_units(codes: Float[np.ndarray, "examples units"]) -> Bool[np.ndarray, " units"]:
  """Returns which units of the codes differ between examples."""
  return codes.std(0, dtype=np.float64) > _ROUNDING * np.abs(codes).max(0)


def _sorted(codes: Float[np.ndarray, "examples units"], factors: Integer[np.ndarray, "examples factors"]) -> Half:
  """Returns both sorted by the factors and the first unit, so that results do not depend on the order of examples."""
  order = np.lexsort((codes[:, 0], *factors.T))
  return codes[order].astype(np.float64), factors[order]


def scores(
  train: Half,
  test: Half,
  in_use: Bool[np.ndarray, " units"],
  nominal: Sequence[bool],
  generator: np.random.Generator,
) -> dict[str, Any]:
  """Returns the scores, all 1 at best; those that compare units are absent for codes of one unit.

  "mig", "sap" and "dci_informativeness" are arrays [factors]; "dci_disentanglement", "dci_completeness" and "factorvae"
  are numbers.

  Args:
    train: Latent codes and factors of the training examples.
    test: Latent codes and factors of the test examples.
    in_use: The units that may be informative.
    nominal: For each factor, whether its values have no order.
    generator: Draws the groups of the FactorVAE score.
  """
  in_use = in_use & varying_units(train[0])
  nats = np.where(in_use[:, None], information(*test), 0.0)
  chosen = np.argsort(-nats.sum(1), kind="stable")[: min(in_use.sum(), _MOST_UNITS)]
  train, test = ((codes[:, chosen], factors) for codes, factors in (train, test))
  importance, informativeness = forest_importances(train, test, nominal)
  results = {
    "dci_disentanglement": disentanglement(importance),
    "dci_informativeness": informativeness,
    "factorvae": factorvae(train, test, generator),
  }
  if len(in_use) > 1:
    counts = [np.bincount(factor) for factor in test[1].T]
    by_chance = np.where(nominal, [count.max() / count.sum() for count in counts], 0.0)
    linear = np.tile(by_chance, (len(in_use), 1))
    linear[chosen] = linear_scores(train, test, nominal)
    results |= {
      "mig": _gaps(nats) / [_entropy(count) for count in counts],
      "sap": _gaps(linear),
      "dci_completeness": completeness(importance, len(in_use)),
    }
  return results


def _gaps(values: Float[np.ndarray, "units factors"]) -> Float[np.ndarray, " factors"]:
  """Returns the difference between the best and the second best unit for each factor."""
  second, best = np.sort(values, axis=0)[-2:]
  return best - second


def information(
  codes: Float[np.ndarray, "examples units"], factors: Integer[np.ndarray, "examples factors"]
) -> Float[np.ndarray, "units factors"]:
  """Returns the mutual information of each unit, in BINS bins, with each factor, in nats (Chen et al. 2018)."""
  low, spread = codes.min(0), np.ptp(codes, axis=0)
  shares = (codes - low) / np.where(spread > 0, spread, 1.0)
  bins = np.minimum((BINS * shares).astype(int), BINS - 1)
  nats = np.empty((codes.shape[1], factors.shape[1]))
  for j, factor in enumerate(factors.T):
    for i, unit in enumerate(bins.T):
      joint = np.bincount(BINS * factor + unit)
      nats[i, j] = _entropy(np.bincount(unit)) + _entropy(np.bincount(factor)) - _entropy(joint)
  return nats


def _entropy(counts: np.ndarray) -> float:
  """Returns the entropy in nats of the distribution with these counts or weights."""
  shares = counts[counts > 0] / counts.sum()
  return float(-(shares * np.log(shares)).sum())


def linear_scores(train: Half, test: Half, nominal: Sequence[bool]) -> Float[np.ndarray, "units factors"]:
  """Returns how well each unit alone predicts each factor linearly (Kumar et al. 2018).

  The score is the squared correlation for an ordered factor, and the accuracy of a linear support vector machine for a
  nominal one.
  """
  from sklearn.svm import LinearSVC  # a second of imports

  (train_codes, train_factors), (codes, factors) = train, test
  mean, deviation = train_codes.mean(0), train_codes.std(0)
  train_codes, codes = ((half - mean) / np.where(deviation > 0, deviation, 1.0) for half in (train_codes, codes))
  results = np.empty((codes.shape[1], factors.shape[1]))
  for j, without_order in enumerate(nominal):
    for i in range(len(results)):
      if without_order:
        machine = LinearSVC(C=_C, class_weight="balanced", dual=False).fit(train_codes[:, [i]], train_factors[:, j])
        results[i, j] = machine.score(codes[:, [i]], factors[:, j])
      else:
        results[i, j] = np.corrcoef(codes[:, i], factors[:, j])[0, 1] ** 2
  return results


def forest_importances(
  train: Half, test: Half, nominal: Sequence[bool]
) -> tuple[Float[np.ndarray, "units factors"], Float[np.ndarray, " factors"]]:
  """Returns the importance of units for factors in forests of extremely randomised trees, and the forests' scores.

  Importances add up to 1 over the units. A score is the explained share of a factor's variance; the variance of a
  nominal factor is that of its indicator variables, which is its Gini impurity.
  """
  from sklearn.ensemble import ExtraTreesRegressor

  (train_codes, train_factors), (codes, factors) = train, test
  importance, explained = np.zeros((codes.shape[1], factors.shape[1])), np.zeros(factors.shape[1])
  tree_examples = min(_TREE_EXAMPLES, len(train_codes))
  for j, without_order in enumerate(nominal if codes.shape[1] else ()):
    known = np.unique(train_factors[:, j])
    targets, truth = (
      (half[:, [j]] == known if without_order else half[:, [j]]).astype(np.float64) for half in (train_factors, factors)
    )
    forest = ExtraTreesRegressor(
      _TREES,
      max_features=None,
      bootstrap=True,
      max_samples=tree_examples,
      min_samples_leaf=_LEAF,
      random_state=0,
      n_jobs=-1,
    ).fit(train_codes, targets if without_order else targets[:, 0])
    importance[:, j] = forest.feature_importances_
    residuals = truth - forest.predict(codes).reshape(truth.shape)
    explained[j] = 1 - np.square(residuals).sum() / np.square(truth - truth.mean(0)).sum()
  return importance, explained


def disentanglement(importance: Float[np.ndarray, "units factors"]) -> float:
  """Returns 1 - the mean entropy over factors, weighted by the importance of units (Eastwood & Williams 2018).

  It is 1 if each unit is important for one factor only.
  """
  total = importance.sum(1)
  entropies = [_entropy(unit) for unit in importance[total > 0]]
  weights = total[total > 0]
  return float(1 - np.average(entropies, weights=weights) / np.log(importance.shape[1])) if len(weights) else 0.0


def completeness(importance: Float[np.ndarray, "chosen factors"], units: int) -> float:
  """Returns 1 - the mean entropy over all `units` of the code (Eastwood & Williams 2018).

  It is 1 if only one unit is important for each factor.
  """
  entropies = [_entropy(factor) for factor in importance.T if factor.sum() > 0]
  return float(1 - np.mean(entropies) / np.log(units)) if entropies else 0.0


def factorvae(train: Half, test: Half, generator: np.random.Generator) -> float:
  """Returns how often the unit with the least variance in a group with one fixed factor predicts it (Kim & Mnih 2018).

  GROUPS groups of training examples per factor assign a factor to each unit, and as many groups of test examples score
  the prediction; chance is 1 / factors.
  """
  if not test[0].shape[1]:
    return 1 / test[1].shape[1]
  train_votes, test_votes = (_votes(*half, generator) for half in (train, test))
  correct = test_votes[np.arange(len(train_votes)), train_votes.argmax(1)]
  return float(correct.sum() / test_votes.sum())


def _votes(
  codes: Float[np.ndarray, "examples units"],
  factors: Integer[np.ndarray, "examples factors"],
  generator: np.random.Generator,
) -> Int[np.ndarray, "units factors"]:
  """Returns how many of the GROUPS groups per factor have each unit as the one with the least normalised variance."""
  codes = codes / codes.std(0)
  votes = np.zeros((codes.shape[1], factors.shape[1]), int)
  for j, factor in enumerate(factors.T):
    order = np.argsort(factor, kind="stable")
    value = generator.choice(factor, GROUPS)
    first, end = (np.searchsorted(factor[order], value, side) for side in ("left", "right"))
    members = order[generator.integers(first[:, None], end[:, None], (GROUPS, GROUP))]
    least = codes[members].var(1).argmin(1)
    votes[:, j] = np.bincount(least, minlength=len(votes))
  return votes


def _figures(
  context: EvalContext, rows: np.ndarray, factors: Integer[np.ndarray, "examples factors"], names: Sequence[str]
) -> Iterator[tuple[str, Any]]:
  """Yields the mutual information, with units grouped by factor, and a traversal of the best unit for each factor."""
  codes = context.test_codes[rows].astype(np.float64)
  nats = np.where(units_in_use(context, codes)[:, None], information(codes, factors), 0.0)
  if not nats.any():
    return
  chosen = np.argsort(-nats.sum(1), kind="stable")[: min((nats > 0).any(1).sum(), _MOST_UNITS)]
  chosen = chosen[np.lexsort((-nats[chosen].max(1), nats[chosen].argmax(1)))]
  title = f"mutual information of latent units with {', '.join(names)}; units are grouped by factor"
  yield "factor_information", figures.Heatmap(title, "nats", nats[chosen].T, "unit, sorted", "factor")
  middle = np.square((codes - np.median(codes, 0)) / np.where(codes.std(0) > 0, codes.std(0), 1.0)).sum(1).argmin()
  traversals, columns = {}, context.columns("test", [0] * _STEPS)
  for name, unit, most in zip(names, nats.argmax(0), nats.max(0), strict=True):
    steps = np.tile(codes[middle], (_STEPS, 1))
    low, high = np.quantile(codes[:, unit], _ENDS)
    steps[:, unit] = np.linspace(low, high, _STEPS)
    traversals[f"{name}: unit {unit + 1}, {most:.2f} nats"] = context.decode(steps.astype(np.float32), columns)
  title = "traversal of the most informative latent unit for each factor, from low to high"
  yield "factors_moved", figures.ExampleRows(title, traversals)


EVALUATOR = base.Evaluator(name="disentanglement", needs=("factors",), analyses=(base.Analysis(analyze),))
