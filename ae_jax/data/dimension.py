"""Estimates of the intrinsic dimension of points from nearest-neighbour distances, with confidence intervals."""

import numpy as np
from jaxtyping import Float, Float32, Shaped

FEWEST = 100  # minimum number of distinct points for an estimate
_POINTS = 5000  # maximum number of points; larger sets are sampled with a fixed seed
_NEIGHBOURS = 20
# Neighbouring points share neighbours, so their spacings are correlated. In simulations with a uniform density without
# boundary, in 1 to 9 dimensions, the standard error is 1.2 to 1.4 times the standard error of independent spacings.
_INFLATION = 1.3
_NORMAL = 1.96  # the 97.5 % quantile of the normal distribution
# Maximum distance of the extrapolation, as a multiple of the range of the observed distances. The limit takes effect in
# 6 or more dimensions.
_REACH = 2

_UNBOUNDED = 4  # an upper end above this multiple of the estimate says nothing: it is near the number of elements
Estimate = tuple[float, float, float | int]  # (estimate, low, high)


def estimates(points: Shaped[np.ndarray, "points elements"]) -> dict[str, Estimate]:
  """Returns the estimates of the intrinsic dimension by TwoNN and by maximum likelihood, with confidence intervals.

  TwoNN (Facco et al. 2017, maximum-likelihood form) uses the ratio of the distances to the second and the first nearest
  neighbour. The maximum-likelihood estimate (Levina & Bickel 2004) uses 20 neighbours. Its inverse is averaged over the
  points (MacKay & Ghahramani 2005).

  Both estimates are biased, because the neighbours of a point extend across boundaries, curvature and changes of the
  density. Near a boundary, the bias is linear in the distance of the neighbours; elsewhere it is quadratic. Therefore
  each interval covers two 95 % confidence intervals: one of the estimate, and one of the estimate after linear
  extrapolation to distance zero. In simulations of uniform densities (500 to 5,000 points, 1 to 5 dimensions), the
  interval contains the true dimension in at least 90 of 100 cases. It assumes independent points on one manifold,
  without noise. From six dimensions on, the distances to 20 neighbours hardly differ, so the extrapolation stops before
  distance zero.

  Args:
    points: One point per row. Duplicates are dropped. Sets of more than 5,000 points are sampled with a fixed seed.

  Returns:
    {"TwoNN": (estimate, low, high), "maximum likelihood": (estimate, low, high)}, or {} for fewer than 100 distinct
    points. `high` is at most the number of elements, unless the estimate is larger.
  """
  if len(points) < FEWEST:
    return {}
  from sklearn.neighbors import NearestNeighbors  # takes a second

  x = _distinct(points[np.random.default_rng(0).permutation(len(points))[:_POINTS]])
  if len(x) < FEWEST:
    return {}
  distances, _ = NearestNeighbors(n_neighbors=_NEIGHBOURS + 1).fit(x).kneighbors(x)
  distances = distances[distances[:, 1] > 0, 1:].astype(np.float64)  # the first neighbour is the point itself
  if len(distances) < FEWEST:
    return {}
  # Each spacing has mean 1 / dimension, and the spacings of a point are independent (Renyi 1953; Denti et al. 2022).
  spacings = np.arange(1, _NEIGHBOURS) * np.log(distances[:, 1:] / distances[:, :-1])
  first, uniform = np.eye(_NEIGHBOURS - 1)[0], np.full(_NEIGHBOURS - 1, 1 / (_NEIGHBOURS - 1))
  scales = distances[:, :-1].mean(0)
  with np.errstate(divide="ignore"):  # all neighbours of a point on a grid may have the same distance
    return {
      name: _estimate(spacings, scales, weights, x.shape[1])
      for name, weights in {"TwoNN": first, "maximum likelihood": uniform}.items()
    }


def is_bounded(estimate: float | int, high: float | int) -> bool:
  """Returns whether the upper end of an interval is a bound; with too few points, only the number of elements is."""
  return bool(high <= _UNBOUNDED * estimate)


def _distinct(points: Shaped[np.ndarray, "points elements"]) -> Float32[np.ndarray, "distinct elements"]:
  """Returns the distinct points in arbitrary order, five times faster than `np.unique(points, axis=0)`."""
  x = points.astype(np.float32) + np.float32(0)  # turns -0 into 0
  _, first = np.unique(x.view(f"V{x.itemsize * x.shape[1]}"), return_index=True)
  return x[first]


def _estimate(
  spacings: Float[np.ndarray, "points neighbours"],
  scales: Float[np.ndarray, " neighbours"],
  weights: Float[np.ndarray, " neighbours"],
  elements: int,
) -> Estimate:
  """Returns an estimate of the intrinsic dimension and its confidence interval.

  Args:
    spacings: j * log(d[j + 1] / d[j]) for j = 1, 2, ..., where d[j] is the distance of a point to its j-th neighbour.
    scales: Mean over the points of the distance to the j-th neighbour.
    weights: Weight of each neighbour in the estimate; the estimate is 1 / (weighted mean of the spacings).
    elements: Number of elements of a point; `high` is at most this number, unless the estimate is larger.
  """
  per_point = spacings @ np.stack([weights, _extrapolating(scales, weights)], 1)
  means = per_point.mean(0)
  half = _NORMAL * _INFLATION * per_point.std(0, ddof=1) / len(per_point) ** 0.5
  estimate = 1 / means[0]
  low, high = 1 / np.max(means + half), 1 / np.maximum(np.min(means - half), 0.0)
  return estimate, low, min(high, max(estimate, elements))


def _extrapolating(
  scales: Float[np.ndarray, " neighbours"], weights: Float[np.ndarray, " neighbours"]
) -> Float[np.ndarray, " neighbours"]:
  """Returns new weights, with which the mean of the spacings is the original mean, extrapolated to scale zero.

  To first order, the mean of the j-th spacing is 1 / dimension plus a term that is proportional to its scale, the mean
  distance to the j-th neighbour. Therefore a line is fitted to the spacings as a function of the scales, and its slope
  is used for the extrapolation.
  """
  centred = scales - scales.mean()
  reach = min(weights @ scales, _REACH * np.ptp(scales))
  return weights - reach * centred / max(centred @ centred, np.finfo(np.float64).tiny)
