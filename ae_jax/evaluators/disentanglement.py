"""Whether each unit of the code goes with one of the factors that the examples were made of: MIG, DCI, SAP, FactorVAE.

Of a gaussian posterior the code is its mean. Units that are the same for every example, or of a posterior not active,
tell nothing. What is fitted is fitted on training examples, what is measured is measured on test examples, and as many
principal components ("pca") are asked the same as the code ("code").
"""

import numpy as np

from ae_jax.evaluators import base, figures, posterior, reconstruction
from ae_jax.ops import losses

BINS = 20  # of equal width, into which the values of a unit go
GROUPS, GROUP = 200, 64  # per factor, groups of so many examples that agree in it
_MOST_UNITS = 64  # that trees, lines and groups see: those that tell most
_TREES, _DRAWN, _LEAF = 32, 2500, 5  # trees of a forest, examples that each grows from, examples in a leaf at least
_C = 0.01  # of the linear support vector machines, as Locatello et al. (2019) have it
_ROUNDING = 1e-6  # of a unit's largest value: what varies less does not vary
_STEPS, _ENDS = 9, (0.02, 0.98)  # of a unit in the picture: from one of its quantiles to the other


def analyze(context):
  """Generates the scores of the code and of PCA, how well the code tells each factor, and pictures of this."""
  rows = reconstruction.typical(np.arange(len(context.test)), context.dataset)
  factors = (context.train_factors, context.dataset.test_factors[rows])
  values = context.dataset.factor_values
  varied = [number for number in range(len(values)) if all(len(np.unique(half[:, number])) > 1 for half in factors)]
  names = [list(values)[number] for number in varied]
  if len(names) < 2:
    yield "remark", "fewer than two factors vary among the examples: there is nothing for units to tell apart"
    return
  if len(names) < len(values):
    yield "constant", f"left out, for it never varies: {', '.join(name for name in values if name not in names)}"
  if context.run.model.code.numbers == 1:
    yield "gaps", "MIG, SAP and completeness compare the units of a code, and this code has one"
  nominal = [isinstance(values[name][0], str) for name in names]
  found = {}
  for kind, (in_use, *codes) in _codes(context, rows).items():
    halves = [_in_order(each, half[:, varied]) for each, half in zip(codes, factors, strict=True)]
    found[kind] = scores(*halves, in_use, nominal, context.generator())
    yield from ((f"{name}/{kind}", float(np.mean(score))) for name, score in found[kind].items())
  yield "factorvae/chance", 1 / len(names)
  for name, score in found["code"].items():
    if np.ndim(score):
      yield from ((f"{name}_by_factor/{factor}", float(x)) for factor, x in zip(names, score, strict=True))
  yield from _pictures(context, rows, factors[1][:, varied], names)


def _codes(context, rows):
  """{"code" or "pca": (which units are in use [units], training codes [N, units], codes of the test examples)}."""
  flat, flat_test = (np.asarray(losses.flat(x)) for x in (context.train, context.test[rows]))
  transform = reconstruction.fitted_pca(flat, context.run.model.code.numbers).transform
  codes, components = context.test_codes[rows], transform(flat_test)
  return {
    "code": (used(context, codes), context.train_codes, codes),
    "pca": (varying(components), transform(flat), components),
  }


def used(context, codes):
  """Which units of a model's code [N, units] tell something, bool [units]."""
  return (posterior.active if context.run.model.has_posterior else varying)(codes)


def varying(codes):
  """Which units of codes [N, units] are not the same for every example, bool [units]."""
  return codes.std(0, dtype=np.float64) > _ROUNDING * np.abs(codes).max(0)


def _in_order(codes, factors):
  """Both in the order of the factors and the first unit, so that nothing depends on the order of the examples."""
  order = np.lexsort((codes[:, 0], *factors.T))
  return codes[order].astype(np.float64), factors[order]


