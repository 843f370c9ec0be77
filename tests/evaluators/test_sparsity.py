import numpy as np
import pytest

from ae_jax.evaluators import sparsity


def test_density_is_the_share_of_active_latents_and_dead_units_are_never_active():
  code = np.zeros((10, 4))
  code[:5, 0], code[0, 1], code[:, 2] = 1.0, -2.0, 0.05
  metrics = dict(sparsity.metrics({"code": code}, None))
  assert metrics == {
    "test/density": pytest.approx(6 / 40),
    "test/mean_activation": pytest.approx(7.5 / 40),
    "test/dead_units": 2,
  }


def test_a_unit_is_active_above_a_magnitude_of_a_tenth():
  code = np.array([[0.09, 0.11, -0.09, -0.11]])
  assert sparsity.dead(code).tolist() == [True, False, True, False]
  assert dict(sparsity.metrics({"code": code}, None))["test/density"] == 0.5
