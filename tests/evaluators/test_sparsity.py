import numpy as np
import pytest

from ae_jax.evaluators import sparsity


def test_density_is_the_share_of_active_entries_and_dead_units_never_are():
  code = np.zeros((10, 4))
  code[:5, 0], code[0, 1], code[:, 2] = 1.0, -2.0, 0.05
  found = dict(sparsity.metrics({"code": code}, None))
  assert found == {
    "test/density": pytest.approx(6 / 40),
    "test/mean_activation": pytest.approx(7.5 / 40),
    "test/dead_units": 2,
  }


def test_the_threshold_of_an_active_unit():
  code = np.array([[0.09, 0.11, -0.09, -0.11]])
  assert sparsity.dead(code).tolist() == [True, False, True, False]
  assert dict(sparsity.metrics({"code": code}, None))["test/density"] == 0.5
