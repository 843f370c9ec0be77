"""Data sets in memory or in files. `load` returns a `Dataset` from any source."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ae_jax import errors
from ae_jax.data import kinds, lazy_arrays, placements, ranges, sources, standardisation, windows
from ae_jax.data import one_class as one_classes
from ae_jax.data import scaling as scalings
from ae_jax.data.columns import class_indices, flat_columns, half_columns, label_values
from ae_jax.data.dataset import Dataset
from ae_jax.system import paths

__all__ = ["Dataset", "class_indices", "flat_columns", "half_columns", "label_values", "load"]


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
    placement: Placement of the training examples, a key of `placements.PLACEMENTS`. Test examples are kept in memory.
    budget_gib: Memory budget for the training examples in GiB; 0 chooses it automatically (see `placements.decide`).
    augment: Ignored, because augmentation happens during training; see `augmentation.build`.
    kind: Kind of the examples of npz and npy files; see `kinds.with_channels`.
    window: Length of the windows that are cut from a long record; 0 for none. See `windows.cut`.
    stride: Distance between the starts of windows, in steps.
    scale: "none", or "standard" to standardise the examples; see `standardisation.standardise`.
    **options: Keys that only some sources take; see `sources.DEFAULTS`.

  Raises:
    UserError: The data are missing, damaged, or outside the range.
  """
  del augment
  errors.choose(ranges.INTERVALS, range, "data.range")
  kinds.check(kind)
  windows.check(name, kind, window, stride)
  standardisation.check(scale, range)
  path = str(paths.local_path("config.data.path", path)) if path else ""
  where = f"config.data.name={name!r}" + (f" ({path})" if path else "")
  arrays = sources.read(name, path, options)
  if window:
    arrays["remarks"] = [*arrays["remarks"], *windows.cut(arrays, window, stride, where)]
  else:
    kinds.apply(arrays, kind, name, where)
  known = {key: arrays.pop(key, None) for key in ("factor_values", "remarks", "class_names", "held_out")}
  dtype = _check_and_convert_floats(arrays, range, where)
  decide = functools.partial(placements.decide, placement, budget_gib)
  found = _load_and_convert(arrays, dtype, range, decide, where)
  label, class_notes = one_classes.select(one_class, arrays, known["held_out"], known["class_names"], where)
  decision = _place(arrays, decide, where)
  arrays |= {half: _with_range_check(arrays[half], range, half, where) for half in ("train", "test")}
  notes = _remarks_on_values(name, arrays["train"], found, range, where)
  if scale == "standard":
    arrays["standardisation"] = standardisation.standardise(arrays)
  return Dataset(
    name,
    range,
    one_class=label,
    streams=decision.streams,
    placement=decision.words,
    factor_values=known["factor_values"] or {},
    remarks=(*(known["remarks"] or ()), *notes, *class_notes),
    class_names=known["class_names"],
    scaling=None if found.is_usual else found,
    **({"train_labels": None, "test_labels": None} | arrays),
  )


def _check_and_convert_floats(arrays: dict[str, Any], value_range: str, where: str) -> np.dtype:
  """Converts floats to float32, in place, and returns the stored dtype of the training examples.

  Raises:
    UserError: An array has a wrong shape or dtype.
  """
  scaled, dtype = arrays.pop("scaled_to_unit", False), arrays["train"].dtype
  for half in ("train", "test"):
    if half in arrays:
      arrays[half] = _from_unit(arrays[half], value_range) if scaled else _as_float32(arrays[half])
      _check(_shape_fault(arrays[half], arrays["train"]), half, where)
  return dtype


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
  halves = [half for half in ("train", "test") if half in arrays]
  decision = decide(lazy_arrays.total_bytes(arrays["train"]))
  _check_test_fits(arrays, decision, where)
  if not decision.lazy:
    arrays.update({key: lazy_arrays.load_all(values) for key, values in arrays.items()})
  found = scalings.recognise([arrays[half] for half in halves], dtype, value_range)
  if found.is_usual:
    return found
  for half in halves:
    examples = arrays[half]
    if isinstance(examples, lazy_arrays.LazyArray):
      where_row = (
        f"{where}: in a part that was not examined (config.data.placement=memory examines all), {half}ing example"
      )
      examples = lazy_arrays.checked(examples, found.fault, where_row)
    convert = functools.partial(found.convert, value_range=value_range)
    arrays[half] = lazy_arrays.map_rows(examples, examples.shape[1:], found.target, convert)
  return found


def _place(arrays: dict[str, Any], decide: Callable[[int], placements.Placement], where: str) -> placements.Placement:
  """Reads the arrays that are kept in memory, in place, and returns the placement of the training examples."""
  count = len(arrays["train"])
  if count < 2:
    found = "only one training example" if count else "no training example"
    raise errors.UserError(f"{where}: has {found}; at least 2 are required")
  decision = decide(lazy_arrays.total_bytes(arrays["train"]))
  _check_test_fits(arrays, decision, where)
  for key, array in arrays.items():
    if not (decision.lazy and key in ("train", "train_labels")):
      arrays[key] = lazy_arrays.read_all(array)
  return decision


def _check_test_fits(arrays: dict[str, Any], decision: placements.Placement, where: str) -> None:
  """Raises UserError if the test examples are still in files and exceed the memory budget."""
  examples = arrays.get("test")
  if not isinstance(examples, lazy_arrays.LazyArray):
    return
  needed = lazy_arrays.total_bytes(examples)
  if needed > decision.budget:
    raise errors.UserError(
      f"{where}: the test examples need {placements.format_gib(needed)} of memory, but the budget is "
      f"{placements.format_gib(decision.budget)}; use fewer test examples, or raise config.data.budget_gib"
    )


def _check(fault: str | None, half: str, where: str) -> None:
  if fault:
    raise errors.UserError(f"{where}: the array of {half} examples {fault}")


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
  examples: lazy_arrays.MaybeLazy, value_range: str, half: str, where: str
) -> lazy_arrays.MaybeLazy:
  """Returns examples whose range is checked; raises UserError if it is wrong.

  A few rows of a `LazyArray` are checked here, and each row is checked when it is read. `half` is "train" or "test".
  """
  fault = functools.partial(ranges.range_error, value_range=value_range)
  if isinstance(examples, lazy_arrays.LazyArray):
    examples = lazy_arrays.checked(examples, fault, f"{where}: {half}ing example")
    lazy_arrays.examined(examples)
  else:
    _check(fault(examples), half, where)
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
