"""Columns of a batch: examples, labels for a conditional model, and the targets, masks and weights of the loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Shaped

from ae_jax import errors
from ae_jax.data import lazy_arrays
from ae_jax.data.labels import MOST_CLASSES, with_name

SHAPED = ("x", "target", "mask")  # columns with the shape of an example


def class_indices(
  labels: Any, known: tuple[int, ...], count: int, class_names: Sequence[str] | None = None
) -> Int32[np.ndarray, " {count}"]:
  """Returns the class index of each label, i.e. the position of the label in `known`.

  Args:
    labels: Integers or class names [count], or a single integer or class name for all examples.
    known: The distinct labels, sorted.
    count: Number of examples.
    class_names: Name of each label 0, 1, ..., or None.

  Raises:
    UserError: A label is not an integer or not in `known`, a class name is unknown, or there are not `count` labels.
  """
  labels = np.asarray(labels)
  if labels.dtype.kind == "U" and class_names:
    labels = _of_names(labels, class_names)
  if not np.issubdtype(labels.dtype, np.integer) or labels.shape not in ((), (count,)):
    kinds = "an integer or a class name" if class_names else "an integer"
    raise errors.UserError(
      f"label: has dtype {labels.dtype} and shape {labels.shape}; must be {kinds}, or one for each of the {count} "
      "examples"
    )
  unknown = np.setdiff1d(labels, known)
  if len(unknown):
    few = ", ".join(with_name(label, class_names) for label in known[:20]) + (", ..." if len(known) > 20 else "")
    raise errors.UserError(f"label={unknown[0]}: is not a training label; known labels: {few}")
  return np.broadcast_to(np.searchsorted(known, labels), (count,)).astype(np.int32)


def _of_names(names: Shaped[np.ndarray, "..."], class_names: Sequence[str]) -> Int[np.ndarray, "..."]:
  """Converts class names to labels, in an array of the same shape; raises UserError if a name is unknown."""
  distinct, inverse = np.unique(names, return_inverse=True)
  for name in distinct.tolist():
    if name not in class_names:
      raise errors.UserError(f"label={name!r}: is not a class of this run; {errors.list_known(name, class_names)}")
  labels = np.array([class_names.index(name) for name in distinct.tolist()], np.int64)
  return np.asarray(labels[inverse.reshape(names.shape)])


def label_values(dataset: Any, where: str) -> tuple[int, ...]:
  """Returns the distinct training labels of a data set, sorted.

  Args:
    dataset: A `data.Dataset`.
    where: Prefix of error messages, e.g. the config key that needs the labels.

  Raises:
    UserError: A split has no integer labels, there are more than `MOST_CLASSES` distinct labels, or a
      test or validation label does not occur in the training set.
  """
  by_split = {"training": dataset.train_labels, "test": dataset.test_labels}
  if dataset.validation is not None:
    by_split["validation"] = dataset.validation_labels
  for split, labels in by_split.items():
    if labels is None or not np.issubdtype(labels.dtype, np.integer):
      raise errors.UserError(
        f"{where} needs labels, but the {split} examples of config.data.name={dataset.name!r} have no integer labels; "
        "add integer labels to the data, or choose a model that needs none"
      )
  distinct = np.unique(lazy_arrays.load_all(dataset.train_labels))
  if len(distinct) > MOST_CLASSES:
    raise errors.UserError(
      f"{where}: the data have {len(distinct):,} different labels; the limit is {MOST_CLASSES:,}. Check that the "
      "labels are classes, not continuous values"
    )
  known = tuple(map(int, distinct))
  for labels in list(by_split.values())[1:]:
    class_indices(labels, known, len(labels), dataset.class_names)
  return known


def flat_columns(dataset: Any, split: str, model: Any) -> dict[str, np.ndarray]:
  """Returns the columns of `split_columns`, in memory and with flattened examples: {"x": [N, elements], ...}.

  `split` is the name of the split, a member of `splits.SPLITS`.
  """
  columns = {name: lazy_arrays.load_all(column) for name, column in split_columns(dataset, split, model).items()}
  return flat(columns)


def evaluated_columns(dataset: Any, split: str, model: Any) -> dict[str, np.ndarray]:
  """Returns `flat_columns` of the test or validation set, in which anomalies have the weight 0.

  The loss of these splits is thus comparable with the training loss, and it covers the same examples as the squared
  error and its baselines.
  """
  columns = flat_columns(dataset, split, model)
  evaluated = dataset if split == "test" else dataset.on_validation
  if evaluated.anomalous is None:
    return columns
  weights = columns.get("weight", np.ones(len(columns["x"]), np.float32))
  return columns | {"weight": np.where(evaluated.anomalous, np.float32(0), weights)}


def flat(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the columns with examples, targets and masks flattened to [N, elements]."""
  return {name: column.reshape(len(column), -1) if name in SHAPED else column for name, column in columns.items()}


def split_columns(dataset: Any, split: str, model: Any) -> dict[str, lazy_arrays.MaybeLazy]:
  """Returns the columns of a split that a model and its loss need: {"x": examples, "label": ..., "mask": ..., ...}.

  `split` is the name of the split, a member of `splits.SPLITS`.
  """
  columns = {"x": getattr(dataset, split), **model_columns(dataset, split, model)}
  return columns | dataset.columns.get(split, {})


def model_columns(dataset: Any, split: str, model: Any) -> dict[str, lazy_arrays.MaybeLazy]:
  """Returns the columns of a split that a model needs besides the examples, such as {"label": class indices}."""
  columns = {}
  if "label" in model.columns:
    labels = getattr(dataset, f"{split}_labels")
    indices = lambda part: class_indices(part, model.labels, len(part))
    columns["label"] = lazy_arrays.map_rows(labels, (), np.int32, indices)
  if "mask" in model.columns:
    examples, mask = getattr(dataset, split), dataset.column(split, "mask")
    mask = np.broadcast_to(True, examples.shape) if mask is None else mask
    columns["mask"] = lazy_arrays.map_rows(mask, model.shape, np.float32, lambda rows: rows.astype(np.float32))
  return columns
