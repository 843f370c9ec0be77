"""Data sets in memory or in files: `load` returns a `Dataset` for every source."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool

from ae_jax import errors
from ae_jax.data import lazy_arrays, placements, ranges, remarks, sources
from ae_jax.data import one_class as one_classes
from ae_jax.data.columns import class_indices, flat_columns, half_columns, label_values
from ae_jax.system import paths

__all__ = ["Dataset", "class_indices", "flat_columns", "half_columns", "label_values", "load"]

_DIGESTED_WHOLE = 2**28  # bytes: the fingerprint of a larger data set covers a sample only


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Training and test examples: images [N, H, W, C] or series [N, T, C], uint8 or float32, and optional labels [N].

  Training examples that do not fit in memory, and their labels, may be `LazyArray` instead of ndarrays.
  """

  name: str
  value_range: str  # a key of ranges.INTERVALS
  train: lazy_arrays.MaybeLazy
  test: np.ndarray
  train_labels: lazy_arrays.MaybeLazy | None
  test_labels: np.ndarray | None
  one_class: int | None = None  # the label of all training examples; None: any label
  streams: bool = False  # whether the training examples go to the device chunk by chunk (`streams.chunks`)
  placement: str = ""  # for the user: where the training examples are kept, and why
  train_factors: np.ndarray | None = None  # indices of the generating factors' values, if known: int [N, factors]
  test_factors: np.ndarray | None = None
  factor_values: dict[str, Any] = dataclasses.field(default_factory=dict)  # {factor: tuple of its values}
  remarks: tuple[str, ...] = ()  # for the user: data not read, dropped, or scaled unexpectedly

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of an example: (H, W, C) of an image, (T, C) of a series."""
    return self.train.shape[1:]

  @property
  def anomalous(self) -> Bool[np.ndarray, " test"] | None:
    """Mask of the test examples with another label than the training examples; None without `one_class`."""
    return None if self.one_class is None else self.test_labels != self.one_class

  @functools.cached_property
  def train_sample(self) -> np.ndarray:
    """Training examples in memory: all, or a sample of a `LazyArray` (see `lazy_arrays.sample`)."""
    return lazy_arrays.sample(self.train)

  @functools.cached_property
  def span(self) -> ranges.Span:
    """Span of the range or, for floats in the range "real", of the training values.

    In the latter case masked elements become 0, or the training value nearest to 0. Constant data have width 1.
    """
    if self.value_range != "real" or self.train.dtype == np.uint8:
      return ranges.SPANS[self.value_range]
    low, high = float(self.train_sample.min()), float(self.train_sample.max())
    return ranges.Span(low, high if high > low else low + 1.0, min(max(0.0, low), high))

  @property
  def peak(self) -> float:
    """Width of the span, for PSNR."""
    return self.span.high - self.span.low

  def fingerprint(self) -> str:
    """Returns the SHA-256 of the shapes, dtypes and contents of the examples. It does not depend on the placement.

    For data sets above 256 MiB it covers the first, the last and 1,000 other examples of each half.
    """
    return self._digest(self.train, self.test)

  @functools.cached_property
  def fingerprints(self) -> dict[str, str | None]:
    """Fingerprints of the examples, the labels and the factors, as stored in config.json.

    They are cached, because a sweep describes the data set for each of its members. Absent labels and factors have
    None. The fingerprint of integers depends on their values, not on their dtype.
    """
    fingerprints = {"fingerprint": self.fingerprint()}
    for name in ("labels", "factors"):
      halves = [_as_int64(getattr(self, f"{half}_{name}")) for half in ("train", "test")]
      absent = all(values is None for values in halves)
      fingerprints[f"{name}_fingerprint"] = None if absent else self._digest(*halves)
    return fingerprints

  def _digest(self, *halves: lazy_arrays.MaybeLazy | None) -> str:
    """Returns the SHA-256 of arrays; for large data sets, of their rows at `lazy_arrays.probe_indices`."""
    digest = hashlib.sha256()
    whole = lazy_arrays.total_bytes(self.train) + lazy_arrays.total_bytes(self.test) <= _DIGESTED_WHOLE
    for values in halves:
      if values is None:
        digest.update(b"None")
        continue
      digest.update(f"{values.dtype.str}{values.shape}".encode())
      indices = np.arange(len(values)) if whole else lazy_arrays.probe_indices(len(values))
      for part in lazy_arrays.parts(values, indices):
        digest.update(part.view(np.uint8).data)  # arrays of strings do not export a buffer
    return digest.hexdigest()


def load(
  name: str,
  path: str,
  range: str,
  one_class: int | None = None,
  placement: str = "auto",
  budget_gib: float = 0.0,
  augment: tuple = (),
) -> Dataset:
  """Loads the data set that `config.data` describes.

  Examples that stay in their files are checked when they are read; the first, the last and 1,000 others also here.

  Args:
    name: A key of `sources.SOURCES`, or an image set of TensorFlow Datasets.
    path: Path that the source reads; for TensorFlow Datasets its folder, or "" for the default folder.
    range: Range that the model sees, a key of `ranges.INTERVALS`.
    one_class: Label of the training examples to keep, or None for all. All test examples are kept.
    placement: A key of `placements.PLACEMENTS`, for the training examples. Test examples are kept in memory.
    budget_gib: See `placements.decide`.
    augment: Not used, because examples are loaded unchanged; see `augmentation.build`.

  Raises:
    UserError: If the data are missing, damaged, or outside the range.
  """
  del augment
  errors.choose(ranges.INTERVALS, range, "data.range")
  path = str(paths.local_path("config.data.path", path)) if path else ""
  where = f"config.data.name={name!r}" + (f" ({path})" if path else "")
  arrays = _from_source(name, path, range, where)
  factor_values, notes = arrays.pop("factor_values", {}), arrays.pop("remarks", [])
  decide = functools.partial(placements.decide, placement, budget_gib)
  one_class, class_notes, chosen = _narrowed(arrays, one_class, decide, where)
  arrays |= {half: _verified(arrays[half], range, half, where) for half in ("train", "test")}
  notes = (*notes, *class_notes, *remarks.binary_bytes(where, arrays["train"]))
  arrays = {"train_labels": None, "test_labels": None, "factor_values": factor_values, "remarks": notes} | arrays
  return Dataset(name, range, one_class=one_class, streams=chosen.streams, placement=chosen.words, **arrays)


def _from_source(name: str, path: str, value_range: str, where: str) -> dict[str, Any]:
  """Returns the result of a source, with floats as float32; raises UserError for a wrong shape or dtype."""
  arrays = sources.SOURCES.get(name, sources.tfds)(name, path)
  for half in ("train", "test"):
    arrays[half] = _as_float32(arrays[half])
    _check(_shape_fault(arrays[half], arrays["train"], value_range), half, where)
  return arrays


def _narrowed(
  arrays: dict[str, Any], one_class: int | None, decide: Callable[[int], placements.Placement], where: str
) -> tuple[int | None, list[str], placements.Placement]:
  """Drops the training examples of other classes and reads the arrays that are kept in memory, in place.

  Returns the class that was applied, remarks about it, and the placement of the remaining training examples.
  """
  first = decide(lazy_arrays.total_bytes(arrays["train"]))
  _check_test_fits(arrays["test"], first, where)
  if not first.lazy:
    arrays.update({key: lazy_arrays.load_all(values) for key, values in arrays.items()})
  one_class, notes = one_classes.keep(one_class, arrays, where)
  if len(arrays["train"]) < 2:
    raise errors.UserError(f"{where}: has only one training example; at least 2 are required")
  chosen = decide(lazy_arrays.total_bytes(arrays["train"]))
  for key in arrays:
    if not (chosen.lazy and key in ("train", "train_labels")):
      arrays[key] = lazy_arrays.read_all(arrays[key])
  return one_class, notes, chosen


def _check_test_fits(examples: lazy_arrays.MaybeLazy, chosen: placements.Placement, where: str) -> None:
  """Raises UserError if test examples in files exceed the memory budget."""
  needed = lazy_arrays.total_bytes(examples)
  if isinstance(examples, lazy_arrays.LazyArray) and needed > chosen.budget:
    raise errors.UserError(
      f"{where}: the test examples need {placements.format_gib(needed)} of memory, and the budget is "
      f"{placements.format_gib(chosen.budget)}; use fewer test examples, or raise config.data.budget_gib"
    )


def _check(fault: str | None, half: str, where: str) -> None:
  if fault:
    raise errors.UserError(f"{where}: the array of {half} examples {fault}")


def _as_float32(examples: lazy_arrays.MaybeLazy) -> lazy_arrays.MaybeLazy:
  """Returns floating-point examples as float32, and others unchanged; the result is lazy if the examples are."""
  if not np.issubdtype(examples.dtype, np.floating):
    return examples
  return lazy_arrays.map_rows(examples, examples.shape[1:], np.float32, ranges.as_float32)


def _as_int64(values: lazy_arrays.MaybeLazy | None) -> lazy_arrays.MaybeLazy | None:
  """Returns integers as int64, so that their fingerprint depends on the values alone; other arrays unchanged."""
  if values is None or not np.issubdtype(values.dtype, np.integer):
    return values
  return lazy_arrays.map_rows(values, values.shape[1:], "<i8", lambda rows: rows.astype("<i8"))


def _verified(examples: lazy_arrays.MaybeLazy, value_range: str, half: str, where: str) -> lazy_arrays.MaybeLazy:
  """Checks examples against the range: in memory all now, in files a few now and each row when it is read."""
  if isinstance(examples, lazy_arrays.LazyArray):
    examples = _checked(examples, value_range, f"{where}: {half}ing example")
    lazy_arrays.read_rows(examples, lazy_arrays.probe_indices(len(examples)))
  else:
    _check(ranges.range_error(examples, value_range), half, where)
  return examples


def _checked(examples: lazy_arrays.LazyArray, value_range: str, name: str) -> lazy_arrays.LazyArray:
  """Returns lazy examples that raise UserError when a row outside the range is read."""

  def read(indices):
    rows = examples.read(indices)
    if ranges.range_error(rows, value_range):
      faults = ((index, ranges.range_error(row, value_range)) for index, row in zip(indices, rows, strict=True))
      raise errors.UserError("{} {} {}".format(name, *next(pair for pair in faults if pair[1])))
    return rows

  return dataclasses.replace(examples, read=read)


def _shape_fault(examples: lazy_arrays.MaybeLazy, train: lazy_arrays.MaybeLazy, value_range: str) -> str | None:
  """Returns the fault in the shape or dtype of examples, as the end of a sentence, or None."""
  axes = len(examples.shape)
  if axes not in (3, 4):
    return f"has {axes} axes; expected [N, H, W] or [N, H, W, C]"
  if 0 in examples.shape:
    return f"has shape {examples.shape}: it is empty"
  if axes == 4 and examples.shape[3] not in (1, 3):
    return f"has {examples.shape[3]} channels in its last axis; expected 1 or 3"
  if examples.shape[1:] != train.shape[1:] or examples.dtype != train.dtype:
    return f"is {examples.dtype} {examples.shape[1:]}, but the training examples are {train.dtype} {train.shape[1:]}"
  return ranges.range_error(np.empty(0, examples.dtype), value_range)
