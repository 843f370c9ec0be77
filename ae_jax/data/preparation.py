"""Preparation of the arrays of a source: conversion to the data range, placement, and checks of the values."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ae_jax import errors
from ae_jax.data import draws, lazy_arrays, loss_columns, placements, ranges, schema_fit, splits
from ae_jax.data import scaling as scalings
from ae_jax.data.schema import Schema

# name of an array of examples or targets -> how messages name one row of it
_IN_WORDS = {"train": "training example", "validation": "validation example", "test": "testing example"}
_OF_TABLE = {*_IN_WORDS, *(f"{split}_mask" for split in _IN_WORDS)}  # arrays that `schema_fit.encode` returns
_IN_WORDS |= {f"{split}_target": f"target of the {text}" for split, text in _IN_WORDS.items()}


class Converted(NamedTuple):
  """Result of `convert`."""

  scaling: scalings.Scaling  # how the values of the examples were converted
  schema: Schema | None  # columns of a table
  one_class: int | None  # label of all training examples; None: they may have any label
  split: draws.Split | None  # how test and validation examples were drawn
  remarks: list[str]  # for the user


def convert(
  arrays: dict[str, Any],
  table: schema_fit.RawTable | None,
  *,
  missing: str,
  value_range: str,
  divide: Callable[[], tuple[int | None, draws.Split | None, list[str]]],
  decide: Callable[[int], placements.Placement],
  where: str,
) -> Converted:
  """Splits the examples, and converts them to uint8 or float32 in the data range, in place.

  A table is split first, because its schema is fitted to the training rows only. Other examples are converted first,
  because the range of the values is determined from all examples.

  Args:
    arrays: Arrays of a source.
    table: Columns of a table; None for other examples.
    missing: `config.data.missing`.
    value_range: A key of `ranges.INTERVALS`.
    divide: Function that splits the examples, `draws.divide` with its arguments bound.
    decide: Function that maps the size of the training examples in bytes to their placement.
    where: Prefix of messages.
  """
  dtype = arrays["train"].dtype
  if table is None:
    _check_and_convert_floats(arrays, value_range, where)
    found = _load_and_convert(arrays, dtype, value_range, decide, where)
    label, division, notes = divide()
    return Converted(found, None, label, division, notes)
  row_notes = schema_fit.load_and_check(arrays, table, missing, decide, where)
  loss_columns.prepare(arrays, where)
  in_memory = isinstance(arrays["train"], np.ndarray)
  if in_memory:  # the division then copies no raw rows; their examples need half of the memory
    arrays |= {split: lazy_arrays.of_memory(arrays[split]) for split in splits.present(arrays)}
  label, division, notes = divide()
  schema, table_notes = schema_fit.encode(arrays, table, missing, where)
  if in_memory:
    arrays |= {name: lazy_arrays.read_all(array) for name, array in arrays.items() if name in _OF_TABLE}
  _check_and_convert_floats(arrays, value_range, where)
  found = _load_and_convert(arrays, dtype, value_range, decide, where)
  return Converted(found, schema, label, division, [*table_notes, *row_notes, *notes])


def check_values(arrays: dict[str, Any], found: scalings.Scaling, value_range: str, name: str, where: str) -> list[str]:
  """Checks the range of the examples and targets, and returns notes about their values.

  A `LazyArray` is replaced by one that also checks each row when the row is read.

  Args:
    arrays: Arrays of a source.
    found: Conversion that was applied to the examples.
    value_range: A key of `ranges.INTERVALS`.
    name: Name of the source.
    where: Prefix of messages.

  Raises:
    UserError: A value is outside the range.
  """
  arrays |= {
    array: _with_range_check(arrays[array], value_range, array, where) for array in loss_columns.of_examples(arrays)
  }
  return _notes_on_values(name, arrays["train"], found, value_range, where)


def _check_and_convert_floats(arrays: dict[str, Any], value_range: str, where: str) -> None:
  """Converts floats to float32, in place.

  Raises:
    UserError: An array is empty, does not contain numbers, or differs from the training examples in shape or dtype.
  """
  scaled = arrays.pop("scaled_to_unit", False)
  for name in loss_columns.of_examples(arrays):
    arrays[name] = _from_unit(arrays[name], value_range) if scaled else _as_float32(arrays[name])
    _check(_shape_fault(arrays[name], arrays["train"]), name, where)


def _notes_on_values(
  name: str, train: lazy_arrays.MaybeLazy, found: scalings.Scaling, value_range: str, where: str
) -> list[str]:
  """Returns a list with a note about an unusual conversion, or about the range of floats in image files; else []."""
  if not found.is_usual:
    return [f"{where}: the examples are {found.in_words(value_range)}"]
  if name != "folder" or train.dtype == np.uint8:
    return []
  values = lazy_arrays.examined(train)
  return [f"{where}: the values of the training examples are from {values.min():.4g} to {values.max():.4g}"]


def _load_and_convert(
  arrays: dict[str, Any], dtype: np.dtype, value_range: str, decide: Callable[[int], placements.Placement], where: str
) -> scalings.Scaling:
  """Reads the arrays that fit in memory, and converts the examples to uint8 or float32, in place.

  `dtype` is the dtype of the stored examples. The returned `Scaling` describes the conversion.
  """
  names = loss_columns.of_examples(arrays)
  decision = decide(_total_bytes(arrays, "train"))
  _check_held_out_fits(arrays, decision, where)
  if not decision.lazy:
    arrays.update({key: lazy_arrays.load_all(values) for key, values in arrays.items()})
  loss_columns.prepare(arrays, where)
  found = scalings.recognise([arrays[name] for name in names], dtype, value_range)
  if found.is_usual:
    return found
  for name in names:
    examples = arrays[name]
    if isinstance(examples, lazy_arrays.LazyArray):
      where_row = (
        f"{where}: in a part that was not examined (config.data.placement=memory examines all), {_IN_WORDS[name]}"
      )
      examples = lazy_arrays.checked(examples, found.fault, where_row)
    convert = functools.partial(found.convert, value_range=value_range)
    arrays[name] = lazy_arrays.map_rows(examples, examples.shape[1:], found.target, convert)
  return found


def place(arrays: dict[str, Any], decide: Callable[[int], placements.Placement], where: str) -> placements.Placement:
  """Reads all arrays except those that stay in files, in place, and returns the placement of the training examples."""
  count = len(arrays["train"])
  if count < 2:
    found = "only one training example" if count else "no training example"
    raise errors.UserError(f"{where}: has {found}; at least 2 are required")
  decision = decide(_total_bytes(arrays, "train"))
  _check_held_out_fits(arrays, decision, where)
  of_train = splits.names(arrays, "train")
  for key, array in arrays.items():
    if not (decision.lazy and key in of_train):
      arrays[key] = lazy_arrays.read_all(array)
  return decision


def _check_held_out_fits(arrays: dict[str, Any], decision: placements.Placement, where: str) -> None:
  """Raises UserError if the test and validation examples that are still in files exceed the memory budget."""
  in_files = [split for split in ("test", "validation") if isinstance(arrays.get(split), lazy_arrays.LazyArray)]
  needed = sum(_total_bytes(arrays, split) for split in in_files)
  if needed > decision.budget:
    names = " and ".join(in_files)
    raise errors.UserError(
      f"{where}: the {names} examples need {placements.format_gib(needed)} of memory, but the budget is "
      f"{placements.format_gib(decision.budget)}; use fewer {names} examples, or raise config.data.budget_gib"
    )


def _total_bytes(arrays: dict[str, Any], split: str) -> int:
  """Returns the size in bytes of the examples of `split`, including their targets and masks."""
  return len(arrays[split]) * loss_columns.row_bytes(arrays, split)


def _check(fault: str | None, name: str, where: str) -> None:
  """Raises UserError if `fault` is not None; `name` is the array of examples or targets that has the fault."""
  if fault:
    split, _, target = name.partition("_")
    raise errors.UserError(f"{where}: the array of {split} {'targets' if target else 'examples'} {fault}")


def _as_float32(examples: lazy_arrays.MaybeLazy) -> lazy_arrays.MaybeLazy:
  """Converts floating-point examples to float32, returns other examples unchanged; a lazy array stays lazy."""
  if not np.issubdtype(examples.dtype, np.floating):
    return examples
  return lazy_arrays.map_rows(examples, examples.shape[1:], np.float32, ranges.as_float32)


def _from_unit(examples: lazy_arrays.MaybeLazy, value_range: str) -> lazy_arrays.MaybeLazy:
  """Scales float32 examples in [0, 1] to the interval `ranges.SPANS[value_range]`; a lazy array stays lazy."""
  if ranges.SPANS[value_range][:2] == (0.0, 1.0):
    return examples
  scale = functools.partial(ranges.from_unit, value_range=value_range)
  return lazy_arrays.map_rows(examples, examples.shape[1:], np.float32, scale)


def _with_range_check(
  examples: lazy_arrays.MaybeLazy, value_range: str, name: str, where: str
) -> lazy_arrays.MaybeLazy:
  """Returns the examples; raises UserError if a value is outside the range.

  For a `LazyArray`, the rows at `lazy_arrays.probe_indices` are checked here, and the result checks each row when it is
  read. `name` is a key of `_IN_WORDS`.
  """
  fault = functools.partial(ranges.range_error, value_range=value_range)
  if isinstance(examples, lazy_arrays.LazyArray):
    examples = lazy_arrays.checked(examples, fault, f"{where}: {_IN_WORDS[name]}")
    lazy_arrays.examined(examples)
  else:
    _check(fault(examples), name, where)
  return examples


def _shape_fault(examples: lazy_arrays.MaybeLazy, train: lazy_arrays.MaybeLazy) -> str | None:
  """Returns the end of an error message if the shape or dtype of the examples is invalid, otherwise None."""
  if 0 in examples.shape:
    return f"has shape {examples.shape}, so it is empty; provide at least one value per axis"
  if examples.shape[1:] != train.shape[1:] or examples.dtype != train.dtype:
    return (
      f"is {examples.dtype} {examples.shape[1:]}, but the training examples are {train.dtype} {train.shape[1:]}; "
      "use one shape and dtype"
    )
  return None if examples.dtype.kind in "biuf" else f"has dtype {examples.dtype}; convert it to numbers"