def scores(train, test, used, nominal, generator):
  """{"mig", "sap", "dci_informativeness": [factors], "dci_disentanglement", "dci_completeness", "factorvae": a number}.

  `train` and `test` are codes [N, units] and factors [N, factors], `used` [units] which units are in use, `nominal`
  [factors] which factors have no order. All are 1 at best; what compares units is not there for codes of one.
  """
  used = used & varying(train[0])
  told = np.where(used[:, None], information(*test), 0.0)
  chosen = np.argsort(-told.sum(1), kind="stable")[: min(used.sum(), _MOST_UNITS)]
  train, test = ((codes[:, chosen], factors) for codes, factors in (train, test))
  importance, informativeness = forests(train, test, nominal)
  found = {
    "dci_disentanglement": disentanglement(importance),
    "dci_informativeness": informativeness,
    "factorvae": factorvae(train, test, generator),
  }
  if len(used) > 1:
    counts = [np.bincount(factor) for factor in test[1].T]
    by_chance = np.where(nominal, [each.max() / each.sum() for each in counts], 0.0)
    alone = np.tile(by_chance, (len(used), 1))
    alone[chosen] = lines(train, test, nominal)
    found |= {
      "mig": _gaps(told) / [_entropy(each) for each in counts],
      "sap": _gaps(alone),
      "dci_completeness": completeness(importance, len(used)),
    }
  return found


def _gaps(values):
  """By how much the best unit of [units, factors] is ahead of the second: [factors]."""
  second, best = np.sort(values, axis=0)[-2:]
  return best - second


def information(codes, factors):
  """Mutual information of each unit, in BINS bins, with each factor, in nats: [units, factors] (Chen et al. 2018)."""
  low, spread = codes.min(0), np.ptp(codes, axis=0)
  shares = (codes - low) / np.where(spread > 0, spread, 1.0)
  bins = np.minimum((BINS * shares).astype(int), BINS - 1)
  found = np.empty((codes.shape[1], factors.shape[1]))
  for j, factor in enumerate(factors.T):
    for i, unit in enumerate(bins.T):
      both = np.bincount(BINS * factor + unit)
      found[i, j] = _entropy(np.bincount(unit)) + _entropy(np.bincount(factor)) - _entropy(both)
  return found


def _entropy(counts):
  """That of the shares of counts, in nats."""
  shares = counts[counts > 0] / counts.sum()
  return -(shares * np.log(shares)).sum()


def lines(train, test, nominal):
  """How well one unit tells one factor by a line, [units, factors] (Kumar et al. 2018).

  Of a factor with an order it is the squared correlation, of one without the share that a linear support vector machine
  gets right.
  """
  from sklearn.svm import LinearSVC  # a second of imports

  (train_codes, train_factors), (codes, factors) = train, test
  mean, deviation = train_codes.mean(0), train_codes.std(0)
  train_codes, codes = ((each - mean) / np.where(deviation > 0, deviation, 1.0) for each in (train_codes, codes))
  found = np.empty((codes.shape[1], factors.shape[1]))
  for j, without_order in enumerate(nominal):
    for i in range(len(found)):
      if without_order:
        machine = LinearSVC(C=_C, class_weight="balanced", dual=False).fit(train_codes[:, [i]], train_factors[:, j])
        found[i, j] = machine.score(codes[:, [i]], factors[:, j])
      else:
        found[i, j] = np.corrcoef(codes[:, i], factors[:, j])[0, 1] ** 2
  return found


def forests(train, test, nominal):
  """How much of each factor a forest of extremely randomised trees owes to each unit, and what it tells of it in all.

  Importances [units, factors], which add up to 1 over the units, and shares of a factor's variance [factors], 1 where
  it is always told. The variance of a factor without order is that of its indicators, its Gini impurity.
  """
  from sklearn.ensemble import ExtraTreesRegressor

  (train_codes, train_factors), (codes, factors) = train, test
  importance, told = np.zeros((codes.shape[1], factors.shape[1])), np.zeros(factors.shape[1])
  drawn = min(_DRAWN, len(train_codes))
  for j, without_order in enumerate(nominal if codes.shape[1] else ()):
    known = np.unique(train_factors[:, j])
    wanted, truth = (
      (each[:, [j]] == known if without_order else each[:, [j]]).astype(np.float64) for each in (train_factors, factors)
    )
    forest = ExtraTreesRegressor(
      _TREES, max_features=None, bootstrap=True, max_samples=drawn, min_samples_leaf=_LEAF, random_state=0, n_jobs=-1
    ).fit(train_codes, wanted if without_order else wanted[:, 0])
    importance[:, j] = forest.feature_importances_
    missed = truth - forest.predict(codes).reshape(truth.shape)
    told[j] = 1 - np.square(missed).sum() / np.square(truth - truth.mean(0)).sum()
  return importance, told


