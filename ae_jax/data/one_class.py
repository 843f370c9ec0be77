"""Selection of the training examples with one label; test examples with other labels are anomalies."""

from typing import Any

import numpy as np
from jaxtyping import Integer

from ae_jax import errors
from ae_jax.data import lazy_arrays, remarks

EARLIER_ALL = -1  # meant "all labels" in configs of earlier versions


def keep(label: int | None, arrays: dict[str, Any], where: str) -> tuple[int | None, list[str]]:
  """Drops the training examples with other labels from the arrays of a source, in place.

  If the training examples have no labels, all are kept, because a user who labels only the test examples has already
  separated the classes. If no example has the label -1, it means all labels, as in earlier versions.

  Args:
    label: The label of the training examples to keep; None keeps all.
    arrays: The arrays of a source (see `ae_jax.data.sources`).
    where: Name of the data set for messages, such as "config.data.name='digits'".

  Returns:
    The label that was applied (None: all labels), and remarks for the user.

  Raises:
    UserError: The test examples have no labels, labels are not integers, or the training or test set has no example
      with the label.
  """
  if label is None:
    return None, []
  key = f"config.data.one_class={label!r}"
  if label == EARLIER_ALL and not _has(label, arrays):
    return None, [f"{key}: no example has this label, so examples of all labels are used"]
  if arrays.get("test_labels") is None:
    raise errors.UserError(
      f"{key}: the test examples of {where} have no labels; add them, or remove config.data.one_class and the "
      "evaluator 'anomaly'"
    )
  for half in ("train", "test"):
    if arrays.get(f"{half}_labels") is not None:
      arrays[f"{half}_labels"] = _checked(arrays[f"{half}_labels"], label, key, half, where)
  return label, _drop_others(label, arrays, key)


def _drop_others(label: int, arrays: dict[str, Any], key: str) -> list[str]:
  """Drops the training examples with other labels, in place, and returns remarks about their number."""
  others = remarks.counted(int((arrays["test_labels"] != label).sum()), "example")
  if arrays.get("train_labels") is None:
    count = len(arrays["train"])
    return [
      f"{key}: the training examples have no labels, so all {count:,} are assumed to have this label; the test set "
      f"has {others} of other labels"
    ]
  kept = arrays["train_labels"] == label
  for name in ("train", "train_labels", "train_factors"):
    if name in arrays:
      arrays[name] = lazy_arrays.take(arrays[name], kept)
  dropped = int((~kept).sum())
  if not dropped:
    return []
  left_out = remarks.counted(dropped, "training example")
  return [f"{key}: dropped {left_out} of other labels; the test set has {others} of other labels"]


def _has(label: int, arrays: dict[str, Any]) -> bool:
  """Returns whether a training or test example has this integer label."""
  label_arrays = [arrays[name] for name in ("train_labels", "test_labels") if arrays.get(name) is not None]
  return any(
    np.issubdtype(labels.dtype, np.integer) and label in lazy_arrays.read_all(labels) for labels in label_arrays
  )


def _checked(
  labels: lazy_arrays.MaybeLazy, label: int, key: str, half: str, where: str
) -> Integer[np.ndarray, " examples"]:
  """Returns the labels in memory; raises UserError unless they are integers and contain the label."""
  if not np.issubdtype(labels.dtype, np.integer):
    raise errors.UserError(f"{key}: {where} has labels of dtype {labels.dtype}; expected integers")
  labels = lazy_arrays.read_all(labels)
  if label not in labels:
    known = ", ".join(map(str, np.unique(labels)[:20]))
    noun = {"train": "training example", "test": "test example"}[half]
    raise errors.UserError(f"{key}: no {noun} of {where} has this label; known labels: {known}")
  return labels
