"""Tables with labelled outliers that need no network and, except for the last one, only NumPy and scikit-learn.

`DATASETS` maps each name to a function of the seed that returns (examples [N, features], outliers as booleans [N]). The
seed draws the outliers of the real data, and everything of the made data.
"""

import pathlib
from collections.abc import Callable

import numpy as np
import sklearn.datasets

Labelled = tuple[np.ndarray, np.ndarray]

_SHARE = 0.1  # outliers of the real data
_MADE_SHARE = 0.05  # outliers of the made data
_ROWS = 2000  # of the made data


def _of_classes(load: Callable[[], Labelled], is_inlier: Callable[[np.ndarray], np.ndarray]) -> Callable:
  """Returns a data set whose inliers are some classes, with a random fraction of outliers from the others."""

  def labelled(seed: int) -> Labelled:
    x, y = load()
    inlier = is_inlier(y)
    count = round(_SHARE / (1 - _SHARE) * inlier.sum())
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(~inlier))[:count]
    rows = np.concatenate([np.flatnonzero(inlier), drawn])
    return x[rows].astype(np.float64), ~inlier[rows]

  return labelled


def _bundled(name: str) -> Callable[[], Labelled]:
  return lambda: getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)


def _ecg5000() -> Labelled:
  """Returns the 500 training heartbeats of ECG5000 [500, 140] and their classes, from a folder shared/ucr above."""
  folders = pathlib.Path(__file__).resolve().parents
  path = next(file for folder in folders for file in folder.glob("shared/ucr/ECG5000/*TRAIN*"))
  rows = np.loadtxt(path)
  return rows[:, 1:], rows[:, 0].astype(int)


def _of_other_patients(seed: int) -> Labelled:
  """Returns the diabetes table, where each value of an outlier comes from another patient."""
  rng, x = np.random.default_rng(seed), sklearn.datasets.load_diabetes().data
  is_outlier = rng.permutation(len(x)) < _SHARE * len(x)
  others = np.stack([rng.permutation(column) for column in x.T], 1)
  return np.where(is_outlier[:, None], others, x), is_outlier


def _made(make_outliers: Callable[[np.random.Generator, np.ndarray], np.ndarray]) -> Callable[[int], Labelled]:
  """Returns a data set of 20 nonlinear functions of 3 hidden variables with noise, and outliers made from inliers."""

  def labelled(seed: int) -> Labelled:
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(_ROWS, 3))
    waves = np.sin(hidden @ rng.normal(size=(3, 10)) + rng.uniform(0, 2 * np.pi, 10))
    x = np.concatenate([waves, np.tanh(hidden @ rng.normal(size=(3, 10)))], 1) + 0.1 * rng.normal(size=(_ROWS, 20))
    is_outlier = np.arange(_ROWS) < _MADE_SHARE * _ROWS
    x[is_outlier] = make_outliers(rng, x)[is_outlier]
    return x, is_outlier

  return labelled


# The four kinds of Han et al. (2022), ADBench, section 3.3.1.
_KINDS = {
  "made_global": lambda rng, x: rng.uniform(1.1 * x.min(0), 1.1 * x.max(0), x.shape),  # uniform in the range
  "made_local": lambda rng, x: x + 0.4 * rng.normal(size=x.shape),  # noise with 4.1 times the deviation
  "made_dependency": lambda rng, x: np.stack([rng.permutation(column) for column in x.T], 1),  # independent features
  "made_clustered": lambda rng, x: 1.5 * x.mean(0) + x.std(0) * rng.choice((-1, 1), x.shape[1]) + 0.1 * x,
}

DATASETS: dict[str, Callable[[int], Labelled]] = {
  "breast_cancer": _of_classes(_bundled("breast_cancer"), lambda y: y == 1),  # benign
  "wine": _of_classes(_bundled("wine"), lambda y: y > 0),
  "iris": _of_classes(_bundled("iris"), lambda y: y == 1),
  "digits_3": _of_classes(_bundled("digits"), lambda y: y == 3),
  "digits_not_0": _of_classes(_bundled("digits"), lambda y: y != 0),
  "diabetes": _of_other_patients,
  **{name: _made(outliers) for name, outliers in _KINDS.items()},
  "ecg5000": _of_classes(_ecg5000, lambda y: y == 1),
}
