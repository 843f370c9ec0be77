"""Scores of how well each latent unit encodes a single factor: MIG, SAP, DCI and FactorVAE.

Predictors are fitted to training examples and scored on test examples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

BINS = 20  # number of bins of equal width for each unit
GROUPS = 200  # number of groups per factor; all examples of a group have the same value of the factor
GROUP = 64  # examples per group
MOST_UNITS = 64  # maximum number of units in the DCI, SAP and FactorVAE scores; the most informative ones are used
_TREES, _TREE_EXAMPLES, _LEAF = 32, 2500, 5  # trees per forest, examples per tree, minimum number of examples per leaf
_C = 0.01  # C of the linear support vector machines (Locatello et al. 2019)
_ROUNDING = 1e-6  # standard deviations below this fraction of a unit's largest value are rounding errors

# (latent codes, factors) of the training examples or of the test examples
CodesAndFactors = tuple[Float[np.ndarray, "_ units"], Integer[np.ndarray, "_ factors"]]


def scores(
  train: CodesAndFactors,
  test: CodesAndFactors,
  in_use: Bool[np.ndarray, " units"],
  nominal: Sequence[bool],
  generator: np.random.Generator,
) -> dict[str, Any]:
  """Returns all disentanglement scores by name. The best value of each score is 1.

  "mig", "sap" and "dci_informativeness" are arrays [factors]; "dci_disentanglement", "dci_completeness" and "factorvae"
  are numbers. "mig", "sap" and "dci_completeness" compare units and are absent if the latents have one unit.

  Args:
    train: Latent codes and factors of the training examples.
    test: Latent codes and factors of the test examples.
    in_use: Mask of the units that may be informative; all other units are treated as uninformative.
    nominal: For each factor, whether its values have no order.
    generator: Random number generator for the groups of the FactorVAE score.
  """
  in_use = in_use & varying_units(train[0])
  nats = np.where(in_use[:, None], information(*test), 0.0)
  chosen = np.argsort(-nats.sum(1), kind="stable")[: min(in_use.sum(), MOST_UNITS)]
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


def varying_units(codes: Float[np.ndarray, "examples units"]) -> Bool[np.ndarray, " units"]:
  """Returns the mask of the units whose values differ between examples."""
  return codes.std(0, dtype=np.float64) > _ROUNDING * np.abs(codes).max(0)


def _gaps(values: Float[np.ndarray, "units factors"]) -> Float[np.ndarray, " factors"]:
  """Returns, for each factor, the difference between the largest and the second largest value of all units."""
  second, best = np.sort(values, axis=0)[-2:]
  return best - second


def information(
  codes: Float[np.ndarray, "examples units"], factors: Integer[np.ndarray, "examples factors"]
) -> Float[np.ndarray, "units factors"]:
  """Returns the mutual information of each unit with each factor, in nats (Chen et al. 2018).

  The values of a unit are grouped in BINS bins.
  """
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


def linear_scores(
  train: CodesAndFactors, test: CodesAndFactors, nominal: Sequence[bool]
) -> Float[np.ndarray, "units factors"]:
  """Returns how well each unit alone predicts each factor linearly (Kumar et al. 2018).

  The score of an ordered factor is its squared correlation with the unit. The score of a nominal factor, whose values
  have no order, is the accuracy of a linear support vector machine.
  """
  from sklearn.svm import LinearSVC  # a second of imports

  (train_codes, train_factors), (codes, factors) = train, test
  mean, deviation = train_codes.mean(0), train_codes.std(0)
  train_codes, codes = ((split - mean) / np.where(deviation > 0, deviation, 1.0) for split in (train_codes, codes))
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
  train: CodesAndFactors, test: CodesAndFactors, nominal: Sequence[bool]
) -> tuple[Float[np.ndarray, "units factors"], Float[np.ndarray, " factors"]]:
  """Returns the importance of each unit for each factor, and the informativeness of the latents about each factor.

  A forest of extremely randomised trees predicts each factor from the codes. The importances of the units for a factor
  add up to 1. The informativeness is the fraction of the factor's variance that the forest explains. The variance of a
  nominal factor is the variance of its indicator variables, which equals its Gini impurity.
  """
  from sklearn.ensemble import ExtraTreesRegressor

  (train_codes, train_factors), (codes, factors) = train, test
  importance, explained = np.zeros((codes.shape[1], factors.shape[1])), np.zeros(factors.shape[1])
  tree_examples = min(_TREE_EXAMPLES, len(train_codes))
  for j, without_order in enumerate(nominal if codes.shape[1] else ()):
    known = np.unique(train_factors[:, j])
    targets, truth = (
      (split[:, [j]] == known if without_order else split[:, [j]]).astype(np.float64)
      for split in (train_factors, factors)
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
  """Returns the disentanglement score of DCI (Eastwood & Williams 2018).

  The normalised entropy of a unit's importances for the factors is averaged over the units, weighted by their total
  importance. The score is 1 minus this mean. It is 1 if each unit is important for one factor only.
  """
  total = importance.sum(1)
  entropies = [_entropy(unit) for unit in importance[total > 0]]
  weights = total[total > 0]
  return float(1 - np.average(entropies, weights=weights) / np.log(importance.shape[1])) if len(weights) else 0.0


def completeness(importance: Float[np.ndarray, "chosen factors"], units: int) -> float:
  """Returns the completeness score of DCI (Eastwood & Williams 2018).

  The normalised entropy of the importances of all units for a factor is averaged over the factors. The score is 1 minus
  this mean. It is 1 if only one unit is important for each factor.

  Args:
    importance: Importance of units for each factor. All other units of the latent code have importance 0.
    units: Number of units of the latent code. The entropy is divided by the logarithm of this number.
  """
  entropies = [_entropy(factor) for factor in importance.T if factor.sum() > 0]
  return float(1 - np.mean(entropies) / np.log(units)) if entropies else 0.0


def factorvae(train: CodesAndFactors, test: CodesAndFactors, generator: np.random.Generator) -> float:
  """Returns the FactorVAE score (Kim & Mnih 2018).

  The examples of a group share the value of one factor. The unit with the least normalised variance in the group
  predicts this factor, and the score is the accuracy of the prediction. GROUPS groups of training examples per factor
  determine which factor each unit predicts, and GROUPS groups of test examples per factor measure the accuracy. Random
  predictions score 1 / factors.
  """
  if not test[0].shape[1]:
    return 1 / test[1].shape[1]
  train_votes, test_votes = (_votes(*split, generator) for split in (train, test))
  correct = test_votes[np.arange(len(train_votes)), train_votes.argmax(1)]
  return float(correct.sum() / test_votes.sum())


def _votes(
  codes: Float[np.ndarray, "examples units"],
  factors: Integer[np.ndarray, "examples factors"],
  generator: np.random.Generator,
) -> Int[np.ndarray, "units factors"]:
  """Returns, for each unit and factor, the number of groups in which the unit has the least normalised variance."""
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
