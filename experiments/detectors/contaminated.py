"""Measures which keys find outliers among the training rows: `python -m experiments.detectors.contaminated`.

The 357 benign rows of breast cancer and 19 malignant ones, 5 % of all, are trained on without labels and then scored.
Three seeds draw the malignant rows and are the seeds of the training. In an environment with PyOD, only its
detectors and the isolation forest are measured.
"""

import importlib.util
from collections.abc import Callable, Iterator

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

import ae_jax
from ae_jax.estimators import AutoencoderDetector

SEEDS, OUTLIERS = (0, 1, 2), 19
KINDS = ("reconstruction", "normalised", "mahalanobis", "knn")
CHANGES: dict[str, dict] = {  # name of a row -> arguments of `ae_jax.fit`
  "fit(x)": {},
  "latent=2": {"latent": 2},
  "latent=4": {"latent": 4},
  "epochs=10": {"epochs": 10},
  "epochs=3": {"epochs": 3},
  "dropout=0.5": {"model__dropout": 0.5},
  "linear_path='none'": {"model__linear_path": "none"},
  "linear_path='none', epochs=10": {"model__linear_path": "none", "epochs": 10},
  "latent=2, linear_path='none', epochs=10": {"latent": 2, "model__linear_path": "none", "epochs": 10},
}


def rows(seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the rows, and True for the malignant ones."""
  x, benign = load_breast_cancer(return_X_y=True)
  drawn = np.random.default_rng(seed).choice(np.flatnonzero(benign == 0), OUTLIERS, replace=False)
  chosen = np.sort(np.concatenate([np.flatnonzero(benign), drawn]))
  return x[chosen], benign[chosen] == 0


def aurocs(changes: dict) -> Iterator[tuple[str, list[float]]]:
  """Yields each kind of score and its AUROC for each seed."""
  runs = [
    (ae_jax.fit(x, test=x[:2], seed=seed, evaluators=(), verbose=False, **changes), x, labels)
    for seed, (x, labels) in ((seed, rows(seed)) for seed in SEEDS)
  ]
  for run, x, _ in runs:
    run.set_reference(x)
  for kind in KINDS:
    yield kind, [float(roc_auc_score(labels, run.score(x, kind=kind))) for run, x, labels in runs]


def detector(x: np.ndarray, seed: int) -> np.ndarray:
  """Returns the anomaly scores of ae_jax's detector."""
  return -AutoencoderDetector(random_state=seed).fit(x).score_samples(x)


def pyod(name: str) -> Callable[[np.ndarray, int], np.ndarray]:
  """Returns a function that computes the anomaly scores of a detector of PyOD."""

  def scores(x: np.ndarray, seed: int) -> np.ndarray:
    from pyod.models import auto_encoder, pca

    x = StandardScaler().fit_transform(x)
    made = auto_encoder.AutoEncoder(random_state=seed, verbose=0) if name == "AutoEncoder" else pca.PCA()
    return made.fit(x).decision_scores_

  return scores


def forest(x: np.ndarray, seed: int) -> np.ndarray:
  """Returns the anomaly scores of scikit-learn's isolation forest."""
  from sklearn.ensemble import IsolationForest

  return -IsolationForest(random_state=seed).fit(x).score_samples(x)


def main() -> None:
  """Prints one row for each model, with the AUROC of each kind of score."""
  if importlib.util.find_spec("pyod"):
    others = {"PyOD AutoEncoder": pyod("AutoEncoder"), "PyOD PCA": pyod("PCA"), "isolation forest": forest}
  else:
    others = {"AutoencoderDetector": detector, "isolation forest": forest}
  for name, function in others.items():
    found = [float(roc_auc_score(rows(seed)[1], function(rows(seed)[0], seed))) for seed in SEEDS]
    print(f"| {name} | {text(found)} | | | |", flush=True)
  if importlib.util.find_spec("pyod"):
    return
  for name, changes in CHANGES.items():
    print(f"| {name} | {' | '.join(text(found) for _, found in aurocs(changes))} |", flush=True)


def text(values: list[float]) -> str:
  """Returns the mean and the range of values."""
  return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
  main()
