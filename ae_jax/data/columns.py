"""The named columns of a batch besides the examples: what a model may be conditioned on."""

import numpy as np

from ae_jax import errors
from ae_jax.data import lazy_arrays

MOST_CLASSES = 1_000  # that a model can be conditioned on


def class_numbers(labels, known: tuple[int, ...], count: int) -> np.ndarray:
  """Returns the positions of labels among the known ones, int32 [count].

  Args:
    labels: integers [count], or one integer for all.
    known: the distinct labels, sorted.
    count: number of examples.

  Raises:
    UserError: if a label is no integer or unknown, or if there are not `count` of them.
  """
  labels = np.asarray(labels)
  if not np.issubdtype(labels.dtype, np.integer) or labels.shape not in ((), (count,)):
    raise errors.UserError(
      f"label={labels.dtype} {labels.shape}: must be an integer, or one for each of the {count} examples"
    )
  unknown = np.setdiff1d(labels, known)
  if len(unknown):
    few = ", ".join(map(str, known[:20])) + (", ..." if len(known) > 20 else "")
    raise errors.UserError(f"label={unknown[0]}: is none of the labels that were trained on: {few}")
  return np.broadcast_to(np.searchsorted(known, labels), (count,)).astype(np.int32)


def label_values(dataset, where: str) -> tuple[int, ...]:
  """Returns the distinct training labels of a data set, sorted.

  Args:
    dataset: `data.Dataset`.
    where: the beginning of messages: what needs the labels.

  Raises:
    UserError: if a half has no integer labels, if there are too many labels, or if a test label is not trained on.
  """
  for half, labels in {"training": dataset.train_labels, "test": dataset.test_labels}.items():
    if labels is None or not np.issubdtype(labels.dtype, np.integer):
      raise errors.UserError(
        f"{where} needs the column 'label', and config.data.name={dataset.name!r} has no integer labels of the {half} "
        "examples; add them to the data, or choose a model without labels"
      )
  known = np.unique(lazy_arrays.loaded(dataset.train_labels))
  if len(known) > MOST_CLASSES:
    raise errors.UserError(f"{where}: {len(known):,} different labels; at most {MOST_CLASSES:,} can be conditioned on")
  found = tuple(map(int, known))
  class_numbers(dataset.test_labels, found, len(dataset.test))
  return found


def flat_columns(dataset, half: str, model) -> dict:
  """Returns the columns of a half in memory, with examples of one axis: {"x": [N, elements], ...}."""
  found = {name: lazy_arrays.loaded(column) for name, column in of_half(dataset, half, model).items()}
  return {**found, "x": found["x"].reshape(len(found["x"]), -1)}


def of_half(dataset, half: str, model) -> dict:
  """Returns the columns of the "train" or "test" half that a model needs: {"x": examples, ...}."""
  found = {"x": getattr(dataset, half)}
  if "label" in model.columns:
    labels = getattr(dataset, f"{half}_labels")
    numbers = lambda part: class_numbers(part, model.labels, len(part))
    found["label"] = lazy_arrays.mapped(labels, (), np.int32, numbers)
  return found
