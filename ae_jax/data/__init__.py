"""Data sets as arrays, or as rows that stay in their files: `load` gives a `Dataset` whatever the source."""

import dataclasses
import functools
import hashlib

import numpy as np

from ae_jax import errors
from ae_jax.data import lazy_arrays, placements, ranges, remarks, sources
from ae_jax.data import one_class as one_classes
from ae_jax.data.columns import class_numbers, flat_columns, label_values, of_half
from ae_jax.system import paths

__all__ = ["Dataset", "class_numbers", "flat_columns", "label_values", "load", "of_half"]

_DIGESTED_WHOLE = 2**28  # bytes


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Images [N, H, W, C] or series [N, T, C], uint8 or float32, and labels [N] or None, for training and for testing.

  Training examples that do not fit in memory, and their labels, may be `lazy_arrays.LazyArray` instead of ndarrays.
  """

  name: str
  value_range: str  # a key of ranges.INTERVALS
  train: np.ndarray | lazy_arrays.LazyArray
  test: np.ndarray
  train_labels: np.ndarray | lazy_arrays.LazyArray | None
  test_labels: np.ndarray | None
  one_class: int | None = None  # the label that all training examples have; None: any
  streams: bool = False  # whether the training examples go to the device chunk by chunk (`streams.chunks`)
  placement: str = ""  # where they lie and why, in words
  train_factors: np.ndarray | None = None  # what each example was made of, where that is known: int [N, factors]
  test_factors: np.ndarray | None = None
  factor_values: dict = dataclasses.field(default_factory=dict)  # {factor: its values, words or numbers, by number}
  remarks: tuple[str, ...] = ()  # sentences for the user: what is not read, left out, or scaled unexpectedly

  @property
  def shape(self):
    """(H, W, C) of an image, (T, C) of a series."""
    return self.train.shape[1:]

  @property
  def anomalous(self):
    """Which test examples have another label than the training examples, bool [N]; None if those are of any label."""
    return None if self.one_class is None else self.test_labels != self.one_class

  @functools.cached_property
  def train_sample(self):
    """Training examples in memory [K, ...]: all or, of `lazy_arrays.LazyArray`, 20,000 or 256 MiB at most, by a fixed seed."""
    return lazy_arrays.sample(self.train)

  @functools.cached_property
  def span(self) -> ranges.Span:
    """The span of the range; of the training values if the range is "real" and the data are not bytes.

    Of those, masked elements become 0 or the training value nearest to it. Constant data have the width 1.
    """
    if self.value_range != "real" or self.train.dtype == np.uint8:
      return ranges.SPANS[self.value_range]
    low, high = float(self.train_sample.min()), float(self.train_sample.max())
    return ranges.Span(low, high if high > low else low + 1.0, min(max(0.0, low), high))

  @property
  def peak(self) -> float:
    """The width of the span, as PSNR needs it."""
    return self.span.high - self.span.low

  def fingerprint(self) -> str:
    """Returns the SHA-256 of shapes, types and contents of the examples, the same wherever they lie.

    Of a data set of more than 256 MiB, the first, the last and 1,000 other examples of each half are digested.
    """
    return self._digest(self.train, self.test)

  @functools.cached_property
  def fingerprints(self) -> dict[str, str | None]:
    """The fingerprints of the examples, the labels and the factors, as config.json stores them.

    They are computed once, because a sweep describes the data set for each of its members. Labels and factors that are
    absent have None. Integers count by their value, not by their type.
    """
    found = {"fingerprint": self.fingerprint()}
    for what in ("labels", "factors"):
      halves = [_as_int64(getattr(self, f"{half}_{what}")) for half in ("train", "test")]
      absent = all(values is None for values in halves)
      found[f"{what}_fingerprint"] = None if absent else self._digest(*halves)
    return found

  def _digest(self, *halves):
    """The SHA-256 of some arrays of the halves, whole or, if there are many examples, at `lazy_arrays.probes`."""
    digest = hashlib.sha256()
    whole = lazy_arrays.bytes_of(self.train) + lazy_arrays.bytes_of(self.test) <= _DIGESTED_WHOLE
    for values in halves:
      if values is None:
        digest.update(b"None")
        continue
      digest.update(f"{values.dtype.str}{values.shape}".encode())
      numbers = np.arange(len(values)) if whole else lazy_arrays.probes(len(values))
      for part in lazy_arrays.parts(values, numbers):
        digest.update(part.view(np.uint8).data)  # strings have no buffer of their own
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

  Of examples that stay in their files, the first, the last and 1,000 others are checked here, and each when it is read.

  Args:
    name: A key of `sources.SOURCES`, or an image set of TensorFlow Datasets.
    path: The path that the source reads; for TensorFlow Datasets its folder, or "" for its own choice.
    range: The range that the model sees, a key of `ranges.INTERVALS`.
    one_class: The label of the training examples to keep, or None to keep all (see `one_class.keep`). The test half
      stays whole.
    placement: Where the training examples lie, a key of `placements.PLACEMENTS`. The test examples lie in memory.
    budget_gib: See `placements.decide`.
    augment: Not used here, where examples are loaded unchanged; see `augmentation.build`.

  Raises:
    UserError: If the data are absent, damaged, or not of the range.
  """
  del augment
  errors.choose(ranges.INTERVALS, range, "data.range")
  path = str(paths.local_path("config.data.path", path)) if path else ""
  arrays = sources.SOURCES.get(name, sources.tfds)(name, path)
  factor_values, said = arrays.pop("factor_values", {}), arrays.pop("remarks", [])
  where = f"config.data.name={name!r}" + (f" ({path})" if path else "")
  for key in ("train", "test"):
    arrays[key] = _as_float32(arrays[key])
    _check(_shape_fault(arrays[key], arrays["train"], range), key, where)
  decide = functools.partial(placements.decide, placement, budget_gib)
  one_class, done, decided = _narrowed(arrays, one_class, decide, where)
  for key in ("train", "test"):
    arrays[key] = _verified(arrays[key], range, key, where)
  return Dataset(
    name=name,
    value_range=range,
    one_class=one_class,
    streams=decided.streams,
    placement=decided.words,
    factor_values=factor_values,
    remarks=(*said, *done, *remarks.binary_bytes(where, arrays["train"])),
    **({"train_labels": None, "test_labels": None} | arrays),
  )


