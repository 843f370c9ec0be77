"""Compares `AutoencoderDetector` with other outlier detectors: `python -m experiments.detectors.run [METHOD ...]`.

Each detector is fitted to all examples of each table in `datasets.py` with three seeds, without the labels, and scores
the same examples. Writes results.json after each table; existing results are kept. Methods whose package is missing are
named and left out, so a second environment with `pip install pyod torch tqdm` can add PyOD's to the same file.
"""

import json
import pathlib
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import StandardScaler

from experiments.detectors.datasets import DATASETS

RESULTS = pathlib.Path(__file__).parent / "results.json"
SEEDS = (0, 1, 2)

Scores = Callable[[np.ndarray, int], np.ndarray]  # (examples [N, features], seed) -> anomaly scores [N]


def autoencoder(**options: str) -> Scores:
  """Returns the detector of ae_jax with some options."""
  from ae_jax.estimators import AutoencoderDetector

  return lambda x, seed: -AutoencoderDetector(random_state=seed, **options).fit(x).score_samples(x)


def of_pyod(module: str, name: str) -> Scores:
  """Returns a detector of PyOD with its default options."""
  import importlib

  detector = getattr(importlib.import_module(f"pyod.models.{module}"), name)
  return lambda x, seed: detector(random_state=seed, verbose=0).fit(x).decision_scores_


def isolation_forest() -> Scores:
  """Returns scikit-learn's isolation forest."""
  return lambda x, seed: -IsolationForest(random_state=seed).fit(x).score_samples(x)


def local_outlier_factor() -> Scores:
  """Returns scikit-learn's local outlier factor of standardised features."""
  return lambda x, seed: -LocalOutlierFactor().fit(StandardScaler().fit_transform(x)).negative_outlier_factor_


def pca() -> Scores:
  """Returns the squared error of PCA with the latent size of the autoencoder, of standardised features."""

  def scores(x: np.ndarray, seed: int) -> np.ndarray:
    x = StandardScaler().fit_transform(x)
    fitted = PCA(min(32, max(1, x.shape[1] // 3)), random_state=seed).fit(x)
    return np.square(x - fitted.inverse_transform(fitted.transform(x))).sum(1)

  return scores


METHODS: dict[str, Callable[[], Scores]] = {
  "ae_jax": autoencoder,
  "ae_jax, reconstruction": lambda: autoencoder(scoring="reconstruction"),
  "PyOD AutoEncoder": lambda: of_pyod("auto_encoder", "AutoEncoder"),
  "PyOD VAE": lambda: of_pyod("vae", "VAE"),
  "isolation forest": isolation_forest,
  "LOF": local_outlier_factor,
  "PCA": pca,
}


def measure(scores: Scores, name: str) -> list[dict[str, float]]:
  """Returns AUROC, average precision, seconds and processor seconds of each seed."""
  results = []
  for seed in SEEDS:
    x, is_outlier = DATASETS[name](seed)
    started, processor = time.perf_counter(), time.process_time()
    found = scores(x, seed)
    result = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - processor}
    result |= {"auroc": roc_auc_score(is_outlier, found), "ap": average_precision_score(is_outlier, found)}
    results.append({key: round(float(value), 4) for key, value in result.items()})
  return results


def main(methods: list[str]) -> None:
  """Measures the methods that have no result yet, or those that are named, and prints the tables of README.md."""
  warnings.simplefilter("ignore")
  for method in methods or METHODS:
    try:
      scores = METHODS[method]()
    except ImportError as error:
      print(f"{method}: is left out, because {error.name} is not installed; pip install pyod torch tqdm", flush=True)
      continue
    for name in DATASETS:
      results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
      if name in results.get(method, {}) and not methods:
        continue
      try:
        measured = measure(scores, name)
      except StopIteration:
        print(f"{name}: is left out, because its files are missing", flush=True)
        continue
      results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
      results.setdefault(method, {})[name] = measured
      RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
      print(f"{method:24} {name:16} {measured}", flush=True)
  print(tables(json.loads(RESULTS.read_text(encoding="utf-8"))))


def tables(results: dict[str, dict[str, list[dict[str, float]]]]) -> str:
  """Returns the tables of README.md: AUROC, average precision and processor seconds, each a mean over the seeds."""
  methods = [method for method in METHODS if method in results]
  names = [name for name in DATASETS if all(name in results[method] for method in methods)]
  lines = []
  for key in ("auroc", "ap", "processor_seconds"):
    lines += ["", f"| {key} | {' | '.join(methods)} |", "|---" * (len(methods) + 1) + "|"]
    # the first seed compiles
    means = {
      name: [np.mean([each[key] for each in results[method][name][key == "processor_seconds" :]]) for method in methods]
      for name in names
    }
    lines += [f"| {name} | {' | '.join(f'{mean:.3f}' for mean in row)} |" for name, row in means.items()]
    lines.append(f"| mean | {' | '.join(f'{mean:.3f}' for mean in np.mean(list(means.values()), 0))} |")
  return "\n".join(lines)


if __name__ == "__main__":
  main(sys.argv[1:])
