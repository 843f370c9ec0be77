"""How many dimensions points have near each of them: two estimates from the distances to nearest neighbours."""

import numpy as np

FEWEST = 100  # different points that say something
_POINTS = 5000  # at most, by a fixed seed: the distances of all pairs
_NEIGHBOURS = 20
_RESAMPLED = 200  # bootstrap samples


def estimates(points):
  """{"TwoNN": (estimate, low, high), "maximum likelihood": ...} of points [N, elements], with 95 % intervals.

  TwoNN is the maximum-likelihood form of Facco et al. (2017): the ratio of the distances to the second and the first
  neighbour is Pareto-distributed with the dimension as its exponent. The other is that of Levina & Bickel (2004) over
  20 neighbours, its inverses averaged (MacKay & Ghahramani 2005). Both are biased low where the dimension is high (10
  comes out as 8.9). Of points that coincide one is taken; {} for fewer than 100 points.
  """
  from sklearn.neighbors import NearestNeighbors  # a second of imports

  x = _different(points[np.random.default_rng(0).permutation(len(points))[:_POINTS]])
  if len(x) < FEWEST:
    return {}
  distances, _ = NearestNeighbors(n_neighbors=_NEIGHBOURS + 1).fit(x).kneighbors(x)
  distances = distances[distances[:, 1] > 0, 1:].astype(np.float64)  # the first is the point itself
  if len(distances) < FEWEST:
    return {}
  ratios = np.log(distances[:, 1] / distances[:, 0])
  inverses = np.log(distances[:, -1:] / distances[:, :-1]).mean(1)
  return {"TwoNN": _estimate(ratios), "maximum likelihood": _estimate(inverses)}


def _different(points):
  """The points as float32, each once, in no order that means anything: five times faster than `np.unique` of rows."""
  x = points.astype(np.float32) + np.float32(0)  # turns -0 into 0
  _, first = np.unique(x.view(f"V{x.itemsize * x.shape[1]}"), return_index=True)
  return x[first]


def _estimate(inverses):
  """The inverse of the mean of what each point says of 1 / dimension, and its bootstrap interval."""
  inverses, generator = np.sort(inverses), np.random.default_rng(0)  # so that the order of the points is no matter
  means = [inverses[generator.integers(len(inverses), size=len(inverses))].mean() for _ in range(_RESAMPLED)]
  with np.errstate(divide="ignore"):  # of points on a grid all neighbours may be equally far
    low, high = 1 / np.percentile(means, [97.5, 2.5])
    return 1 / inverses.mean(), low, high
