"""Converts class labels from any stored form (numbers, strings, one-hot) to integers with optional class names."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ae_jax import errors

MOST_CLASSES = 1_000  # maximum number of class names, and of columns of one-hot labels
LARGEST_LABEL = 1024  # maximum number of bytes per label; longer strings are not labels
_LONGEST_NUMBER = 9  # maximum number of digits of a class name that is used as a label
_LARGEST_WHOLE = 2**53  # float64 does not represent all larger whole numbers
_WITHOUT_LABELS = "--config.data.x=NAME without config.data.y reads the examples without labels"
_FIX = f"store one integer or string per example, or one-hot rows with a single 1; {_WITHOUT_LABELS}"

Labels = dict[str, Shaped[np.ndarray, " examples"]]


def as_integers(arrays: Mapping[str, np.ndarray], where: str) -> tuple[Labels, tuple[str, ...] | None, list[str]]:
  """Converts labels to integers [N], and returns them with the class names and notes for the user.

  Integers are unchanged. Booleans and whole-number floats become integers. For one-hot rows [N, K], the label is the
  position of the 1; labels [N, 1] become [N]. Strings (also bytes in UTF-8) are numbered by `numbered`. Floats with
  fractions are not class labels; they are returned unchanged with a note.

  Args:
    arrays: {array name: labels} with the labels of all splits of a data set.
    where: Prefix of error messages.

  Returns:
    {array name: labels [N]}, the name of each label (None if the labels have no names), and notes.

  Raises:
    UserError: An array has another shape or dtype, only some arrays contain strings, or there are too many class names.
  """
  columns = {name: _column(values, name, where) for name, values in arrays.items()}
  texts = [name for name, values in columns.items() if values.dtype.kind in "US"]
  if not texts:
    results = {name: _whole(values) for name, values in columns.items()}
    fractions = [name for name, values in results.items() if values.dtype.kind == "f"]
    unused = "contains numbers with fractions, so it is not used as class labels"
    return results, None, [f"{where}: `{name}` {unused}" for name in fractions]
  return *_of_texts(columns, texts, where), []


def _of_texts(columns: Labels, texts: Sequence[str], where: str) -> tuple[Labels, tuple[str, ...] | None]:
  """Converts strings to integers, and returns them with the class names; `texts` names the arrays with strings."""
  if len(texts) < len(columns):
    other = next(name for name in columns if name not in texts)
    raise errors.UserError(
      f"{where}: `{texts[0]}` contains strings, but `{other}` has dtype {columns[other].dtype}; store the labels of "
      "both splits in one form"
    )
  decoded = {name: _decoded(values, name, where) for name, values in columns.items()}
  names = np.unique(np.concatenate(list(decoded.values())))
  if len(names) > MOST_CLASSES:
    raise errors.UserError(
      f"{where}: `{texts[0]}` has {len(names):,} different strings; the limit is {MOST_CLASSES:,} classes. If "
      f"they are not class labels, {_WITHOUT_LABELS}"
    )
  label_of, class_names = numbered(names.tolist())
  labels = np.array([label_of[name] for name in names.tolist()])
  return {key: labels[np.searchsorted(names, values)] for key, values in decoded.items()}, class_names


def numbered(names: Collection[str]) -> tuple[dict[str, int], tuple[str, ...] | None]:
  """Returns {class name: label}, and the class names in the order of their labels 0, 1, ...

  The label of a class is its position in the sorted names. If all names are distinct whole numbers of at most 9 digits,
  these numbers are the labels, and the second result is None.
  """
  ordered = sorted(set(names))
  if all(name.isascii() and name.isdecimal() and len(name) <= _LONGEST_NUMBER for name in ordered):
    numbers = {name: int(name) for name in ordered}
    if len(set(numbers.values())) == len(numbers):  # "1" and "01" are two classes
      return numbers, None
  return {name: position for position, name in enumerate(ordered)}, tuple(ordered)


def class_name(label: Any, class_names: Sequence[str] | None) -> str:
  """Returns the name of a label, or str(label) if it has no name."""
  return class_names[label] if class_names and 0 <= label < len(class_names) else str(label)


def class_in_words(label: Any, class_names: Sequence[str] | None) -> str:
  """Returns the name of a class or, if it has none, its label with the word "class", such as "class 3"."""
  name = class_name(label, class_names)
  return f"class {name}" if name == str(label) else name


def with_name(label: Any, class_names: Sequence[str] | None) -> str:
  """Returns a label with its name in parentheses, such as "3 (good)", or only the label if it has no name."""
  name = class_name(label, class_names)
  return str(label) if name == str(label) else f"{label} ({name})"


def check(shape: tuple[int, ...], dtype: np.dtype, name: str, where: str) -> None:
  """Raises UserError if an array of this shape and dtype cannot contain labels."""
  columns = shape[1] if len(shape) == 2 else 1
  numeric_or_text = dtype.kind in "biuf" or (dtype.kind in "US" and columns == 1)
  valid = len(shape) in (1, 2) and columns <= MOST_CLASSES and numeric_or_text and dtype.itemsize <= LARGEST_LABEL
  if not valid:
    raise errors.UserError(
      f"{where}: `{name}` has dtype {dtype} and shape {list(shape)}, so it cannot be class labels; {_FIX}"
    )


def _column(values: np.ndarray, name: str, where: str) -> Shaped[np.ndarray, " examples"]:
  """Converts labels [N], [N, 1] or one-hot rows [N, K] to labels [N]."""
  check(values.shape, values.dtype, name, where)
  if values.ndim == 1:
    return values
  if values.shape[1] == 1:
    return values[:, 0]
  ones = values == 1
  if not ((ones | (values == 0)).all() and (ones.sum(1) == 1).all()):
    raise errors.UserError(
      f"{where}: `{name}` has dtype {values.dtype} and shape {list(values.shape)}, so its rows must be one-hot; {_FIX}"
    )
  return ones.argmax(1)


def _whole(values: Shaped[np.ndarray, " examples"]) -> Shaped[np.ndarray, " examples"]:
  """Converts booleans, and floats that are all whole numbers, to int64; returns other labels unchanged."""
  if values.dtype.kind == "b":
    return values.astype(np.int64)
  if values.dtype.kind != "f" or not (np.isfinite(values) & (np.abs(values) <= _LARGEST_WHOLE)).all():
    return values
  return values.astype(np.int64) if (values == np.rint(values)).all() else values


def _decoded(values: Shaped[np.ndarray, " examples"], name: str, where: str) -> Shaped[np.ndarray, " examples"]:
  """Decodes UTF-8 bytes to strings; strings are unchanged."""
  if values.dtype.kind == "U":
    return values
  try:
    return np.char.decode(values, "utf-8")
  except UnicodeDecodeError:
    raise errors.UserError(f"{where}: `{name}` contains bytes that are not UTF-8; store strings or integers") from None
