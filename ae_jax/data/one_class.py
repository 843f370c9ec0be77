"""Restricts the training examples to one class, for anomaly detection; test examples of other classes are anomalies."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer

from ae_jax import errors
from ae_jax.data import labels, lazy_arrays, remarks, splits
from ae_jax.system import paths

EARLIER_ALL = -1  # in configs of earlier versions, this value means all labels
_USUAL = 0.75  # minimum fraction of the normal class, if the others look like anomalies
_MOST_SHOWN = 20  # maximum number of labels in a message


def select(
  one_class: int | str | None,
  arrays: dict[str, Any],
  held_out: Bool[np.ndarray, " examples"] | None,
  class_names: Sequence[str] | None,
  where: str,
) -> tuple[int | None, list[str]]:
  """Splits the arrays of a source into training and test set, and keeps only training examples of one class, in place.

  If the source has no test set, the examples in `held_out` and all examples of other classes become the test set. If
  the source has a test set and the training examples have no labels, all training examples are kept, because a user who
  labels only the test examples has already separated the classes.

  Args:
    one_class: Label or class name of the training examples to keep; None keeps all. -1 also keeps all, as in earlier
      versions, unless an example has the label -1. A string such as "3" means label 3, unless it is a class name.
    arrays: The arrays of a source (see `ae_jax.data.sources`).
    held_out: Mask of the examples that become the test set; None if the source has a test set.
    class_names: Name of each label, or None.
    where: Name of the data set for messages, such as "config.data.name='digits'".

  Returns:
    The label that was applied (None: all labels), and notes for the user.

  Raises:
    UserError: The class is unknown, the test examples have no labels, labels are not integers, or a split has labels,
      but no example of the class.
  """
  shown = labels.with_name(one_class, class_names) if isinstance(one_class, int) else repr(one_class)
  key = f"config.data.one_class={shown}"
  labelled = ("train", "test") if held_out is None else ("train",)
  has_labels = arrays.get(f"{labelled[-1]}_labels") is not None
  label = label_of(one_class, arrays, class_names, where) if has_labels else one_class
  is_absent = label == EARLIER_ALL and not _has(label, arrays)
  if label is None or is_absent:
    if held_out is not None:
      splits.hold_out(arrays, held_out, "test")
    return None, [f"{key}: no example has this label, so examples of all labels are used"] if is_absent else []
  if not has_labels:
    raise errors.UserError(
      f"{key}: the test examples of {where} have no labels; add them, or remove config.data.one_class and the "
      "evaluator 'anomaly'"
    )
  for split in (*labelled, "validation"):
    if arrays.get(f"{split}_labels") is not None:
      arrays[f"{split}_labels"] = _checked(arrays[f"{split}_labels"], label, class_names, key, split, where)
  if held_out is not None:
    return label, _split_class(label, arrays, held_out, key, where)
  return label, _drop_others(label, arrays, key)


def usual(values: Integer[np.ndarray, "..."]) -> int | None:
  """Returns the label that most values have, if the others are so few that they look like anomalies; else None."""
  found, counts = np.unique(values, return_counts=True)
  return int(found[counts.argmax()]) if len(found) > 1 and counts.max() >= _USUAL * counts.sum() else None


def of_test_only(
  train_labels: lazy_arrays.MaybeLazy | None, test_labels: lazy_arrays.MaybeLazy | None
) -> Integer[np.ndarray, " classes"]:
  """Returns the labels of test examples that no training example has; none if a split has no labels of classes."""
  if any(each is None or each.dtype.kind == "f" for each in (train_labels, test_labels)):
    return np.empty(0, int)
  return np.setdiff1d(lazy_arrays.read_all(test_labels), lazy_arrays.read_all(train_labels))


def likely(train_labels: lazy_arrays.MaybeLazy | None, test_labels: lazy_arrays.MaybeLazy | None) -> int | None:
  """Returns the label of all training examples if there are test examples of other classes; otherwise None."""
  if not len(of_test_only(train_labels, test_labels)):
    return None
  trained = np.unique(lazy_arrays.read_all(train_labels)).tolist()
  return trained[0] if len(trained) == 1 else None


def hints(
  train_labels: lazy_arrays.MaybeLazy | None,
  test_labels: lazy_arrays.MaybeLazy | None,
  class_names: Sequence[str] | None,
  is_drawn: bool,
) -> list[str]:
  """Returns a list with a note about classes of test examples only, and the flag that makes them anomalies.

  If the test set was drawn (`is_drawn`), there is a note only if all training examples are of one class, because a
  random training set often lacks a rare class.
  """
  absent, label = of_test_only(train_labels, test_labels), likely(train_labels, test_labels)
  if not len(absent) or (label is None and is_drawn):
    return []
  names = [labels.class_name(each, class_names) for each in absent[:_MOST_SHOWN].tolist()]
  more = f" and {len(absent) - len(names):,} more" if len(absent) > len(names) else ""
  flag = remarks.as_flag("data.one_class", "CLASS" if label is None else labels.class_name(label, class_names))
  count = int(np.isin(test_labels, absent).sum())
  has = "has a class" if count == 1 else "have classes"
  return [
    f"config.data.one_class=None: {remarks.counted(count, 'test example')} {has} that no training example has: "
    f"{', '.join(names)}{more}; to measure how well they are found as anomalies of one class, add "
    f"{paths.command_line([flag])}"
  ]


def label_of(
  one_class: int | str | None, arrays: dict[str, Any], class_names: Sequence[str] | None, where: str
) -> int | None:
  """Converts `one_class` (a label or a class name) to a label; raises UserError if it is an unknown name."""
  names = list(class_names or ())
  if isinstance(one_class, str):
    if one_class in names:
      return names.index(one_class)
    if not re.fullmatch(r"-?\d{1,18}", one_class):
      known = errors.list_known(one_class, names) if names else "the classes have no names, so choose an integer label"
      raise errors.UserError(f"config.data.one_class={one_class!r}: is not a class of {where}; {known}")
    one_class = int(one_class)
  is_name = str(one_class) in names and not _has(one_class, arrays)  # such as "10" beside "ant"
  return names.index(str(one_class)) if is_name else one_class


def _split_class(
  label: int, arrays: dict[str, Any], drawn: Bool[np.ndarray, " examples"], key: str, where: str
) -> list[str]:
  """Moves the drawn examples of a class, and all examples of other classes, to the test set, in place.

  If `drawn` contains no example of the class, a fifth of the class is drawn. If there are other classes, the returned
  list has one note about the split.
  """
  normal = arrays["train_labels"] == label
  if normal.sum() < 3:
    found = remarks.counted(int(normal.sum()), "example")
    raise errors.UserError(
      f"{key}: {where} has only {found} of this class; at least 3 are required, 1 for the test set"
    )
  held_out = drawn & normal
  if not held_out.any():
    count = int(normal.sum())
    held_out[normal] = splits.drawn(count, splits.share_of(count, 1 / 5), 0)
  held_out |= ~normal
  groups = arrays.get("train_group")
  if groups is not None:  # all examples of a group must be in the same set
    held_out |= np.isin(groups, groups[held_out])
    if held_out.all():
      raise errors.UserError(
        f"{key}: each group of config.data.group has test examples, so no training example is left; remove "
        "config.data.group"
      )
  tested = int((held_out & normal).sum())
  splits.hold_out(arrays, held_out, "test")
  if normal.all():
    return []
  others = remarks.counted(int((~normal).sum()), "example")
  return [
    f"{key}: the test set has all {others} of other classes, and {tested:,} of this class; "
    f"{remarks.counted(int((~held_out).sum()), 'example')} of this class remain for training"
  ]


def _drop_others(label: int, arrays: dict[str, Any], key: str) -> list[str]:
  """Drops the training examples with other labels, in place; returns a list with a note about it, or []."""
  others = remarks.counted(int((arrays["test_labels"] != label).sum()), "example")
  if arrays.get("train_labels") is None:
    count = len(arrays["train"])
    return [
      f"{key}: the training examples have no labels, so all {count:,} are assumed to have this label; the test set "
      f"has {others} of other labels"
    ]
  kept = arrays["train_labels"] == label
  splits.keep(arrays, "train", kept)
  dropped = int((~kept).sum())
  if not dropped:
    return []
  left_out = remarks.counted(dropped, "training example")
  return [f"{key}: dropped {left_out} of other labels; the test set has {others} of other labels"]


def _has(label: int, arrays: dict[str, Any]) -> bool:
  """Returns whether a training or test example has this integer label."""
  label_arrays = [arrays[name] for name in ("train_labels", "test_labels") if arrays.get(name) is not None]
  return any(
    np.issubdtype(values.dtype, np.integer) and label in lazy_arrays.read_all(values) for values in label_arrays
  )


def _checked(
  values: lazy_arrays.MaybeLazy, label: int, class_names: Sequence[str] | None, key: str, split: str, where: str
) -> Integer[np.ndarray, " examples"]:
  """Reads labels; raises UserError unless they are integers and at least one of them is `label`."""
  if not np.issubdtype(values.dtype, np.integer):
    raise errors.UserError(f"{key}: {where} has labels of dtype {values.dtype}; expected integers or strings")
  values = lazy_arrays.read_all(values)
  if label not in values:
    known = ", ".join(labels.with_name(each, class_names) for each in np.unique(values)[:_MOST_SHOWN].tolist())
    noun = {"train": "training example"}.get(split, f"{split} example")
    raise errors.UserError(f"{key}: no {noun} of {where} has this label; known labels: {known}")
  return values
