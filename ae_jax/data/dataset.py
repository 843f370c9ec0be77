"""Training, test and validation set with labels, generating factors, and messages for the user about the data."""

import dataclasses
import functools
import hashlib
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from ae_jax.data import labels, lazy_arrays, ranges, windows
from ae_jax.data.draws import Split
from ae_jax.data.loss_columns import NAMES
from ae_jax.data.one_class import of_test_only, usual
from ae_jax.data.record_times import TimeAxis
from ae_jax.data.recorded_tables import RecordColumns
from ae_jax.data.scaling import Scaling
from ae_jax.data.schema import Schema
from ae_jax.data.splits import SPLITS
from ae_jax.data.standardisation import ColumnScaling
from ae_jax.system import paths
from ae_jax.types import KINDS

_DIGESTED_WHOLE = 2**28  # bytes; the fingerprint of a larger data set covers only a sample of the examples


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Training, test and optional validation set, uint8 or float32, with optional labels [N].

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
  one_class: int | None = None  # label of all training examples; None: the training examples may have any label
  streams: bool = False  # whether the training examples are copied to the device during training (`streams.chunks`)
  placement: str = ""  # message for the user: where the training examples are kept, and why
  train_factors: np.ndarray | None = None  # int [N, factors]: index of the value of each generating factor, if known
  test_factors: np.ndarray | None = None
  factor_values: dict[str, Any] = dataclasses.field(default_factory=dict)  # {name of a factor: tuple of its values}
  standardisation: ColumnScaling | None = None  # scaling of the columns that was applied to the examples
  remarks: tuple[str, ...] = ()  # messages for the user about unread, dropped or scaled data
  faults: tuple[str, ...] = ()  # messages for the user about suspicious values, see `faults.find`
  class_names: tuple[str, ...] | None = None  # name of each label 0, 1, ...; None: the labels have no names
  # {split: {"target": array, "mask": array, "weight": array}}, without the arrays that the data do not have.
  # Reconstructions are compared with the target; the mask has the shape of the examples, True for observed elements.
  columns: dict[str, dict[str, lazy_arrays.MaybeLazy]] = dataclasses.field(default_factory=dict)
  validation: np.ndarray | None = None  # examples that decide which checkpoint is the best; None: the test set does
  validation_labels: np.ndarray | None = None
  split: Split | None = None  # how test and validation examples were drawn; None: they were not
  scaling: Scaling | None = None  # conversion of the stored examples; None: bytes, or floats as stored
  schema: Schema | None = None  # columns of a table
  defects: np.ndarray | None = None  # bytes [test, H, W, 1]: 1 for the defects of test images, if their masks exist
  test_names: np.ndarray | None = None  # names of the files of test images in their folder; None: not from a folder
  # {split: positions of its examples in the training examples of the source}; absent splits are as in the source
  rows: dict[str, Int[np.ndarray, " examples"]] = dataclasses.field(default_factory=dict)
  test_start: Int[np.ndarray, " test"] | None = None  # first step of each test window in its recording; see `windows`
  test_recording: np.ndarray | None = None  # name of the recording of each test window, if there are several
  test_step_labels: np.ndarray | None = None  # [test, window]: label of each step of the test windows
  test_times: np.ndarray | None = None  # [test, window]: time of each step of the test windows, if the data have times
  record_columns: RecordColumns | None = None  # columns of a table that is read as recordings

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of an example, such as (H, W, C) for images."""
    return self.train.shape[1:]

  @property
  def kind(self) -> str:
    """Kind of the examples, a value of `types.KINDS`."""
    return KINDS[len(self.shape)]

  @property
  def channel_names(self) -> tuple[str, ...]:
    """Names of the channels of recordings in a table; () for other data."""
    return () if self.record_columns is None else self.record_columns.channels

  @property
  def time_axis(self) -> TimeAxis | None:
    """Column with the times of the steps of recordings in a table; None if there is none."""
    return None if self.record_columns is None else self.record_columns.time

  @property
  def anomalous(self) -> Bool[np.ndarray, " test"] | None:
    """Mask of the test examples whose label is not `one_class`; None if `one_class` is None."""
    return None if self.one_class is None else self.test_labels != self.one_class

  @functools.cached_property
  def usual_class(self) -> int | None:
    """Class of most steps of the test windows, if steps of other classes look like anomalies; see `one_class.usual`.

    It is None for data without labels of steps, and if `one_class` is set.
    """
    steps = self.test_step_labels
    return None if self.one_class is not None or steps is None or steps.dtype.kind == "f" else usual(steps)

  @property
  def unset_anomalies(self) -> int:
    """Number of test windows with steps of other classes than `usual_class`."""
    label = self.usual_class
    return 0 if label is None else int((self.test_step_labels != label).any(1).sum())

  @property
  def classes_of_test_only(self) -> Int[np.ndarray, " classes"]:
    """Labels of test examples that no training example has, such as those of defects."""
    return of_test_only(self.train_labels, self.test_labels)

  @functools.cached_property
  def on_validation(self) -> "Dataset | None":
    """This data set with the validation set as its test set, for evaluations; None without a validation set.

    Validation examples without labels get the label `one_class`, if it is set.
    """
    if self.validation is None:
      return None
    labels = self.validation_labels
    if labels is None and self.one_class is not None:
      labels = np.full(len(self.validation), self.one_class)
    swapped = {"test": self.validation, "test_labels": labels, "validation": None, "validation_labels": None}
    sources = {"train": "train", "test": "validation"}
    columns = {split: self.columns[name] for split, name in sources.items() if name in self.columns}
    of_windows = ("test_start", "test_recording", "test_step_labels", "test_times")
    absent = dict.fromkeys(("test_factors", "defects", "test_names", *of_windows))
    return dataclasses.replace(self, **swapped, **absent, columns=columns)

  def test_captions(self, numbers: Int[np.ndarray, " chosen"]) -> tuple[str, ...]:
    """Returns captions of the test examples at `numbers`: the names of images, or where windows begin; () for others.

    Windows begin in their recordings. `paths.shortened` shortens the names.
    """
    if self.test_names is not None:
      return tuple(map(paths.shortened, self.test_names[numbers]))
    if self.test_start is None:
      return ()
    starts = [f"from {self.start_of(number)}" for number in numbers.tolist()]
    if self.test_recording is None:
      return tuple(starts)
    return tuple(f"{name}, {start}" for name, start in zip(self.test_recording[numbers], starts, strict=True))

  def start_of(self, number: int) -> str:
    """Returns the time, or else the step, at which the test window `number` begins in its recording."""
    if self.time_axis is not None and self.test_times is not None:
      return self.time_axis.text(self.test_times[number, 0])
    return f"step {self.test_start[number]:,}"

  def test_apart(self, order: Int[np.ndarray, " ordered"], count: int) -> Int[np.ndarray, " chosen"]:
    """Returns the first `count` test examples in `order`; of windows, only those that do not overlap in time."""
    if self.test_start is None:
      return order[:count]
    return windows.apart(order, count, self.test_start, self.shape[0], self.test_recording)

  @property
  def element_names(self) -> tuple[str, ...]:
    """Names of the elements of a table row, i.e. of its columns and categories; () for other data."""
    if self.schema is not None:
      return self.schema.element_names
    return tuple(map(str, range(self.shape[0]))) if self.kind == "table" else ()

  @property
  def value_label(self) -> str:
    """Name of the values of the examples in figures."""
    return "value" if self.standardisation is None else self.standardisation.label

  def class_name(self, label: Any) -> str:
    """Returns the name of a class, or its label as text if it has no name."""
    return labels.class_name(label, self.class_names)

  def class_in_words(self, label: Any) -> str:
    """Returns the name of a class, or "class 3" if it has no name."""
    return labels.class_in_words(label, self.class_names)

  @property
  def one_class_name(self) -> str:
    """`one_class` as text, with its name if it has one."""
    return labels.with_name(self.one_class, self.class_names)

  @functools.cached_property
  def train_sample(self) -> np.ndarray:
    """Training examples in memory; for a `LazyArray`, a random sample of them (see `lazy_arrays.sample`)."""
    return lazy_arrays.sample(self.train)

  def column(self, split: str, name: str) -> lazy_arrays.MaybeLazy | None:
    """Returns the column `name` ("target", "mask" or "weight") of `split`; None if the split has none."""
    return self.columns.get(split, {}).get(name)

  @property
  def test_targets(self) -> np.ndarray:
    """The targets of the test examples; without targets, the test examples themselves."""
    targets = self.column("test", "target")
    return self.test if targets is None else lazy_arrays.load_all(targets)

  @property
  def column_names(self) -> tuple[str, ...]:
    """Names of the columns that at least one split has, in the order of `loss_columns.NAMES`."""
    return tuple(name for name in NAMES if any(name in columns for columns in self.columns.values()))

  @property
  def row_bytes(self) -> int:
    """Size in bytes of a training example with its target and its mask."""
    arrays = [self.train, self.column("train", "target"), self.column("train", "mask")]
    return sum(lazy_arrays.row_bytes(array) for array in arrays if array is not None)

  def train_sample_of(self, name: str) -> np.ndarray | None:
    """Loads the `train_sample` rows of a training array into memory; returns None if the data set lacks that array."""
    column = self.column("train", name)
    if column is None:
      return None
    if isinstance(self.train, np.ndarray):
      return lazy_arrays.load_all(column)
    return lazy_arrays.read_rows(column, lazy_arrays.sample_indices(self.train))

  @functools.cached_property
  def test_observed(self) -> Int[np.ndarray, " test"] | None:
    """Number of observed elements of each test example; None without a mask."""
    mask = self.column("test", "mask")
    return None if mask is None else lazy_arrays.load_all(mask).reshape(len(mask), -1).sum(1)

  @functools.cached_property
  def span(self) -> ranges.Span:
    """Interval of the values of the data.

    It depends only on `value_range`, except for floats in the range "real". For these, it extends from the smallest to
    the largest observed value of the targets or, without targets, of the examples in `train_sample`; it has width 1 if
    all values are equal. Masked elements of such data become 0 or, if 0 is outside the interval, its nearest end.
    """
    if self.has_peak:
      return ranges.SPANS[self.value_range]
    target, mask = self.train_sample_of("target"), self.train_sample_of("mask")
    values = self.train_sample if target is None else target
    values = values if mask is None else values[mask]
    low, high = ranges.extent(values)
    return ranges.Span(low, high, min(max(0.0, low), float(values.max())))

  @property
  def peak(self) -> float:
    """Width of `span`: the peak value in the definition of PSNR, if `has_peak`."""
    return self.span.high - self.span.low

  @property
  def has_peak(self) -> bool:
    """True if the data have a fixed range of values, which PSNR needs; floats in the range "real" have none."""
    return self.value_range != "real" or self.train.dtype == np.uint8

  def fingerprint(self) -> str:
    """Returns the SHA-256 of the shapes, dtypes and contents of the examples; it is the same for every placement.

    For data sets above 256 MiB, it covers only the first, the last and 1,000 random examples of the training set and
    of the test set.
    """
    return self._digest(self.train, self.test)

  @functools.cached_property
  def fingerprints(self) -> dict[str, str | None]:
    """Fingerprints of the examples, the labels and the factors, as stored in config.json.

    Without labels or factors, their fingerprint is None. The fingerprint of integer labels and factors depends on their
    values, not on their dtype. Targets, masks, weights and the validation set have a fingerprint only if the data have
    them. The result is cached, because each sweep member stores it.
    """
    fingerprints = {"fingerprint": self.fingerprint()}
    for name in ("labels", "factors"):
      arrays = [_as_int64(getattr(self, f"{split}_{name}")) for split in ("train", "test")]
      absent = all(values is None for values in arrays)
      fingerprints[f"{name}_fingerprint"] = None if absent else self._digest(*arrays)
    for name in self.column_names:
      fingerprints[f"{name}_fingerprint"] = self._digest(*(self.column(split, name) for split in SPLITS))
    if self.validation is not None:
      arrays = (self.validation, _as_int64(self.validation_labels))
      fingerprints["validation_fingerprint"] = self._digest(*arrays)
    return fingerprints

  def _digest(self, *arrays: lazy_arrays.MaybeLazy | None) -> str:
    """Returns the SHA-256 of the arrays; of large data sets, only the rows at `lazy_arrays.probe_indices` are used."""
    digest = hashlib.sha256()
    is_small = lazy_arrays.total_bytes(self.train) + lazy_arrays.total_bytes(self.test) <= _DIGESTED_WHOLE
    for values in arrays:
      if values is None:
        digest.update(b"None")
        continue
      digest.update(f"{values.dtype.str}{values.shape}".encode())
      indices = np.arange(len(values)) if is_small else lazy_arrays.probe_indices(len(values))
      for part in lazy_arrays.parts(values, indices):
        digest.update(part.view(np.uint8).data)  # arrays of strings do not export a buffer
    return digest.hexdigest()


def _as_int64(values: lazy_arrays.MaybeLazy | None) -> lazy_arrays.MaybeLazy | None:
  """Returns integers as int64, so their fingerprint depends only on the values; other arrays are unchanged."""
  if values is None or not np.issubdtype(values.dtype, np.integer):
    return values
  return lazy_arrays.map_rows(values, values.shape[1:], "<i8", lambda rows: rows.astype("<i8"))
