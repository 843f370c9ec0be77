"""Compares `ae_jax.fit` without a model with PCA on small data sets: `python -m experiments.defaults.run [NAME ...]`.

Each data set of `datasets.py` is trained with three seeds. The squared errors are means over the test examples; PCA has
the same latent size and is fitted to the training examples. Writes results.json after each data set and prints the rows
of README's table; existing results are kept, so the same command goes on after an interruption.
"""

import json
import pathlib
import sys
import time

import numpy as np

import ae_jax
from experiments.defaults.datasets import DATASETS, HELD_OUT

RESULTS = pathlib.Path(__file__).parent / "results.json"
SEEDS = (0, 1, 2)


def measure(name: str) -> dict:
  """Trains a data set with each seed; returns the errors of the model and of PCA, and the seconds of a training."""
  train, test, latent = DATASETS[name]()
  changes = {} if train.dtype == np.uint8 or name == "digits" else {"data__range": "real"}
  changes |= {"objective__likelihood": "gaussian"} if changes else {}
  changes |= {"data__kind": "series"} if train.ndim == 3 else {}
  errors, started = [], time.perf_counter()
  for seed in SEEDS:
    run = ae_jax.fit(train, test=test, latent=latent, seed=seed, evaluators=(), verbose=False, **changes)
    errors.append(run.metrics["test/squared_error"])
  result = {"shape": train.shape, "latent": latent, "errors": errors, "pca": run.metrics["test/pca_squared_error"]}
  return result | {"seconds": (time.perf_counter() - started) / len(SEEDS)}


def row(name: str, result: dict) -> str:
  """Returns a row of README's table; the ratios of the peers are empty if they have no results."""
  shape = "x".join(map(str, result["shape"][1:]))
  mark = " (held out)" if name in HELD_OUT else ""
  peers = result.get("peers", {})
  ratios = [_ratios(peers[peer]["errors"], result["pca"]) if peer in peers else "" for peer in ("pythae", "PyOD")]
  return (
    f"| {name}{mark} | {result['shape'][0]:,} of {shape} | {result['latent']} | {result['pca']:.4g} "
    f"| {np.mean(result['errors']):.4g} | {_ratios(result['errors'], result['pca'])} | {result['seconds']:.0f} "
    f"| {' | '.join(ratios)} |"
  )


def _ratios(errors: list[float], pca: float) -> str:
  """Returns the mean and the range of the ratios of errors to that of PCA."""
  ratios = [error / pca for error in errors]
  return f"{np.mean(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def stored() -> dict:
  """Returns the results of earlier calls, {name of a data set: result}."""
  return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def store(results: dict) -> None:
  """Writes the results of all data sets."""
  RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main(names: list[str]) -> None:
  """Trains the data sets that have no result yet, or those that are named."""
  for name in names or [name for name in DATASETS if name not in stored()]:
    measured = measure(name)
    results = stored()  # another process may have written meanwhile
    results[name] = results.get(name, {}) | measured
    store(results)
    print(row(name, results[name]), flush=True)
  results = stored()
  print("\n".join(row(name, results[name]) for name in DATASETS if name in results))


if __name__ == "__main__":
  main(sys.argv[1:])
