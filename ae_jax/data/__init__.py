"""Data sets in memory or in files. `load` returns a `Dataset` from any source."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool

from ae_jax import errors
from ae_jax.data import archives, labels, lazy_arrays, placements, ranges, sources
from ae_jax.data import one_class as one_classes
from ae_jax.data import scaling as scalings
from ae_jax.data.columns import class_indices, flat_columns, half_columns, label_values
from ae_jax.system import paths

__all__ = ["Dataset", "class_indices", "flat_columns", "half_columns", "label_values", "load"]

_DIGESTED_WHOLE = 2**28  # bytes; the fingerprint of a larger data set covers only a sample of the examples


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Training and test set: images [N, H, W, C] or time series [N, T, C], uint8 or float32, with optional labels [N].

  Training examples that do not fit in memory, and their labels, may be `LazyArray`s, which read rows from files on
  demand.
  """

  name: str
  value_range: str  # range of the values that the model receives, a key of ranges.INTERVALS
  train: lazy_arrays.MaybeLazy
  test: np.ndarray
  train_labels: lazy_arrays.MaybeLazy | None
  test_labels: np.ndarray | None
  one_class: int | None = None  # the only label of the training examples; None: any label
  streams: bool = False  # whether the training examples are copied to the device during training (`streams.chunks`)
  placement: str = ""  # message for the user: where the training examples are kept, and why
  train_factors: np.ndarray | None = None  # int [N, factors]: index of the value of each generating factor, if known
  test_factors: np.ndarray | None = None
  factor_values: dict[str, Any] = dataclasses.field(default_factory=dict)  # {name of a factor: tuple of its values}
  remarks: tuple[str, ...] = ()  # messages for the user about unread or dropped data, or an unexpected scale
  class_names: tuple[str, ...] | None = None  # name of each label 0, 1, ...; None: the labels have no names
  scaling: scalings.Scaling | None = None  # conversion of the stored examples; None: bytes, or floats as stored

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of an example: (H, W, C) for images, (T, C) for time series."""
    return self.train.shape[1:]

  @property
  def anomalous(self) -> Bool[np.ndarray, " test"] | None:
    """Mask of the test examples whose label is not `one_class`; None if `one_class` is None."""
    return None if self.one_class is None else self.test_labels != self.one_class

  def class_name(self, label: Any) -> str:
    """Returns the name of a class, or its label as a text if it has no name."""
    return labels.class_name(label, self.class_names)

  @property
  def one_class_name(self) -> str:
    """`one_class` as a text, with its name if it has one."""
    return labels.with_name(self.one_class, self.class_names)

  @functools.cached_property
  def train_sample(self) -> np.ndarray:
    """Training examples in memory; for a `LazyArray`, a random sample of them (see `lazy_arrays.sample`)."""
    return lazy_arrays.sample(self.train)

  @functools.cached_property
  def span(self) -> ranges.Span:
    """Interval of the values of the data.

    It depends only on `value_range`, except for floats in the range "real". For these, it extends from the smallest to
    the largest value of `train_sample`, or has width 1 if the data are constant. Masked elements then become 0 or, if 0
    is outside the interval, the nearest value inside.
    """
    if self.value_range != "real" or self.train.dtype == np.uint8:
      return ranges.SPANS[self.value_range]
    low, high = float(self.train_sample.min()), float(self.train_sample.max())
    return ranges.Span(low, high if high > low else low + 1.0, min(max(0.0, low), high))

  @property
  def peak(self) -> float:
    """Width of `span`: the peak value in the definition of PSNR."""
    return self.span.high - self.span.low

  def fingerprint(self) -> str:
    """Returns the SHA-256 of the shapes, dtypes and contents of the examples; it is the same for every placement.

    For data sets above 256 MiB, it covers only the first, the last and 1,000 random examples of the training set, and
    likewise of the test set.
    """
    return self._digest(self.train, self.test)

  @functools.cached_property
  def fingerprints(self) -> dict[str, str | None]:
    """Fingerprints of the examples, the labels and the factors, as stored in config.json.

    The value is None if there are no labels or no factors. The fingerprint of integer labels and factors depends on
    their values, not on their dtype. The result is cached, because each sweep member stores it.
    """
    fingerprints = {"fingerprint": self.fingerprint()}
    for name in ("labels", "factors"):
      halves = [_as_int64(getattr(self, f"{half}_{name}")) for half in ("train", "test")]
      absent = all(values is None for values in halves)
      fingerprints[f"{name}_fingerprint"] = None if absent else self._digest(*halves)
    return fingerprints

  def _digest(self, *halves: lazy_arrays.MaybeLazy | None) -> str:
    """Returns the SHA-256 of arrays or, if the data set is large, of their rows at `lazy_arrays.probe_indices`."""
    digest = hashlib.sha256()
    is_small = lazy_arrays.total_bytes(self.train) + lazy_arrays.total_bytes(self.test) <= _DIGESTED_WHOLE
    for values in halves:
      if values is None:
        digest.update(b"None")
        continue
      digest.update(f"{values.dtype.str}{values.shape}".encode())
      indices = np.arange(len(values)) if is_small else lazy_arrays.probe_indices(len(values))
      for part in lazy_arrays.parts(values, indices):
        digest.update(part.view(np.uint8).data)  # arrays of strings do not export a buffer
    return digest.hexdigest()


def load(
  name: str,
  path: str,
  range: str,
  one_class: int | str | None = None,
  placement: str = "auto",
  budget_gib: float = 0.0,
  augment: tuple = (),
  x: str = "",
  y: str = "",
  layout: str = "nhwc",
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
    x: Name of the array of examples in an archive; "" for the names that are known (see `archives`).
    y: Name of the array of labels in an archive; "" for the names that are known, if `x` is "" too.
    layout: Order of the axes of images in an archive, a key of `archives.LAYOUTS`.

  Raises:
    UserError: The data are missing, damaged, or outside the range.
  """
  del augment
  errors.choose(ranges.INTERVALS, range, "data.range")
  errors.choose(archives.LAYOUTS, layout, "data.layout")
  path = str(paths.local_path("config.data.path", path)) if path else ""
  where = f"config.data.name={name!r}" + (f" ({path})" if path else "")
  options = {key: value for key, value in (("x", x), ("y", y), ("layout", layout)) if value not in ("", "nhwc")}
  arrays, dtype = _from_source(name, path, options, where)
  known = {key: arrays.pop(key, None) for key in ("factor_values", "remarks", "class_names", "held_out")}
  decide = functools.partial(placements.decide, placement, budget_gib)
  found = _load_and_convert(arrays, dtype, range, decide, where)
  label, class_notes = one_classes.select(one_class, arrays, known["held_out"], known["class_names"], where)
  decision = _place(arrays, decide, where)
  arrays |= {half: _with_range_check(arrays[half], range, half, where) for half in ("train", "test")}
  usual = found.is_usual
  scale_notes = () if usual else (f"{where}: the examples are {found.in_words(range)}",)
  return Dataset(
    name,
    range,
    one_class=label,
    streams=decision.streams,
    placement=decision.words,
    factor_values=known["factor_values"] or {},
    remarks=(*(known["remarks"] or ()), *scale_notes, *class_notes),
    class_names=known["class_names"],
    scaling=None if usual else found,
    **({"train_labels": None, "test_labels": None} | arrays),
  )


