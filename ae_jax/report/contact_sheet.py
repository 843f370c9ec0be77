"""A picture of random examples of a data set."""

import pathlib

import numpy as np

from ae_jax.data import dataset as datasets
from ae_jax.data import lazy_arrays, ranges
from ae_jax.evaluators import display, figures
from ae_jax.report import pictures, sprites

_PER_CLASS, _MOST_CLASSES, _UNLABELLED = 10, 10, 49  # examples per class, classes, and examples without classes


def draw(path: pathlib.Path, dataset: datasets.Dataset, source: str) -> None:
  """Saves random training examples as a PNG file: one row for each class, or a grid if there are no classes.

  Classes that only the test set has, such as defects, are rows of test examples. Large images are shown at a fraction
  of their size. Values that are missing in the data are left out, and hatched in images.

  Args:
    path: The PNG file.
    dataset: The data set.
    source: Name of the data, for the title.
  """
  generator, labels = np.random.default_rng(0), _labels(dataset)
  members = {dataset.class_name(label): ("train", labels == label) for label in np.unique(labels)}
  test_only = {f"{dataset.class_name(label)} (test)": label for label in dataset.classes_of_test_only}
  others = {name: ("test", dataset.test_labels == label) for name, label in test_only.items()}
  members = dict([*members.items()][: max(1, _MOST_CLASSES - len(others))]) | others
  rows, has_gaps = {}, False
  for name, (split, is_member) in [*members.items()][:_MOST_CLASSES]:
    indices = np.flatnonzero(is_member)
    size = min(len(indices), _PER_CLASS if len(members) > 1 else _UNLABELLED)
    rows[name], is_incomplete = _marked(dataset, split, np.sort(generator.choice(indices, size, replace=False)))
    has_gaps |= is_incomplete
  title = f"training examples of {source}{', and test examples of other classes' if others else ''}"
  if has_gaps:
    title += f"; {'hatched' if display.is_hatched(dataset.kind) else 'left out'}: missing in the data"
  if len(rows) > 1:
    absent = dataset.span.low if display.is_hatched(dataset.kind) else np.nan  # plots of NaN are empty
    figure = figures.ExampleRows(title, {name: _padded(examples, absent) for name, examples in rows.items()})
  else:
    figure = figures.Gallery(title, next(iter(rows.values())))
  figure = display.drawable(figure, dataset.kind, dataset.element_names, dataset.value_label, dataset.channel_names)
  pictures.draw(path, figure, dataset.value_range)


def _marked(dataset: datasets.Dataset, split: str, chosen: np.ndarray) -> tuple[np.ndarray, bool]:
  """Returns examples of a split at the positions `chosen`, with marked gaps, and whether there are gaps."""
  examples, mask = getattr(dataset, split), dataset.column(split, "mask")
  examples = ranges.normalise(lazy_arrays.read_rows(examples, chosen), dataset.value_range)
  observed = display.observed(dataset.schema, examples, mask if mask is None else lazy_arrays.read_rows(mask, chosen))
  is_image = examples.ndim == 4
  examples = display.shrunk(examples, sprites.SIDE) if is_image else examples
  if observed is None:
    return examples, False
  observed = display.shrunk(observed.astype(np.float32), sprites.SIDE) >= 0.5 if is_image else observed
  return display.marked(examples, observed, dataset.kind, dataset.span), True


def _labels(dataset: datasets.Dataset) -> np.ndarray:
  """Returns the training labels; zeros if there are none."""
  labels = dataset.train_labels
  is_missing = labels is None or labels.dtype.kind == "f"  # floating-point labels are not classes
  return np.zeros(len(dataset.train), int) if is_missing else lazy_arrays.read_all(labels)


def _padded(examples: np.ndarray, value: float) -> np.ndarray:
  """Returns the examples, padded to `_PER_CLASS` examples; the elements of the added examples are `value`."""
  missing = np.full((_PER_CLASS - len(examples), *examples.shape[1:]), value, examples.dtype)
  return np.concatenate([examples, missing])
