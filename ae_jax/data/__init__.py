"""Data sets in memory or in files. `load` returns a `Dataset` from any source."""

import functools
from collections.abc import Mapping
from typing import Any

from ae_jax import errors
from ae_jax.data import (
  consecutive,
  draws,
  faults,
  in_memory,
  kinds,
  lengths,
  loss_columns,
  patches,
  placements,
  preparation,
  ranges,
  recorded_tables,
  schema_fit,
  sources,
  splits,
  standardisation,
  windows,
)
from ae_jax.data import one_class as one_classes
from ae_jax.data import schema as schemas
from ae_jax.data.columns import (
  class_indices,
  evaluated_columns,
  flat_columns,
  label_values,
  model_columns,
  split_columns,
)
from ae_jax.data.dataset import Dataset
from ae_jax.system import paths

__all__ = [
  "Dataset",
  "class_indices",
  "evaluated_columns",
  "flat_columns",
  "label_values",
  "load",
  "model_columns",
  "split_columns",
]


def load(
  name: str,
  path: str,
  range: str,
  one_class: int | str | None = None,
  placement: str = "auto",
  budget_gib: float | int = 0.0,
  augment: tuple = (),
  kind: str = "auto",
  window: int = 0,
  stride: int = 0,
  max_gap: float | int = 0.0,
  scale: str = "none",
  split: str = "auto",
  group: str = "",
  test: float | int = draws.TEST_SHARE,
  validation: float | int = 0.0,
  columns: tuple = (),
  missing: str = "error",
  patch: tuple = (),
  given: Mapping[str, Any] | None = None,
  **options: Any,
) -> Dataset:
  """Loads the data set that `config.data` describes.

  Training examples that stay in files are checked when they are read. The first, the last and 1,000 random examples
  are also checked here.

  Args:
    name: A key of `sources.SOURCES`, or the name of an image data set of TensorFlow Datasets.
    path: Path of the file or folder to read, or several files (see `several_files`). For TensorFlow Datasets, "" means
      the default folder.
    range: Range of the values that the model receives, a key of `ranges.INTERVALS`.
    one_class: Label or class name of the training examples to keep, or None to keep all. All test examples are kept.
      Without a test set in the files, all examples of other classes become test examples.
    placement: Placement of the training examples, a key of `placements.PLACEMENTS`. Test and validation examples are
      kept in memory.
    budget_gib: Memory budget for the training examples in GiB; 0 chooses it automatically (see `placements.decide`).
    augment: Ignored, because augmentation happens during training; see `augmentation.build`.
    kind: Kind of the examples of npz and npy files; see `kinds.with_channels`.
    window: Length of the windows that are cut from a long recording; 0 for none. See `windows.cut`.
    stride: Distance between the starts of windows, in steps.
    max_gap: Longest step in time inside a window, as a multiple of the usual step; 0 for any.
    split: How test and validation examples are drawn from the training examples; see `draws.divide`.
    group: Name of the array with the group of each training example; all examples of a group stay in one split.
    test: Fraction of the examples that is drawn for the test set, if the data have none.
    validation: Fraction of the training examples that is drawn for the validation set; 0 for none.
    scale: "none", "standard" or "quantile"; see `standardisation.fit`.
    columns: Kinds of columns of a table; see `schema_fit.parse_kinds`.
    missing: How missing values of a table are handled, one of `schema.MISSING`.
    patch: (height, width) of the patches that are cut from images, or (); see `patches.cut`.
    given: {split: `in_memory.SplitData`} for the sources in `in_memory.SOURCES`, which read no files.
    **options: Keys that only some sources take; see `sources.DEFAULTS`.

  Raises:
    UserError: The data are missing, damaged, or outside the range.
  """
  del augment
  _check_keys(range, kind=kind, scale=scale, missing=missing, patch=patch)
  windows.check(name, kind, window, stride, max_gap)
  chosen = draws.options(split, group, test, validation, window)
  column_kinds = schema_fit.parse_kinds(columns)
  path = str(paths.local_path("config.data.path", path)) if path else ""
  where = in_memory.WHERE if given else f"config.data.name={name!r}" + (f" ({path})" if path else "")
  decide = functools.partial(placements.decide, placement, budget_gib)
  options |= {"group": group} | ({"columns": columns} if name in schema_fit.NAMED else {})
  streams = lambda size: decide(size).lazy
  arrays = sources.read(name, path, options, kind=kind, window=window, streams=streams, given=given, is_complete=True)
  draws.check_needed(chosen, arrays, where)
  remarks = arrays.pop("remarks", None) or []
  record_columns, longest = None, 0.0
  if window and name in schema_fit.NAMED:
    record_columns, notes = recorded_tables.of_table(arrays, column_kinds, missing, max_gap, where)
    longest = record_columns.time.longest if record_columns.time else 0.0
    remarks, column_kinds, missing = [*remarks, *notes], {}, "error"
  chosen, of_record, notes = _as_examples(arrays, name, kind, (window, stride, longest), chosen, one_class, where)
  table = schema_fit.table_of(arrays, name, column_kinds, missing)
  notes = [*notes, *consecutive.remarks(arrays["train"], table, name, where, kind)]
  known = {key: arrays.pop(key, None) for key in ("factor_values", "class_names", "held_out")}
  divide = functools.partial(draws.divide, chosen, arrays, known["held_out"], one_class, known["class_names"], where)
  converted = preparation.convert(
    arrays, table, missing=missing, value_range=range, divide=divide, decide=decide, where=where
  )
  remarks = [*remarks, *notes, *converted.remarks, *patches.cut(arrays, patch, where)]
  decision = preparation.place(arrays, decide, where)
  remarks += preparation.check_values(arrays, converted.scaling, range, name, where)
  if scale != "none":
    scaled = converted.schema.scaled if converted.schema else None
    arrays["standardisation"] = standardisation.fit(arrays, scale, scaled)
  rows = {each: arrays.pop(f"{each}_row") for each in splits.SPLITS if f"{each}_row" in arrays}
  loss_columns.fill_missing(arrays, range, scale != "none")
  for each in ("train", "validation"):
    arrays.pop(f"{each}_names", None)  # only figures of test examples show names
  return Dataset(
    name,
    range,
    one_class=converted.one_class,
    streams=decision.streams,
    placement=decision.words,
    factor_values=known["factor_values"] or {},
    remarks=tuple(remarks),
    faults=tuple(faults.find(arrays, range, scale, converted.schema, where)),
    class_names=known["class_names"],
    columns=loss_columns.pop(arrays),
    scaling=None if converted.scaling.is_usual else converted.scaling,
    split=of_record or converted.split,
    schema=converted.schema,
    rows=rows,
    record_columns=record_columns,
    defects=arrays.pop("test_defects", None),
    **({"train_labels": None, "test_labels": None} | arrays),
  )