def _from_source(name: str, path: str, options: dict[str, str], where: str) -> tuple[dict[str, Any], np.dtype]:
  """Returns the arrays of a source, with floats as float32, and the stored dtype of the training examples.

  Raises:
    UserError: An array has a wrong shape or dtype.
  """
  arrays = sources.read(name, path, options)
  dtype = arrays["train"].dtype
  for half in ("train", "test"):
    if half in arrays:
      arrays[half] = _as_float32(arrays[half])
      _check(_shape_fault(arrays[half], arrays["train"]), half, where)
  return arrays, dtype


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
  for key in arrays:
    if not (decision.lazy and key in ("train", "train_labels")):
      arrays[key] = lazy_arrays.read_all(arrays[key])
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


def _as_int64(values: lazy_arrays.MaybeLazy | None) -> lazy_arrays.MaybeLazy | None:
  """Returns integers as int64, so their fingerprint depends only on the values; other arrays are unchanged."""
  if values is None or not np.issubdtype(values.dtype, np.integer):
    return values
  return lazy_arrays.map_rows(values, values.shape[1:], "<i8", lambda rows: rows.astype("<i8"))


def _with_range_check(
  examples: lazy_arrays.MaybeLazy, value_range: str, half: str, where: str
) -> lazy_arrays.MaybeLazy:
  """Checks the range of examples. The rows of a `LazyArray` are checked when they are read, and a few rows here."""
  fault = functools.partial(ranges.range_error, value_range=value_range)
  if isinstance(examples, lazy_arrays.LazyArray):
    examples = lazy_arrays.checked(examples, fault, f"{where}: {half}ing example")
    lazy_arrays.read_rows(examples, lazy_arrays.probe_indices(len(examples)))
  else:
    _check(fault(examples), half, where)
  return examples


def _shape_fault(examples: lazy_arrays.MaybeLazy, train: lazy_arrays.MaybeLazy) -> str | None:
  """Returns the fault in the shape or dtype of examples, as the end of an error message, or None."""
  axes = len(examples.shape)
  if axes not in (3, 4):
    return f"has {axes} axes; expected [N, H, W] or [N, H, W, C]"
  if 0 in examples.shape:
    return f"has shape {examples.shape}, so it is empty; provide at least one value per axis"
  if axes == 4 and examples.shape[3] not in (1, 3):
    return f"has {examples.shape[3]} channels in its last axis; expected 1 or 3"
  if examples.shape[1:] != train.shape[1:] or examples.dtype != train.dtype:
    return (
      f"is {examples.dtype} {examples.shape[1:]}, but the training examples are {train.dtype} {train.shape[1:]}; "
      "use one shape and dtype"
    )
  return None if examples.dtype.kind in "biuf" else f"has dtype {examples.dtype}; convert it to numbers"
