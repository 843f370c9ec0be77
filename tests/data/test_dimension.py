"""The dimension of points, where it is known."""

import numpy as np
import pytest
from scipy.spatial import distance
from sklearn.datasets import make_swiss_roll

from ae_jax.data import dimension


def gaussian(true, size, seed=0):
  """Points of a dimension in a space of 20."""
  generator = np.random.default_rng(seed)
  return generator.normal(size=(size, true)) @ generator.normal(size=(true, 20))


@pytest.mark.parametrize("true", [1, 2, 5])
def test_both_estimates_find_the_dimension_of_a_gaussian_in_a_larger_space(true):
  found = dimension.estimates(gaussian(true, 2000))
  assert set(found) == {"TwoNN", "maximum likelihood"}
  for estimate, low, high in found.values():
    assert low < estimate < high
    assert estimate == pytest.approx(true, rel=0.1)


def test_a_rolled_up_sheet_has_two_dimensions():
  points, _ = make_swiss_roll(2000, random_state=0)
  for estimate, _, _ in dimension.estimates(points).values():
    assert estimate == pytest.approx(2, rel=0.06)


def test_many_dimensions_come_out_too_low():
  for estimate, _, _ in dimension.estimates(gaussian(10, 2000)).values():
    assert 7.5 < estimate < 9.5


def test_the_interval_of_twonn_holds_the_dimension_most_of_the_time():
  held = 0
  for seed in range(20):
    _, low, high = dimension.estimates(np.random.default_rng(seed).uniform(size=(400, 2)))["TwoNN"]
    held += low <= 2 <= high
  assert held >= 16


def test_they_are_what_the_distances_of_all_pairs_say():
  points = gaussian(3, 150)
  distances = np.sort(distance.cdist(points, points), axis=1)
  found = dimension.estimates(points)
  assert found["TwoNN"][0] == pytest.approx(1 / np.log(distances[:, 2] / distances[:, 1]).mean(), rel=1e-4)
  inverses = [np.mean([np.log(row[20] / row[j]) for j in range(1, 20)]) for row in distances]
  assert found["maximum likelihood"][0] == pytest.approx(1 / np.mean(inverses), rel=1e-4)


def test_neither_order_nor_scale_nor_rotation_matters():
  points = gaussian(3, 300)
  found = dimension.estimates(points)
  assert dimension.estimates(points[::-1]) == found
  rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(20, 20)))[0]
  for moved in (64.0 * points, points @ rotation):
    for name, each in dimension.estimates(moved).items():
      assert each[0] == pytest.approx(found[name][0], rel=1e-4)


def test_points_that_coincide_are_left_out_and_few_points_say_nothing():
  points = np.random.default_rng(0).normal(size=(2000, 2))
  found = dimension.estimates(points)
  assert dimension.estimates(np.concatenate([points, points[:500]])) == found
  assert found["TwoNN"][0] == pytest.approx(2, rel=0.1)
  assert dimension.estimates(points[:99]) == {}
  assert dimension.estimates(np.zeros((500, 2))) == {}
  points[:, 1] = 0.0
  assert dimension.estimates(np.concatenate([points, points * [1.0, -1.0]])) == dimension.estimates(points)


def test_points_all_of_whose_neighbours_are_equally_far_are_no_exception():
  ring = np.exp(2j * np.pi * np.arange(128) / 128)
  for points in (np.arange(200.0)[:, None], np.stack([ring.real, ring.imag], 1), np.eye(120)):
    assert all(len(each) == 3 for each in dimension.estimates(points).values())