def _check_keys(value_range: str, *, kind: str, scale: str, missing: str, patch: tuple) -> None:
  """Raises UserError if a key of `config.data` is invalid; see `load` for the arguments."""
  errors.choose(ranges.INTERVALS, value_range, "data.range")
  kinds.check(kind)
  standardisation.check(scale, value_range)
  errors.choose(dict.fromkeys(schemas.MISSING), missing, "data.missing")
  patches.check(patch)


def _as_examples(
  arrays: dict[str, Any],
  name: str,
  kind: str,
  cut: tuple[int, int, float],
  chosen: draws.Options,
  normal: int | str | None,
  where: str,
) -> tuple[draws.Options, draws.Split | None, list[str]]:
  """Adds a missing channel axis to the examples or, if a window is set, cuts recordings into windows, in place.

  Args:
    arrays: Arrays of a source.
    name: Name of the source.
    kind: `config.data.kind`.
    cut: `config.data.window`, `config.data.stride`, and the longest step inside a window (`TimeAxis.longest`).
    chosen: Options of the split into training, validation and test set.
    normal: `config.data.one_class`.
    where: Prefix of messages.

  Returns:
    The split options that remain to be applied, the split by time that was applied to a recording (None if there was
    none), and notes.
  """
  window, stride, longest = cut
  if not window:
    for key in ("record_steps", "record_names"):
      arrays.pop(key, None)  # these describe recordings
    kinds.apply(arrays, kind, name, where)
    return chosen, None, lengths.to_masks(arrays, where)
  given, shares = splits.present(arrays), {"test": chosen.test, "validation": chosen.validation}
  if "train_labels" in arrays or "test_labels" in arrays:
    normal = one_classes.label_of(normal, arrays, arrays.get("class_names"), where)
  notes = windows.cut(arrays, window, stride, where, **shares, normal=normal, longest=longest)
  return draws.Options(), draws.of_record(shares, given, arrays), notes
