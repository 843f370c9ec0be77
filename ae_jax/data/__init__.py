"""Data sets in memory or in files. `load` returns a `Dataset` from any source."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ae_jax import errors
from ae_jax.data import (
  draws,
  kinds,
  lazy_arrays,
  lengths,
  loss_columns,
  patches,
  placements,
  ranges,
  schema_fit,
  series_folders,
  sources,
  splits,
  standardisation,
  tables,
  windows,
)
from ae_jax.data import scaling as scalings
from ae_jax.data import schema as schemas
from ae_jax.data.columns import class_indices, flat_columns, half_columns, label_values, model_columns
from ae_jax.data.dataset import Dataset
from ae_jax.system import paths

__all__ = ["Dataset", "class_indices", "flat_columns", "half_columns", "label_values", "load", "model_columns"]


# name of an array of examples or targets -> name of one row in messages
_IN_WORDS = {"train": "training example", "validation": "validation example", "test": "testing example"}
_IN_WORDS |= {f"{half}_target": f"target of the {text}" for half, text in _IN_WORDS.items()}


def load(
  name: str,
  path: str,
  range: str,
  one_class: int | str | None = None,
  placement: str = "auto",
  budget_gib: float = 0.0,
  augment: tuple = (),
  kind: str = "auto",
  window: int = 0,
  stride: int = 0,
  scale: str = "none",
  split: str = "auto",
  group: str = "",
  test: float = draws.TEST_SHARE,
  validation: float = 0.0,
  columns: tuple = (),
  missing: str = "error",
  patch: tuple = (),
  **options: Any,
) -> Dataset:
  """Loads the data set that `config.data` describes.

  Training examples that stay in files are checked when they are read. The first, the last and 1,000 random examples
  are also checked here.

  Args:
    name: A key of `sources.SOURCES`, or the name of an image data set of TensorFlow Datasets.
    path: Path of the file or folder to read. For TensorFlow Datasets, "" means the default folder.
    range: Range of the values that the model receives, a key of `ranges.INTERVALS`.
    one_class: Label or class name of the training examples to keep, or None to keep all. All test examples are kept.
      Without a test set in the files, all examples of other classes become test examples.
    placement: Placement of the training examples, a key of `placements.PLACEMENTS`. Test and validation examples are
      kept in memory.
    budget_gib: Memory budget for the training examples in GiB; 0 chooses it automatically (see `placements.decide`).
    augment: Ignored, because augmentation happens during training; see `augmentation.build`.
    kind: Kind of the examples of npz and npy files; see `kinds.with_channels`.
    window: Length of the windows that are cut from a long record; 0 for none. See `windows.cut`.
    stride: Distance between the starts of windows, in steps.
    split: How test and validation examples are drawn from the training examples; see `draws.divide`.
    group: Name of the array with the group of each training example; examples of a group are never in two halves.
    test: Share of the examples that are drawn for the test set, if the data have none.
    validation: Share of the training examples that are drawn for the validation set; 0 for none.
    scale: "none", "standard" or "quantile"; see `standardisation.fit`.
    columns: Kinds of columns of a table; see `schema_fit.parse_kinds`.
    missing: What is done with missing values of a table, one of `schema.MISSING`.
    patch: (height, width) of the patches that are cut from images, or (); see `patches.cut`.
    **options: Keys that only some sources take; see `sources.DEFAULTS`.

  Raises:
    UserError: The data are missing, damaged, or outside the range.
  """
  del augment
  errors.choose(ranges.INTERVALS, range, "data.range")
  kinds.check(kind)
  windows.check(name, kind, window, stride)
  standardisation.check(scale, range)
  chosen = draws.options(split, group, test, validation, window)
  errors.choose(dict.fromkeys(schemas.MISSING), missing, "data.missing")
  column_kinds = schema_fit.parse_kinds(columns)
  patches.check(patch)
  path = str(paths.local_path("config.data.path", path)) if path else ""
  where = f"config.data.name={name!r}" + (f" ({path})" if path else "")
  decide = functools.partial(placements.decide, placement, budget_gib)
  if series_folders.applies(name, path, kind, window, options.get("x", "")):
    arrays = series_folders.read(path, window, options | {"group": group})
  else:
    options |= {"group": group} | ({"columns": columns} if name in tables.FILES else {})
    arrays = sources.read(name, path, options, lambda size: decide(size).lazy)
  draws.check_needed(chosen, arrays, where)
  if window:
    given, shares = splits.present(arrays), {"test": test, "validation": validation}
    arrays["remarks"] = [*arrays["remarks"], *windows.cut(arrays, window, stride, where, **shares)]
    drawn, chosen = draws.of_record(shares, given, arrays), draws.Options()
  else:
    drawn = None
    kinds.apply(arrays, kind, name, where)
    arrays["remarks"] = [*arrays.get("remarks", ()), *lengths.to_masks(arrays, where)]
  table = schema_fit.table_of(arrays, name, column_kinds, missing)
  if table:
    schema_fit.load_and_check(arrays, table, missing, decide, where)
  known = {key: arrays.pop(key, None) for key in ("factor_values", "remarks", "class_names", "held_out")}
  divide = functools.partial(draws.divide, chosen, arrays, known["held_out"], one_class, known["class_names"], where)
  dtype, schema, table_notes = arrays["train"].dtype, None, []
  if table:  # the schema is fitted to the training examples only, so they are selected first
    loss_columns.prepare(arrays, where)
    label, division, class_notes = divide()
    schema, table_notes = schema_fit.encode(arrays, table, missing, where)
  _check_and_convert_floats(arrays, range, where)
  found = _load_and_convert(arrays, dtype, range, decide, where)
  if not table:
    label, division, class_notes = divide()
  patch_notes = patches.cut(arrays, patch, where)
  decision = _place(arrays, decide, where)
  arrays |= {name: _with_range_check(arrays[name], range, name, where) for name in loss_columns.of_examples(arrays)}
  notes = _remarks_on_values(name, arrays["train"], found, range, where)
  if scale != "none":
    arrays["standardisation"] = standardisation.fit(arrays, scale, schema.scaled if schema else None)
  loss_columns.fill_missing(arrays, range, scale != "none")
  return Dataset(
    name,
    range,
    one_class=label,
    streams=decision.streams,
    placement=decision.words,
    factor_values=known["factor_values"] or {},
    remarks=(*(known["remarks"] or ()), *table_notes, *notes, *class_notes, *patch_notes),
    class_names=known["class_names"],
    columns=loss_columns.pop(arrays),
    scaling=None if found.is_usual else found,
    split=drawn or division,
    schema=schema,
    **({"train_labels": None, "test_labels": None} | arrays),
  )


def _check_and_convert_floats(arrays: dict[str, Any], value_range: str, where: str) -> None:
  """Converts floats to float32, in place.

  Raises:
    UserError: An array has a wrong shape or dtype.
  """
  scaled = arrays.pop("scaled_to_unit", False)
  for name in loss_columns.of_examples(arrays):
    arrays[name] = _from_unit(arrays[name], value_range) if scaled else _as_float32(arrays[name])
    _check(_shape_fault(arrays[name], arrays["train"]), name, where)


def _remarks_on_values(
  name: str, train: lazy_arrays.MaybeLazy, found: scalings.Scaling, value_range: str, where: str
) -> list[str]:
  """Returns remarks about the values: how they were converted, and the range of floats in image files."""
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

  `dtype` is that of the stored examples. Returns how the examples were converted.
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


def _place(arrays: dict[str, Any], decide: Callable[[int], placements.Placement], where: str) -> placements.Placement:
  """Reads the arrays that are kept in memory, in place, and returns the placement of the training examples."""
  count = len(arrays["train"])
  if count < 2:
    found = "only one training example" if count else "no training example"
    raise errors.UserError(f"{where}: has {found}; at least 2 are required")
  decision = decide(_total_bytes(arrays, "train"))
  _check_held_out_fits(arrays, decision, where)
  of_train = splits.names(arrays, "train")
  for key in arrays:
    if not (decision.lazy and key in of_train):
      arrays[key] = lazy_arrays.read_all(arrays[key])
  return decision


def _check_held_out_fits(arrays: dict[str, Any], decision: placements.Placement, where: str) -> None:
  """Raises UserError if the test and validation examples that are still in files exceed the memory budget."""
  halves = [half for half in ("test", "validation") if isinstance(arrays.get(half), lazy_arrays.LazyArray)]
  needed = sum(_total_bytes(arrays, half) for half in halves)
  if needed > decision.budget:
    names = " and ".join(halves)
    raise errors.UserError(
      f"{where}: the {names} examples need {placements.format_gib(needed)} of memory, but the budget is "
      f"{placements.format_gib(decision.budget)}; use fewer {names} examples, or raise config.data.budget_gib"
    )


def _total_bytes(arrays: dict[str, Any], half: str) -> int:
  """Returns the size in memory of the examples of a half with their targets and masks, in bytes."""
  return len(arrays[half]) * loss_columns.row_bytes(arrays, half)


def _check(fault: str | None, name: str, where: str) -> None:
  """Raises UserError if there is a fault; `name` is the name of an array of examples or targets."""
  if fault:
    half, _, target = name.partition("_")
    raise errors.UserError(f"{where}: the array of {half} {'targets' if target else 'examples'} {fault}")


def _as_float32(examples: lazy_arrays.MaybeLazy) -> lazy_arrays.MaybeLazy:
  """Returns floating-point examples as float32, and other examples unchanged; a lazy array stays lazy."""
  if not np.issubdtype(examples.dtype, np.floating):
    return examples
  return lazy_arrays.map_rows(examples, examples.shape[1:], np.float32, ranges.as_float32)


def _from_unit(examples: lazy_arrays.MaybeLazy, value_range: str) -> lazy_arrays.MaybeLazy:
  """Returns float32 examples in [0, 1] scaled to the interval to which bytes are scaled; a lazy array stays lazy."""
  low, high, _ = ranges.SPANS[value_range]
  if (low, high) == (0.0, 1.0):
    return examples
  scale = lambda rows: rows * np.float32(high - low) + np.float32(low)
  return lazy_arrays.map_rows(examples, examples.shape[1:], np.float32, scale)


def _with_range_check(
  examples: lazy_arrays.MaybeLazy, value_range: str, name: str, where: str
) -> lazy_arrays.MaybeLazy:
  """Returns examples whose range is checked; raises UserError if it is wrong.

  A few rows of a `LazyArray` are checked here, and each row is checked when it is read. `name` is a key of `_IN_WORDS`.
  """
  fault = functools.partial(ranges.range_error, value_range=value_range)
  if isinstance(examples, lazy_arrays.LazyArray):
    examples = lazy_arrays.checked(examples, fault, f"{where}: {_IN_WORDS[name]}")
    lazy_arrays.examined(examples)
  else:
    _check(fault(examples), name, where)
  return examples


def _shape_fault(examples: lazy_arrays.MaybeLazy, train: lazy_arrays.MaybeLazy) -> str | None:
  """Returns the fault in the shape or dtype of examples, as the end of an error message, or None."""
  if 0 in examples.shape:
    return f"has shape {examples.shape}, so it is empty; provide at least one value per axis"
  if examples.shape[1:] != train.shape[1:] or examples.dtype != train.dtype:
    return (
      f"is {examples.dtype} {examples.shape[1:]}, but the training examples are {train.dtype} {train.shape[1:]}; "
      "use one shape and dtype"
    )
  return None if examples.dtype.kind in "biuf" else f"has dtype {examples.dtype}; convert it to numbers"