def disentanglement(importance):
  """1 where each unit is important for one factor (Eastwood & Williams 2018): 1 - entropy, units as they matter."""
  total = importance.sum(1)
  entropies = [_entropy(unit) for unit in importance[total > 0]]
  weights = total[total > 0]
  return float(1 - np.average(entropies, weights=weights) / np.log(importance.shape[1])) if len(weights) else 0.0


def completeness(importance, units):
  """1 where for each factor one of so many units is important (Eastwood & Williams 2018): 1 - entropy."""
  entropies = [_entropy(factor) for factor in importance.T if factor.sum() > 0]
  return float(1 - np.mean(entropies) / np.log(units)) if entropies else 0.0


def factorvae(train, test, generator):
  """How often the unit that varies least among examples that agree in one factor says which (Kim & Mnih 2018).

  GROUPS groups for each factor show which factor a unit stands for, and of as many others it is asked; 1 / factors by
  chance.
  """
  if not test[0].shape[1]:
    return 1 / test[1].shape[1]
  votes, others = (_votes(*half, generator) for half in (train, test))
  return float(others[np.arange(len(votes)), votes.argmax(1)].sum() / others.sum())


def _votes(codes, factors, generator):
  """In how many of GROUPS groups for each factor a unit varies least, as a share of its variance: [units, factors]."""
  codes = codes / codes.std(0)
  found = np.zeros((codes.shape[1], factors.shape[1]), int)
  for j, factor in enumerate(factors.T):
    order = np.argsort(factor, kind="stable")
    value = generator.choice(factor, GROUPS)
    first, behind = (np.searchsorted(factor[order], value, side) for side in ("left", "right"))
    members = order[generator.integers(first[:, None], behind[:, None], (GROUPS, GROUP))]
    least = codes[members].var(1).argmin(1)
    found[:, j] = np.bincount(least, minlength=len(found))
  return found


def _pictures(context, rows, factors, names):
  """What the units tell, those for the same factor beside each other, and what moving the best unit for each does."""
  codes = context.test_codes[rows].astype(np.float64)
  told = np.where(used(context, codes)[:, None], information(codes, factors), 0.0)
  if not told.any():
    return
  shown = np.argsort(-told.sum(1), kind="stable")[: min((told > 0).any(1).sum(), _MOST_UNITS)]
  shown = shown[np.lexsort((-told[shown].max(1), told[shown].argmax(1)))]
  title = f"what each unit tells of {', '.join(names)}, units for the same one side by side"
  yield "factor_information", figures.Heatmap(title, "nats", told[shown].T, "unit, sorted", "factor")
  middle = np.square((codes - np.median(codes, 0)) / np.where(codes.std(0) > 0, codes.std(0), 1.0)).sum(1).argmin()
  moved, given = {}, context.given("test", [0] * _STEPS)
  for name, unit, nats in zip(names, told.argmax(0), told.max(0), strict=True):
    each = np.tile(codes[middle], (_STEPS, 1))
    each[:, unit] = np.linspace(*np.quantile(codes[:, unit], _ENDS), _STEPS)
    moved[f"{name}: unit {unit + 1}, {nats:.2f} nats"] = context.decode(each.astype(np.float32), given)
  yield "factors_moved", figures.ExampleRows("the unit that tells most of each factor, moved from low to high", moved)


EVALUATOR = base.Evaluator(name="disentanglement", needs=("factors",), analyses=(base.Analysis(analyze),))
