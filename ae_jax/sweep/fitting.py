"""Sweeps from Python: `fit_sweep` trains one autoencoder per latent size, seed and hyperparameter value."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ae_jax import api, errors, fitting, overrides
from ae_jax.runs import progress, temporary_folder
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
    """The member with the smallest squared error on the validation set or, if there is none, on the test set.

    Larger latent sizes usually have smaller errors; `answer` names the smallest sufficient latent size.

    Raises:
      UserError: No member was trained to the end.
    """
    best = summary.best_member(self.rows)
    if best is None:
      raise errors.UserError(f"best: {self.answer}")
    return self.load(best)

  def load(self, name: str) -> Run:
    """Returns the trained model of a member, such as "latent=8,seed=0"; see the index of `table`."""
    names = [row["name"] for row in self.rows]
    if name not in names:
      raise errors.UserError(f"load: there is no member {name!r}; {errors.list_known(name, names)}")
    return api.load(self.workdir / name)

  def plot(self) -> Any:
    """Returns a Matplotlib figure of the test error against the latent size, for the members and for PCA.

    The figure shows the mean and the range over the seeds.
    """
    from ae_jax.report import graphs  # importing Matplotlib takes a second

    results = json.loads((self.workdir / "sweep.json").read_text(encoding="utf-8"))
    return graphs.error_over_latent(
      summary.curves(self.rows),
      summary.pca(self.rows),
      results["knee"],
      results["dimensions"],
      self.answer,
      results.get("unit", ""),
    )


def fit_sweep(
  x: Any,
  labels: Any = None,
  *,
  latents: Sequence[Any] = (),
  seeds: int | Sequence[Any] = 1,
  grid: Mapping[str, Sequence[Any]] | None = None,
  model: str | ConfigDict = fitting.AUTOMATIC,
  epochs: int | None = None,
  workdir: str | os.PathLike[str] | None = None,
  validation: Any = None,
  test: Any = None,
  halving: int = 0,
  verbose: bool = True,
  **changes: Any,
) -> Sweep:
  """Trains one autoencoder for each combination of latent size, seed and hyperparameter values.

  Each autoencoder is a member of the sweep. Members share compiled programs, as with `ae_jax sweep`.

  Example:
    >>> sweep = ae_jax.fit_sweep(x, latents=(2, 4, 8), seeds=3, grid={"optimizer__learning_rate": (1e-3, 3e-3)})
    >>> sweep.best.encode(x), sweep.table, sweep.plot(), sweep.answer

  Args:
    x: The data. `ae_jax.fit` describes this argument, and also `labels`, `model`, `epochs`, `validation`, `test`,
      `verbose` and `changes`.
    labels: Labels of the examples.
    latents: Latent sizes; (): the latent size of the config.
    seeds: The seeds, or the number of seeds. A number means the seed of the config and the integers that follow it.
    grid: {numeric config key: values}; the keys are written as in `changes`.
    model: "auto", the name of another shipped config, or a config.
    epochs: Number of epochs.
    workdir: The sweep folder; the same call resumes an interrupted sweep, and other values add members. None: a
      temporary folder, which is removed when the returned `Sweep` is deleted. After an error, the temporary folder is
      kept if it contains a checkpoint.
    validation: Validation examples, or the fraction of the training examples that become the validation set.
    test: Test examples, or the fraction of the examples that become the test set.
    halving: Factor N of successive halving: after each comparison, the best 1/N of the settings of `grid` continue.
    verbose: Whether to print the progress.
    **changes: Values of config keys.

  Raises:
    UserError: An argument or the data are invalid. A UserError is also a ValueError.
    Interrupted: A signal stops the sweep; the same call with the `workdir` resumes it.
  """
  from ae_jax.sweep import run

  axes = _axes(latents, seeds, grid or {})
  first = {key: numbers[0] for key, numbers in axes.items() if key == "model.latent"}
  changes = overrides.dotted(changes)
  overrides.check_once(axes, changes | ({} if epochs is None else {"epochs": epochs}))
  changes = overrides.with_keys({"epochs": epochs} | first, changes)
  with progress.quiet(not verbose), temporary_folder.run_folder_of(workdir) as (folder, keep):
    config, dataset = fitting.problem(x, labels, model=model, validation=validation, test=test, changes=changes)
    if isinstance(seeds, int):
      numbers = list(range(config.seed, config.seed + seeds))
      axes = {key: axes[key] for key in first} | {"seed": numbers} | axes  # in the order of the command line
    rows = run.run(config, list(axes.items()), folder, factor=halving, dataset=dataset)
    answer = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["answer"]
    return keep(Sweep(rows, answer, folder))


def _axes(
  latents: Sequence[Any], seeds: int | Sequence[Any], grid: Mapping[str, Sequence[Any]]
) -> dict[str, list[float | int]]:
  """Returns {config key: values} of the axes of the sweep; "seed" is missing if `seeds` is an integer."""
  given = {"latents": ("model.latent", latents)} if len(latents) else {}
  if not isinstance(seeds, int):
    given["seeds"] = ("seed", seeds)
  elif seeds < 1:
    raise errors.UserError(f"seeds={seeds}: must be one or more seeds, or a number of at least 1")
  given |= {f"grid[{key!r}]": (key, values) for key, values in overrides.dotted(grid).items()}
  axes: dict[str, list[float | int]] = {}
  for argument, (key, values) in given.items():
    numbers = [value.item() if isinstance(value, np.generic) else value for value in values]
    argument = f"{argument}={errors.format_value(numbers)}"
    grids.check_numbers(argument, numbers, "one or more numbers, such as [2, 4, 8]")
    if key in axes or (key == "seed" and isinstance(seeds, int)):
      raise errors.UserError(f"{argument}: {key} is already an axis of the sweep; give its values once")
    axes[key] = numbers
  return axes
