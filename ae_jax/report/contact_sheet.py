"""A picture of random examples of a data set."""

import pathlib

import numpy as np

from ae_jax.data import dataset as datasets
from ae_jax.data import lazy_arrays, ranges
from ae_jax.evaluators import display, figures
from ae_jax.report import pictures, sprites

_PER_CLASS, _MOST_CLASSES, _UNLABELLED = 10, 10, 49  # examples per class, classes, and examples without classes


def draw(path: pathlib.Path, dataset: datasets.Dataset, title: str) -> None:
  """Saves random training examples as a PNG file: one row for each class, or a grid if there are no classes.

  Large images are shown at a fraction of their size.
  """
  generator, labels = np.random.default_rng(0), _labels(dataset)
  classes = np.unique(labels)[:_MOST_CLASSES]
  rows = {}
  for label in classes:
    members = np.flatnonzero(labels == label)
    size = min(len(members), _PER_CLASS if len(classes) > 1 else _UNLABELLED)
    stored = lazy_arrays.read_rows(dataset.train, np.sort(generator.choice(members, size, replace=False)))
    examples = ranges.normalise(stored, dataset.value_range)
    rows[dataset.class_name(label)] = display.shrunk(examples, sprites.SIDE) if examples.ndim == 4 else examples
  if len(classes) > 1:
    figure = figures.ExampleRows(title, {name: _padded(examples, dataset.span.low) for name, examples in rows.items()})
  else:
    figure = figures.Gallery(title, next(iter(rows.values())))
  figure = display.drawable(figure, dataset.kind, dataset.element_names, dataset.value_label)
  pictures.draw(path, figure, dataset.value_range)


def _labels(dataset: datasets.Dataset) -> np.ndarray:
  """Returns the training labels; zeros if there are none."""
  labels = dataset.train_labels
  is_missing = labels is None or labels.dtype.kind == "f"  # floating-point labels are not classes
  return np.zeros(len(dataset.train), int) if is_missing else lazy_arrays.read_all(labels)


def _padded(examples: np.ndarray, value: float) -> np.ndarray:
  """Returns the examples, padded to `_PER_CLASS` examples; the elements of the added examples are `value`."""
  missing = np.full((_PER_CLASS - len(examples), *examples.shape[1:]), value, examples.dtype)
  return np.concatenate([examples, missing])
