"""Columns of a batch: the examples, and the labels on which a model may be conditioned."""

from typing import Any

import numpy as np
from jaxtyping import Int32

from ae_jax import errors
from ae_jax.data import lazy_arrays

MOST_CLASSES = 1_000  # maximum number of classes of a conditional model


def class_indices(labels: Any, known: tuple[int, ...], count: int) -> Int32[np.ndarray, " {count}"]:
  """Returns the class index of each label, which is its position in `known`.

  Args:
    labels: Integers [count], or one integer for all examples.
    known: The distinct labels, sorted.
    count: Number of examples.

  Raises:
    UserError: A label is not an integer or not in `known`, or the number of labels is not `count`.
  """
  labels = np.asarray(labels)
  if not np.issubdtype(labels.dtype, np.integer) or labels.shape not in ((), (count,)):
    raise errors.UserError(
      f"label: has dtype {labels.dtype} and shape {labels.shape}; must be an integer, or one for each of the {count} "
      "examples"
    )
  unknown = np.setdiff1d(labels, known)
  if len(unknown):
    few = ", ".join(map(str, known[:20])) + (", ..." if len(known) > 20 else "")
    raise errors.UserError(f"label={unknown[0]}: is not a training label; known labels: {few}")
  return np.broadcast_to(np.searchsorted(known, labels), (count,)).astype(np.int32)


def label_values(dataset: Any, where: str) -> tuple[int, ...]:
  """Returns the distinct training labels of a data set, sorted.

  Args:
    dataset: A `data.Dataset`.
    where: Prefix of error messages: the config key that needs the labels.

  Raises:
    UserError: The training or test examples have no integer labels, there are more than `MOST_CLASSES` distinct labels,
      or a test label does not occur in the training set.
  """
  for half, labels in {"training": dataset.train_labels, "test": dataset.test_labels}.items():
    if labels is None or not np.issubdtype(labels.dtype, np.integer):
      raise errors.UserError(
        f"{where} needs labels, but the {half} examples of config.data.name={dataset.name!r} have no integer labels; "
        "add integer labels to the data, or choose a model that needs none"
      )
  distinct = np.unique(lazy_arrays.load_all(dataset.train_labels))
  if len(distinct) > MOST_CLASSES:
    raise errors.UserError(
      f"{where}: the data have {len(distinct):,} different labels; the limit is {MOST_CLASSES:,}. Check that the "
      "labels are classes, not continuous values"
    )
  known = tuple(map(int, distinct))
  class_indices(dataset.test_labels, known, len(dataset.test))
  return known


def flat_columns(dataset: Any, half: str, model: Any) -> dict[str, np.ndarray]:
  """Returns the columns that a model needs, in memory and with flattened examples: {"x": [N, elements], ...}.

  `half` is "train" or "test".
  """
  columns = {name: lazy_arrays.load_all(column) for name, column in half_columns(dataset, half, model).items()}
  return {**columns, "x": columns["x"].reshape(len(columns["x"]), -1)}


def half_columns(dataset: Any, half: str, model: Any) -> dict[str, lazy_arrays.MaybeLazy]:
  """Returns the columns of the training or test set that a model needs: {"x": examples, ...}.

  `half` is "train" or "test".
  """
  columns = {"x": getattr(dataset, half)}
  if "label" in model.columns:
    labels = getattr(dataset, f"{half}_labels")
    indices = lambda part: class_indices(part, model.labels, len(part))
    columns["label"] = lazy_arrays.map_rows(labels, (), np.int32, indices)
  return columns
