"""Data sets in memory or in files. `load` returns a `Dataset` from any source."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool

from ae_jax import errors
from ae_jax.data import image_sets, kinds, lazy_arrays, placements, ranges, remarks, sources, standardisation, windows
from ae_jax.data import one_class as one_classes
from ae_jax.data.columns import class_indices, flat_columns, half_columns, label_values
from ae_jax.data.standardisation import Standardisation
from ae_jax.system import paths
from ae_jax.types import KINDS

__all__ = ["Dataset", "class_indices", "flat_columns", "half_columns", "label_values", "load"]

_DIGESTED_WHOLE = 2**28  # bytes; the fingerprint of a larger data set covers only a sample of the examples


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Training and test set, uint8 or float32, with optional labels [N].

  Examples are rows of a table [N, columns], series [N, T, C], images [N, H, W, C] or volumes [N, D, H, W, C].

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
  standardisation: Standardisation | None = None  # map that was applied to the examples
  remarks: tuple[str, ...] = ()  # messages for the user about unread or dropped data, or an unexpected scale

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of an example, such as (H, W, C) for images."""
    return self.train.shape[1:]

  @property
  def kind(self) -> str:
    """Kind of the examples, a value of `types.KINDS`."""
    return KINDS[len(self.shape)]

  @property
  def anomalous(self) -> Bool[np.ndarray, " test"] | None:
    """Mask of the test examples whose label is not `one_class`; None if `one_class` is None."""
    return None if self.one_class is None else self.test_labels != self.one_class

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
  one_class: int | None = None,
  placement: str = "auto",
  budget_gib: float = 0.0,
  augment: tuple = (),
  kind: str = "auto",
  window: int = 0,
  stride: int = 0,
  scale: str = "none",
  **image_files: Any,
) -> Dataset:
  """Loads the data set that `config.data` describes.

  Training examples that stay in files are checked when they are read. The first, the last and 1,000 random examples
  are also checked here.

  Args:
    name: A key of `sources.SOURCES`, or the name of an image data set of TensorFlow Datasets.
    path: Path of the file or folder to read. For TensorFlow Datasets, "" means the default folder.
    range: Range of the values that the model receives, a key of `ranges.INTERVALS`.
    one_class: Label of the training examples to keep, or None to keep all. All test examples are kept.
    placement: Placement of the training examples, a key of `placements.PLACEMENTS`. Test examples are kept in memory.
    budget_gib: Memory budget for the training examples in GiB; 0 chooses it automatically (see `placements.decide`).
    augment: Ignored, because augmentation happens during training; see `augmentation.build`.
    kind: Kind of the examples of npz and npy files; see `kinds.with_channels`.
    window: Length of the windows that are cut from a long record; 0 for none. See `windows.cut`.
    stride: Distance between the starts of windows, in steps.
    scale: "none", or "standard" to standardise the examples; see `standardisation.standardise`.
    **image_files: Keys for image files, such as `size`; see `image_sets.options`.

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
  chosen = image_sets.options(**image_files)
  arrays = _from_source(name, path, range, chosen, (kind, window, stride), where)
  factor_values, notes = arrays.pop("factor_values", {}), arrays.pop("remarks", [])
  decide = functools.partial(placements.decide, placement, budget_gib)
  one_class, class_notes, decision = _keep_class_and_place(arrays, one_class, decide, where)
  arrays |= {half: _with_range_check(arrays[half], range, half, where) for half in ("train", "test")}
  if scale == "standard":
    arrays["standardisation"] = standardisation.standardise(arrays)
  notes = (*notes, *class_notes, *_remarks_on_values(name, arrays["train"], where))
  arrays = {"train_labels": None, "test_labels": None, "factor_values": factor_values, "remarks": notes} | arrays
  return Dataset(name, range, one_class=one_class, streams=decision.streams, placement=decision.words, **arrays)


def _from_source(
  name: str, path: str, value_range: str, chosen: image_sets.Options, of_arrays: tuple[str, int, int], where: str
) -> dict[str, Any]:
  """Returns the arrays of a source, with floats as float32; raises UserError for a wrong shape or dtype.

  `of_arrays` is (kind, window, stride).
  """
  kind, window, stride = of_arrays
  source = sources.SOURCES.get(name, sources.tfds)
  if name in sources.IMAGE_FILES:
    arrays = source(name, path, chosen)
  else:
    image_sets.check_unused(chosen, name)
    arrays = source(name, path, record=True) if window else source(name, path)
  scaled = arrays.pop("scaled_to_unit", False)
  if window:
    arrays["remarks"] = [*arrays["remarks"], *windows.cut(arrays, window, stride, where)]
  else:
    kinds.apply(arrays, kind, name in windows.SOURCES, where)
  for half in ("train", "test"):
    arrays[half] = _from_unit(arrays[half], value_range) if scaled else _as_float32(arrays[half])
    _check(_shape_fault(arrays[half], arrays["train"], value_range), half, where)
  return arrays


def _keep_class_and_place(
  arrays: dict[str, Any], one_class: int | None, decide: Callable[[int], placements.Placement], where: str
) -> tuple[int | None, list[str], placements.Placement]:
  """Drops the training examples with other labels, and reads the arrays that are kept in memory.

  Changes `arrays` in place. Returns the label that was applied (None: all labels), remarks about the dropped examples,
  and the placement of the remaining training examples.
  """
  before_dropping = decide(lazy_arrays.total_bytes(arrays["train"]))
  _check_test_fits(arrays["test"], before_dropping, where)
  if not before_dropping.lazy:
    arrays.update({key: lazy_arrays.load_all(values) for key, values in arrays.items()})
  one_class, notes = one_classes.keep(one_class, arrays, where)
  if len(arrays["train"]) < 2:
    raise errors.UserError(f"{where}: has only one training example; at least 2 are required")
  decision = decide(lazy_arrays.total_bytes(arrays["train"]))
  for key in arrays:
    if not (decision.lazy and key in ("train", "train_labels")):
      arrays[key] = lazy_arrays.read_all(arrays[key])
  return one_class, notes, decision


def _remarks_on_values(name: str, examples: lazy_arrays.MaybeLazy, where: str) -> list[str]:
  """Returns remarks about bytes that are all 0 or 1, and about the range of floats that were read from image files."""
  of_floats = remarks.float_range(where, examples) if name in sources.IMAGE_FILES else []
  return remarks.binary_bytes(where, examples) + of_floats


def _check_test_fits(examples: lazy_arrays.MaybeLazy, decision: placements.Placement, where: str) -> None:
  """Raises UserError if the test examples are still in files and exceed the memory budget."""
  needed = lazy_arrays.total_bytes(examples)
  if isinstance(examples, lazy_arrays.LazyArray) and needed > decision.budget:
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


def _as_int64(values: lazy_arrays.MaybeLazy | None) -> lazy_arrays.MaybeLazy | None:
  """Returns integers as int64, so their fingerprint depends only on the values; other arrays are unchanged."""
  if values is None or not np.issubdtype(values.dtype, np.integer):
    return values
  return lazy_arrays.map_rows(values, values.shape[1:], "<i8", lambda rows: rows.astype("<i8"))


def _with_range_check(
  examples: lazy_arrays.MaybeLazy, value_range: str, half: str, where: str
) -> lazy_arrays.MaybeLazy:
  """Returns examples whose range is checked; raises UserError if it is wrong.

  A few rows of a `LazyArray` are checked here, and each row is checked when it is read. `half` is "train" or "test".
  """
  if isinstance(examples, lazy_arrays.LazyArray):
    examples = _lazily_checked(examples, value_range, f"{where}: {half}ing example")
    lazy_arrays.read_rows(examples, lazy_arrays.probe_indices(len(examples)))
  else:
    _check(ranges.range_error(examples, value_range), half, where)
  return examples


def _lazily_checked(examples: lazy_arrays.LazyArray, value_range: str, name: str) -> lazy_arrays.LazyArray:
  """Returns a `LazyArray` of the same examples that raises UserError when it reads a row outside the range."""

  def read(indices):
    rows = examples.read(indices)
    if ranges.range_error(rows, value_range):
      faults = ((index, ranges.range_error(row, value_range)) for index, row in zip(indices, rows, strict=True))
      raise errors.UserError("{} {} {}".format(name, *next(pair for pair in faults if pair[1])))
    return rows

  return dataclasses.replace(examples, read=read)


def _shape_fault(examples: lazy_arrays.MaybeLazy, train: lazy_arrays.MaybeLazy, value_range: str) -> str | None:
  """Returns the fault in the shape or dtype of examples, as the end of an error message, or None."""
  if 0 in examples.shape:
    return f"has shape {examples.shape}, so it is empty; provide at least one value per axis"
  if examples.shape[1:] != train.shape[1:] or examples.dtype != train.dtype:
    return (
      f"is {examples.dtype} {examples.shape[1:]}, but the training examples are {train.dtype} {train.shape[1:]}; "
      "use one shape and dtype"
    )
  return ranges.range_error(np.empty(0, examples.dtype), value_range)
