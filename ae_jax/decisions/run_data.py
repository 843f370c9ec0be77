"""Reads the data set of a run again, and yields its examples as inputs of anomaly scores."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

from ae_jax import data, errors
from ae_jax.data import example_names, lazy_arrays, ranges
from ae_jax.decisions import scores
from ae_jax.runs import run_folder
from ae_jax.system import paths

MOST_TRAINING = 10_000  # maximum number of training examples; they are drawn with a fixed seed


def load(run: Any) -> data.Dataset:
  """Returns the data set of a run.

  Raises:
    UserError: The run has no folder, its data have changed, or they were passed to `ae_jax.fit` as arrays.
  """
  if run.workdir is None or not (run.workdir / "config.json").exists():
    raise errors.UserError("the run has no run folder, so its training data are unknown; pass examples as x")
  return run_folder.load_data(run.workdir, run.config)


def training_rows(count: int) -> Int[np.ndarray, " rows"]:
  """Returns the sorted positions of at most `MOST_TRAINING` random examples among `count` training examples."""
  return np.sort(np.random.default_rng(0).permutation(count)[:MOST_TRAINING])


def chosen_parts(
  run: Any, dataset: data.Dataset, split: str, anomalous: Bool[np.ndarray, " examples"] | None = None
) -> Iterator[scores.Inputs]:
  """Yields the examples of a split in parts of limited size; of the training set, only those of `training_rows`.

  Args:
    run: The run.
    dataset: The data set of the run.
    split: Name of the split, a member of `splits.SPLITS`.
    anomalous: Mask of the examples to leave out; None: all are used.
  """
  count = len(getattr(dataset, split))
  rows = training_rows(count) if split == "train" else np.arange(count)
  rows = rows if anomalous is None else rows[~anomalous[rows]]
  size = lazy_arrays.rows_per_part(dataset.shape, np.dtype(np.float32))  # the model receives floats
  for start in range(0, max(1, len(rows)), size):
    yield inputs_of(run, dataset, split, rows[start : start + size])


def inputs_of(run: Any, dataset: data.Dataset, split: str, rows: Int[np.ndarray, " chosen"]) -> scores.Inputs:
  """Returns the examples at the positions `rows` of a split, with their targets, mask and other columns."""
  examples = getattr(dataset, split)
  if split == "validation":  # `on_validation` has the columns of the validation set in place of the test set
    dataset, split = dataset.on_validation, "test"
  chosen = lambda array: lazy_arrays.read_rows(array, rows)
  in_range = lambda array: ranges.normalise(chosen(array), dataset.value_range)
  x, target, mask = in_range(examples), dataset.column(split, "target"), dataset.column(split, "mask")
  columns = {name: chosen(values) for name, values in data.model_columns(dataset, split, run.model).items()}
  return scores.Inputs(x, x if target is None else in_range(target), None if mask is None else chosen(mask), columns)


def in_parts(
  run: Any, dataset: data.Dataset, path: str = ""
) -> Iterator[tuple[dict[str, Shaped[np.ndarray, " rows"]], scores.Inputs]]:
  """Yields all examples of a data set in parts of limited size, as ({column: values}, inputs of the scores).

  The columns are "split" (the name of the split), "name" and, if a split has labels, "label" ("" in splits without).

  Args:
    run: The run.
    dataset: The data set of the run.
    path: Path from which the data set was read; "" for `config.data.path`.
  """
  section = run.config.data.to_dict()
  section["path"] = str(paths.local_path("config.data.path", path or section["path"] or "."))
  names_of = example_names.of_splits(dataset, section)
  labels_of = {split: getattr(dataset, f"{split}_labels") for split in names_of}
  labelled = any(given is not None for given in labels_of.values())
  size = lazy_arrays.rows_per_part(dataset.shape, np.dtype(np.float32))  # the model receives floats
  for split, names in names_of.items():
    for start in range(0, len(names), size):
      rows = np.arange(start, min(start + size, len(names)))
      known = {"split": np.full(len(rows), split, "<U10"), "name": names[rows]}
      if labelled:
        known["label"] = _label_texts(labels_of[split], rows, dataset)
      yield known, inputs_of(run, dataset, split, rows)


def _label_texts(
  given: lazy_arrays.MaybeLazy | None, rows: Int[np.ndarray, " rows"], dataset: data.Dataset
) -> Shaped[np.ndarray, " rows"]:
  if given is None:
    return np.full(len(rows), "")
  return np.array([dataset.class_name(label) for label in lazy_arrays.read_rows(given, rows)])


def of_normal(inputs: scores.Inputs, anomalous: Bool[np.ndarray, " examples"]) -> scores.Inputs:
  """Returns the inputs without the rows that are marked in the mask `anomalous`."""
  take = lambda array: array if array is None else array[~anomalous]
  x = take(inputs.x)
  target = take(inputs.target) if inputs.has_target else x
  columns: Mapping[str, Any] = inputs.columns
  return scores.Inputs(x, target, take(inputs.mask), {name: take(values) for name, values in columns.items()})
