"""Sweeps from Python: `fit_sweep` trains one autoencoder per latent size, seed and hyperparameter value."""

import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ae_jax import api, errors, fitting, overrides
from ae_jax.runs import progress
from ae_jax.sweep import grid as grids
from ae_jax.sweep import summary
from ae_jax.trained_run import Run


@dataclasses.dataclass(frozen=True)
class Sweep:
  """The result of a sweep.

  Attributes:
    rows: One record for each member: its name, values, status and metrics, as in sweep.json.
    answer: The result as a sentence.
    workdir: The sweep folder, with a run folder for each member.
  """

  rows: list[summary.Row]
  answer: str
  workdir: pathlib.Path

  @functools.cached_property
  def table(self) -> Any:
    """`rows` as a DataFrame, indexed by the names of the members."""
    import pandas as pd  # takes half a second to import

    return pd.DataFrame(self.rows).set_index("name")

  @functools.cached_property
  def best(self) -> Run:
    """The member with the smallest squared error on the validation set, or on the test set without a validation set.

    The error usually falls with the latent size; `answer` names the smallest size that is enough.

    Raises:
      UserError: No member was trained to the end.
    """
    column = summary.chosen_by(self.rows)
    scores = {row["name"]: row[column] for row in self.rows if math.isfinite(row.get(column, math.nan))}
    done = {row["name"] for row in self.rows if row["status"] == "done"} & scores.keys()
    if not done:
      raise errors.UserError(f"best: {self.answer}")
    return self.load(min(sorted(done), key=scores.__getitem__))

  def load(self, name: str) -> Run:
    """Returns the trained model of a member, such as "latent=8,seed=0"; see the index of `table`."""
    names = [row["name"] for row in self.rows]
    if name not in names:
      raise errors.UserError(f"load: there is no member {name!r}; {errors.list_known(name, names)}")
    return api.load(self.workdir / name)

  def plot(self) -> Any:
    """Returns a Matplotlib figure of the test error by latent size: mean and range over the seeds, beside PCA."""
    from ae_jax.report import graphs  # importing Matplotlib takes a second

    results = json.loads((self.workdir / "sweep.json").read_text())
    return graphs.error_over_latent(
      summary.curves(self.rows), summary.pca(self.rows), results["knee"], results["dimensions"], self.answer
    )


def fit_sweep(
  x: Any,
  labels: Any = None,
  *,
  latents: Sequence[int] = (),
  seeds: int | Sequence[int] = 1,
  grid: Mapping[str, Sequence[float | int]] | None = None,
  model: str | ConfigDict = "dense",
  epochs: int | None = None,
  workdir: str | os.PathLike[str] | None = None,
  validation: Any = None,
  test: Any = None,
  halving: int = 0,
  verbose: bool = True,
  **changes: Any,
) -> Sweep:
  """Trains one autoencoder for each combination of latent size, seed and hyperparameter values.

  Members that differ only in these train in one compiled program, as with `ae_jax sweep`.

  Example:
    >>> sweep = ae_jax.fit_sweep(x, latents=(2, 4, 8), seeds=3, grid={"optimizer__learning_rate": (1e-3, 3e-3)})
    >>> sweep.best.encode(x), sweep.table, sweep.plot(), sweep.answer

  Args:
    x: The data; see `ae_jax.fit`, as for `labels`, `model`, `epochs`, `validation`, `test`, `verbose` and `changes`.
    labels: Labels of the examples.
    latents: Latent sizes; (): that of the config.
    seeds: Number of seeds (the seed of the config and the integers that follow), or the seeds.
    grid: {numeric config key: values}; keys as in `changes`.
    model: Name of a shipped config, or a config.
    epochs: Number of epochs.
    workdir: The sweep folder; the same call continues an interrupted sweep, and other values add members. None: a
      temporary folder, which is removed when the returned `Sweep` is deleted.
    validation: Validation examples or their share.
    test: Test examples or their share.
    halving: Factor N of successive halving: after each comparison, the best 1/N of the settings of `grid` continue.
    verbose: Whether to print the progress.
    **changes: Values of config keys.

  Raises:
    UserError: An argument or the data are invalid. It is a ValueError.
    Interrupted: A signal stops the sweep; with a `workdir`, the same call continues it.
  """
  from ae_jax.sweep import run

  changes = fitting.with_keys({"epochs": epochs}, overrides.dotted(changes))
  with progress.quiet(not verbose), fitting.run_folder_of(workdir) as (folder, keep):
    config, dataset = fitting.problem(x, labels, model=model, validation=validation, test=test, changes=changes)
    rows = run.run(config, _axes(config, latents, seeds, grid or {}), folder, factor=halving, dataset=dataset)
    answer = json.loads((folder / "sweep.json").read_text())["answer"]
    return keep(Sweep(rows, answer, folder))


def _axes(
  config: ConfigDict,
  latents: Sequence[int],
  seeds: int | Sequence[int],
  grid: Mapping[str, Sequence[float | int]],
) -> list[tuple[str, list[float | int]]]:
  """Returns the axes of a sweep; see `run.run`."""
  if isinstance(seeds, int | np.integer):
    seeds = range(config.seed, config.seed + seeds)
  given = {"latents": ("model.latent", latents)} if len(latents) else {}
  given |= {"seeds": ("seed", seeds)} | {f"grid[{key!r}]": (key, values) for key, values in grid.items()}
  axes = []
  for argument, (key, values) in given.items():
    numbers = [value.item() if isinstance(value, np.generic) else value for value in values]
    grids.check_numbers(f"{argument}={errors.format_value(numbers)}", numbers, "one or more numbers, such as [2, 4, 8]")
    axes.append((next(iter(overrides.dotted({key: None}))), numbers))
  return axes
