"""Random factors, and codes of them, for the tests of disentanglement."""

import numpy as np

VALUES = {"kind": ("a", "b", "c"), "size": (1, 2, 4, 8), "place": tuple(range(8))}
SIZES = np.array([len(values) for values in VALUES.values()])
BETWEEN_UNITS = {"mig", "sap", "dci_completeness"}


def draw_factors(count, seed=0):
  return np.random.default_rng(seed).integers(0, SIZES, (count, 3))


def standardised(factors):
  return (factors - (SIZES - 1) / 2) / np.sqrt((SIZES**2 - 1) / 12)


def noise(count, units, seed=0):
  return np.random.default_rng([seed, 1]).normal(size=(count, units))
