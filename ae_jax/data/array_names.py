"""Chooses the arrays of an archive by default names, or by the names in `config.data.x` and `config.data.y`."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ae_jax import errors
from ae_jax.data import lazy_arrays, lengths, loss_columns, splits

Headers = Mapping[str, Callable[[], lazy_arrays.LazyArray]]  # name of an array -> function that reads its header

# {role: array name} for each set of default names: those of Keras' mnist.npz, and those of MedMNIST
_KNOWN = (
  {role: role for role in ("x_train", "x_test", "y_train", "y_test")},
  {"x_train": "train_images", "x_test": "test_images", "y_train": "train_labels", "y_test": "test_labels"},
)
TRAINING = tuple(names["x_train"] for names in _KNOWN)  # default names of the training examples
# {role: array name} of the validation set for each entry of _KNOWN; {} is replaced by each of `splits.VALIDATION_NAMES`
_KNOWN_VALIDATION = (
  {"x_validation": "x_{}", "y_validation": "y_{}"},
  {"x_validation": "{}_images", "y_validation": "{}_labels"},
)
_MOST_LISTED = 8  # maximum number of arrays in a message
# roles of the optional arrays of targets, masks, weights and lengths, such as "mask_train"
OF_LOSS = tuple(f"{name}_{split}" for split in splits.SPLITS for name in (*loss_columns.NAMES, lengths.NAME))


class Options(NamedTuple):
  """The keys of `config.data` for sources whose files contain named arrays."""

  x: str = ""  # name of the array of training examples; "" for the default names
  y: str = ""  # name of the array of training labels; "" for the default names if `x` is "", otherwise no labels
  layout: str = "nhwc"  # order of the axes of images, a key of `array_roles.LAYOUTS`
  group: str = ""  # name of the array with the group of each training example, in any dtype; "" for none
  read_validation: bool = True  # whether a validation set is read


def choose(headers: Headers, chosen: Options, where: str) -> dict[str, str]:
  """Returns the names of the arrays to read, {"x_train": name, "x_test": name, ...}.

  Only the array of x_train must exist.

  Args:
    headers: The arrays that exist.
    chosen: The keys of the config.
    where: Prefix of error messages.

  Raises:
    UserError: `x`, `y` or `group` is not the name of an array, or no array has a default name of training examples.
  """
  return _of_examples(headers, chosen, where) | _loss_names(headers, chosen.read_validation)


def _loss_names(headers: Headers, read_validation: bool) -> dict[str, str]:
  """Returns {role: array name} of the existing targets, masks, weights and lengths, {"mask_train": name, ...}."""
  names = {}
  for role in OF_LOSS:
    column, _, split = role.partition("_")
    words = (split,) if split != "validation" else splits.VALIDATION_NAMES if read_validation else ()
    found = [name for word in words if (name := f"{column}_{word}") in headers]
    if found:
      names[role] = found[0]
  return names


def _of_examples(headers: Headers, chosen: Options, where: str) -> dict[str, str]:
  """Returns the names of the arrays of examples, labels and groups.

  If `x` is given, labels are read only if `y` is given too. Test and validation arrays always have their default names;
  the names of validation arrays are in the result only if the validation examples exist. See `choose` for the
  arguments; the error messages list the arrays.
  """
  x, y, _, group, read_validation = chosen
  for key, value in (("x", x), ("y", y), ("group", group)):
    if value and value not in headers:
      raise errors.UserError(
        f"config.data.{key}={value!r}: {where} has no array of this name; {errors.suggestion(value, headers)}it "
        f"contains {_listing(headers)}"
      )
  known = next(
    (
      names | _validation_names(headers, validation if read_validation else {})
      for names, validation in zip(_KNOWN, _KNOWN_VALIDATION, strict=True)
      if names["x_train"] in headers and x in ("", names["x_train"])
    ),
    None,
  )
  groups = {"group_train": group} if group else {}
  if not x and not known:
    raise errors.UserError(
      f"{where}: contains no array `x_train`; it contains {_listing(headers)}. {_flags_to_paste(headers)}"
    )
  if not x and not y:
    return known | groups
  names = {"x_train": x, **(known or {})}
  if not y:
    return {role: name for role, name in names.items() if role.startswith("x_")} | groups
  return names | {"y_train": y} | groups


def _validation_names(headers: Headers, templates: Mapping[str, str]) -> dict[str, str]:
  """Returns {"x_validation": array name, "y_validation": array name}; {} if there are no validation examples."""
  for word in splits.VALIDATION_NAMES if templates else ():
    names = {role: template.format(word) for role, template in templates.items()}
    if names["x_validation"] in headers:
      return names
  return {}


def _header(read: Callable[[], lazy_arrays.LazyArray]) -> lazy_arrays.LazyArray | None:
  """Reads the header of an array, but not its values; returns None if it is damaged or contains Python objects."""
  try:
    return read()
  except Exception:  # NumPy, zipfile and zlib raise many types for damaged files
    return None


def _listing(headers: Headers) -> str:
  """Returns a string with the names, dtypes and shapes of the first arrays."""
  texts = []
  for name in list(headers)[:_MOST_LISTED]:
    array = _header(headers[name])
    found = "not a readable array" if array is None else f"{array.dtype} {list(array.shape)}"
    texts.append(f"{name} ({found})")
  more = len(headers) - len(texts)
  return ", ".join([*texts, *([f"{more} more"] if more else [])]) or "nothing"


def _flags_to_paste(headers: Headers) -> str:
  """Returns a sentence with the flags that select the arrays of `largest`."""
  names = largest(headers)
  if not names:
    return "Name the examples `x_train`, or set config.data.window if the arrays are recordings [T, C]"
  return "Add " + " ".join(f"--config.data.{key}={name}" for key, name in names.items())


def largest(headers: Headers) -> dict[str, str]:
  """Returns {"x": name of the largest array, "y": name of an array with one value per row of x}.

  Only numeric arrays with at least 3 axes are candidates for x; without one, the result is {}. The key "y" is missing
  if no array has the shape of labels.
  """
  arrays = {name: array for name in headers if (array := _header(headers[name])) is not None}
  candidates = {name: array for name, array in arrays.items() if len(array.shape) >= 3 and array.dtype.kind in "biuf"}
  if not candidates:
    return {}
  x = max(candidates, key=lambda name: math.prod(candidates[name].shape))
  fitting = [name for name, array in arrays.items() if array.shape in ((len(arrays[x]),), (len(arrays[x]), 1))]
  return {"x": x} | ({"y": fitting[0]} if fitting else {})
