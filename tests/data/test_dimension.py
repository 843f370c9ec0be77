"""Intrinsic-dimension estimates for points of known dimension."""

import numpy as np
import pytest
from scipy.spatial import distance
from sklearn.datasets import make_swiss_roll

from ae_jax.data import dimension


def gaussian(true, size, seed=0):
  """Returns Gaussian points of a given dimension in a 20-dimensional space."""
  generator = np.random.default_rng(seed)
  return generator.normal(size=(size, true)) @ generator.normal(size=(true, 20))


@pytest.mark.parametrize("true", [1, 2, 5])
def test_estimates_recover_the_dimension_of_an_embedded_gaussian(true):
  estimates = dimension.estimates(gaussian(true, 2000))
  assert set(estimates) == {"TwoNN", "maximum likelihood"}
  for estimate, low, high in estimates.values():
    assert low < estimate < high
    assert estimate == pytest.approx(true, rel=0.1)


def test_swiss_roll_has_two_dimensions():
  points, _ = make_swiss_roll(2000, random_state=0)
  for estimate, _, _ in dimension.estimates(points).values():
    assert estimate == pytest.approx(2, rel=0.06)


def test_high_dimensions_are_underestimated_but_covered_by_the_interval():
  for estimate, _, high in dimension.estimates(gaussian(10, 2000)).values():
    assert 7.5 < estimate < 10 < high < 20


def torus(count, generator):
  """Returns points uniform in area on a torus of radii 2 and 1."""
  around = generator.uniform(0, 2 * np.pi, 3 * count)
  around = around[generator.uniform(size=3 * count) < (2 + np.cos(around)) / 3][:count]
  along = generator.uniform(0, 2 * np.pi, count)
  radius = 2 + np.cos(around)
  return np.stack([radius * np.cos(along), radius * np.sin(along), np.sin(around)], 1)


def circle(count, generator):
  angles = generator.uniform(0, 2 * np.pi, count)
  return np.stack([np.cos(angles), np.sin(angles)], 1)


def box(dimensions):
  return lambda count, generator: generator.uniform(size=(count, dimensions))


MANIFOLDS = {"circle": (circle, 1), "interval": (box(1), 1), "torus": (torus, 2), "square": (box(2), 2)}
MANIFOLDS |= {"cube": (box(3), 3), "cube of 5": (box(5), 5)}


def coverage(name, count, repetitions):
  """Counts how often each interval contains the true dimension of a manifold rotated into 10 dimensions."""
  sample, true = MANIFOLDS[name]
  covered = {"TwoNN": 0, "maximum likelihood": 0}
  for seed in range(repetitions):
    generator = np.random.default_rng([seed, count])
    points = sample(count, generator)
    basis = np.linalg.qr(generator.normal(size=(10, 10)))[0][: points.shape[1]]
    for estimator, (_, low, high) in dimension.estimates(points @ basis).items():
      covered[estimator] += low <= true <= high
  return covered


@pytest.mark.parametrize(("name", "count"), [("torus", 500), ("cube", 800)])
def test_intervals_cover_the_true_dimension(name, count):
  assert min(coverage(name, count, 30).values()) >= 27


@pytest.mark.slow
@pytest.mark.parametrize("count", [500, 1000, 2000, 5000])
@pytest.mark.parametrize("name", MANIFOLDS)
def test_intervals_cover_the_true_dimension_at_every_size(name, count):
  assert min(coverage(name, count, 100).values()) >= 90


def test_standard_error_agrees_with_repeated_samples(monkeypatch):
  """Without extrapolation an interval spans 1.96 standard errors of 1 / dimension on each side."""
  monkeypatch.setattr(dimension, "_REACH", 0)
  samples = [dimension.estimates(circle(200, np.random.default_rng(seed))) for seed in range(100)]
  for name in samples[0]:
    inverses, highest, lowest = 1 / np.array([sample[name] for sample in samples]).T
    assert inverses.mean() == pytest.approx(1, abs=0.03)
    claimed = (highest - lowest).mean() / 2 / 1.96
    assert claimed / inverses.std(ddof=1) == pytest.approx(1, abs=0.15)


def test_linear_trend_is_extrapolated_to_distance_zero():
  scales = np.arange(1.0, 20.0)
  for weights in (np.eye(19)[0], np.full(19, 1 / 19)):
    assert dimension._extrapolating(scales, weights) @ (0.5 + 0.1 * scales) == pytest.approx(0.5)
    near = dimension._extrapolating(scales + 100, weights)  # observed over 18, extrapolated over 36
    assert near @ scales == pytest.approx(weights @ scales - 36)
    assert near.sum() == pytest.approx(1)


def test_interval_does_not_exceed_the_dimension_of_the_space():
  for seed in range(5):
    for estimate, low, high in dimension.estimates(box(3)(150, np.random.default_rng(seed))).values():
      assert low < estimate <= high <= max(3, estimate)
  for estimate, low, high in dimension.estimates(gaussian(20, 120)).values():
    assert low < estimate < high <= 20


def test_large_sets_are_sampled_with_a_fixed_seed():
  points = box(2)(6000, np.random.default_rng(0))
  sample = points[np.random.default_rng(0).permutation(6000)[:5000]]
  assert dimension.estimates(points) == dimension.estimates(sample) == dimension.estimates(points)


def test_estimates_agree_with_all_pairwise_distances():
  points = gaussian(3, 150)
  distances = np.sort(distance.cdist(points, points), axis=1)
  estimates = dimension.estimates(points)
  assert estimates["TwoNN"][0] == pytest.approx(1 / np.log(distances[:, 2] / distances[:, 1]).mean(), rel=1e-4)
  inverses = [np.mean([np.log(row[20] / row[j]) for j in range(1, 20)]) for row in distances]
  assert estimates["maximum likelihood"][0] == pytest.approx(1 / np.mean(inverses), rel=1e-4)


def test_estimates_are_invariant_to_order_scale_and_rotation():
  points = gaussian(3, 300)
  estimates = dimension.estimates(points)
  assert dimension.estimates(points[::-1]) == estimates
  rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(20, 20)))[0]
  for moved in (64.0 * points, points @ rotation):
    for name, estimate in dimension.estimates(moved).items():
      assert estimate == pytest.approx(estimates[name], rel=1e-3)


def test_duplicates_are_dropped_and_few_points_give_no_estimate():
  points = np.random.default_rng(0).normal(size=(2000, 2))
  estimates = dimension.estimates(points)
  assert dimension.estimates(np.concatenate([points, points[:500]])) == estimates
  assert estimates["TwoNN"][0] == pytest.approx(2, rel=0.1)
  assert dimension.estimates(points[:99]) == {}
  assert dimension.estimates(np.zeros((500, 2))) == {}
  points[:, 1] = 0.0
  assert dimension.estimates(np.concatenate([points, points * [1.0, -1.0]])) == dimension.estimates(points)


def test_equidistant_neighbours_give_ordered_intervals():
  ring = np.exp(2j * np.pi * np.arange(128) / 128)
  for points in (np.arange(200.0)[:, None], np.stack([ring.real, ring.imag], 1), np.eye(120)):
    for estimate, low, high in dimension.estimates(points).values():
      assert low <= estimate <= high