def _narrowed(arrays, one_class, decide, where):
  """Drops the training examples of other classes and reads the arrays that lie in memory, in place.

  Returns the class that was applied, sentences about it, and the `Placement` of the training examples that are left.
  """
  first = decide(lazy_arrays.bytes_of(arrays["train"]))
  _check_test_fits(arrays["test"], first, where)
  if not first.lazy:
    arrays.update({key: lazy_arrays.loaded(values) for key, values in arrays.items()})
  one_class, said = one_classes.keep(one_class, arrays, where)
  if len(arrays["train"]) < 2:
    raise errors.UserError(f"{where}: one training example; 2 or more are wanted")
  decided = decide(lazy_arrays.bytes_of(arrays["train"]))
  for key in arrays:
    if not (decided.lazy and key in ("train", "train_labels")):
      arrays[key] = lazy_arrays.gathered(arrays[key])
  return one_class, said, decided


def _check_test_fits(examples, decided, where):
  """Raises UserError if test examples in files are larger than the budget of the memory."""
  needed = lazy_arrays.bytes_of(examples)
  if isinstance(examples, lazy_arrays.LazyArray) and needed > decided.budget:
    raise errors.UserError(
      f"{where}: the test examples, which lie in memory, need {placements.gib(needed)}, and the budget is "
      f"{placements.gib(decided.budget)}; give fewer, or raise config.data.budget_gib"
    )


def _check(fault, key, where):
  if fault:
    raise errors.UserError(f"{where}: the array of {key} examples {fault}")


def _as_float32(examples):
  """Floating-point examples as float32; what is lazy stays so."""
  if not np.issubdtype(examples.dtype, np.floating):
    return examples
  return lazy_arrays.mapped(examples, examples.shape[1:], np.float32, ranges.as_float32)


def _as_int64(values):
  """Integers as int64, so that a fingerprint depends on their values alone; anything else as it is."""
  if values is None or not np.issubdtype(values.dtype, np.integer):
    return values
  return lazy_arrays.mapped(values, values.shape[1:], "<i8", lambda found: found.astype("<i8"))


def _verified(examples, value_range, key, where):
  """Examples of the range: checked here if they lie in memory, else some here and each when it is read."""
  if isinstance(examples, lazy_arrays.LazyArray):
    examples = _checked(examples, value_range, f"{where}: {key}ing example")
    lazy_arrays.gather(examples, lazy_arrays.probes(len(examples)))
  else:
    _check(ranges.fault(examples, value_range), key, where)
  return examples


def _checked(examples, value_range, name):
  """Lazy examples that raise UserError when one of them is read that is not of the range."""

  def read(numbers):
    found = examples.read(numbers)
    if ranges.fault(found, value_range):
      faults = ((number, ranges.fault(row, value_range)) for number, row in zip(numbers, found, strict=True))
      raise errors.UserError("{} {} {}".format(name, *next(pair for pair in faults if pair[1])))
    return found

  return dataclasses.replace(examples, read=read)


def _shape_fault(examples, train, value_range):
  axes = len(examples.shape)
  if axes not in (3, 4):
    return f"has {axes} axes; [N, H, W] or [N, H, W, C] is wanted"
  if 0 in examples.shape:
    return f"has shape {examples.shape}: nothing in it"
  if axes == 4 and examples.shape[3] not in (1, 3):
    return f"has {examples.shape[3]} channels in its last axis; 1 or 3 are wanted"
  if examples.shape[1:] != train.shape[1:] or examples.dtype != train.dtype:
    return f"is {examples.dtype} {examples.shape[1:]}, but the training examples are {train.dtype} {train.shape[1:]}"
  return ranges.fault(np.empty(0, examples.dtype), value_range)
