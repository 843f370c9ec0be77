"""Compares `config.data.missing="mask"` with "mean" for the models that `ae_jax.fit` chooses.

`python -m experiments.defaults.missing_values` removes values of three tables of scikit-learn at random, trains with
both treatments, and prints the rows of README's table. The errors are those of the test rows, in units of the standard
deviation of each column: of the removed values that `run.impute` fills, and of the observed values. The AUROC is that
of a model that is trained on the rows of one class.
"""

import numpy as np
import pandas as pd
import sklearn.datasets
from sklearn.metrics import roc_auc_score

import ae_jax

SEEDS, FRACTIONS, TREATMENTS = (0, 1, 2), (0.05, 0.2), ("mask", "mean")
NORMAL = {"breast_cancer": 1, "wine": 0, "diabetes": None}  # the normal class; diabetes has no classes


def gaps(name: str, fraction: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray, np.ndarray]:
  """Returns a complete table, the same with values removed, the mask of the test rows, and the labels."""
  bunch, rng = getattr(sklearn.datasets, f"load_{name}")(as_frame=True), np.random.default_rng(seed)
  table = bunch.data
  return table, table.mask(rng.random(table.shape) < fraction), rng.random(len(table)) < 1 / 5, bunch.target.to_numpy()


def errors_of(name: str, fraction: float, treatment: str, seed: int, **changes: int) -> tuple[float, float]:
  """Returns the root-mean-square errors of the removed and of the observed values of the test rows."""
  table, removed, is_test, _ = gaps(name, fraction, seed)
  run = fit(removed[~is_test], removed[is_test], treatment, seed, **changes)
  is_removed, scale = removed[is_test].isna().to_numpy(), table[~is_test].std().to_numpy()
  imputed, rebuilt = (
    np.square((found - table[is_test]).to_numpy() / scale)
    for found in (run.impute(removed[is_test]), run.reconstruct(removed[is_test]))
  )
  return float(np.sqrt(imputed[is_removed].mean())), float(np.sqrt(rebuilt[~is_removed].mean()))


def auroc(name: str, fraction: float, treatment: str, seed: int) -> float:
  """Returns the AUROC of the scores of the test rows, and of all rows of other classes, of a model of one class."""
  _, removed, is_test, labels = gaps(name, fraction, seed)
  is_normal = labels == NORMAL[name]
  is_train, is_scored = is_normal & ~is_test, ~is_normal | is_test
  run = fit(removed[is_train], removed[is_scored], treatment, seed)
  return float(roc_auc_score(~is_normal[is_scored], run.score(removed[is_scored])))


def fit(train: pd.DataFrame, test: pd.DataFrame, treatment: str, seed: int, **changes: int) -> ae_jax.Run:
  """Trains the model that `ae_jax.fit` chooses."""
  return ae_jax.fit(train, test=test, data__missing=treatment, seed=seed, evaluators=(), verbose=False, **changes)


def text(values: list[float]) -> str:
  """Returns the mean of values over the seeds, and the values."""
  return f"{np.mean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})"


def main() -> None:
  """Prints one row for each table and fraction of removed values."""
  for name, normal in NORMAL.items():
    for fraction in FRACTIONS:
      cells = {}
      for treatment in TREATMENTS:
        found = [errors_of(name, fraction, treatment, seed) for seed in SEEDS]
        areas = [] if normal is None else [auroc(name, fraction, treatment, seed) for seed in SEEDS]
        cells[treatment] = [text([each[0] for each in found]), text([each[1] for each in found])]
        cells[treatment].append(text(areas) if areas else "")
      pairs = [" | ".join(pair) for pair in zip(*cells.values(), strict=True)]
      print(f"| {name} | {fraction:.0%} | {' | '.join(pairs)} |", flush=True)


if __name__ == "__main__":
  main()
