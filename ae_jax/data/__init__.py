"""Data sets as arrays, or as rows that stay in their files: `load` gives a `Dataset` whatever the source."""

import dataclasses
import functools
import hashlib

import numpy as np

from ae_jax import errors
from ae_jax.data import placements, ranges, rows, sources

_DIGESTED_WHOLE = 2**28  # bytes


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Images [N, H, W, C] or series [N, T, C], uint8 or float32, and labels [N] or None, for training and for testing.

  Training examples that do not fit in memory, and their labels, may be `rows.Rows` instead of ndarrays.
  """

  name: str
  value_range: str  # a key of ranges.INTERVALS
  train: np.ndarray | rows.Rows
  test: np.ndarray
  train_labels: np.ndarray | rows.Rows | None
  test_labels: np.ndarray | None
  one_class: int = -1  # the label that all training examples have; -1: whatever they have
  streams: bool = False  # whether the training examples go to the device chunk by chunk (`streams.chunks`)
  placement: str = ""  # where they lie and why, in words
  train_factors: np.ndarray | None = None  # what each example was made of, where that is known: int [N, factors]
  test_factors: np.ndarray | None = None
  factor_values: dict = dataclasses.field(default_factory=dict)  # {factor: its values, words or numbers, by number}

  @property
  def shape(self):
    """(H, W, C) of an image, (T, C) of a series."""
    return self.train.shape[1:]

  @property
  def anomalous(self):
    """Which test examples have another label than the training examples, bool [N]; None if those are of any label."""
    return None if self.one_class == -1 else self.test_labels != self.one_class

  @functools.cached_property
  def train_sample(self):
    """Training examples in memory [K, ...]: all or, of `rows.Rows`, 20,000 or 256 MiB at most, by a fixed seed."""
    return rows.sample(self.train)

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

  def fingerprint(self):
    """SHA-256 over shapes, types and contents of the examples: equal for equal data, on any machine, wherever they lie.

    Of a set of more than 256 MiB, of each half the first, the last and 1,000 other examples speak for all.
    """
    digest = hashlib.sha256()
    whole = rows.bytes_of(self.train) + rows.bytes_of(self.test) <= _DIGESTED_WHOLE
    for examples in (self.train, self.test):
      digest.update(f"{examples.dtype.str}{examples.shape}".encode())
      numbers = np.arange(len(examples)) if whole else rows.probes(len(examples))
      for part in rows.parts(examples, numbers):
        digest.update(part.data)
    return digest.hexdigest()


def load(name, path, range, one_class=-1, placement="auto", budget_gib=0.0):
  """The data set that `config.data` describes; UserError where it is absent, damaged or not what it should be.

  `name` is one of `sources.SOURCES` or of TensorFlow Datasets' image sets; `path` what its source reads, or TFDS's
  folder ("" means TFDS's own choice); `range` is what the model is to see, one of `ranges.INTERVALS`. Unless
  `one_class` is -1, training keeps only the examples with this label; the test set stays whole. `placement` and
  `budget_gib` decide where the training examples lie (`placements.decide`); the test examples lie in memory.

  Of examples that stay in their files only the first, the last and 1,000 others are looked at here; what is wrong with
  another is found when it is read.
  """
  errors.choose(ranges.INTERVALS, range, "data.range")
  decide = functools.partial(placements.decide, placement, budget_gib)
  source = sources.SOURCES.get(name, sources.tfds)
  arrays = source(name, path)
  factor_values = arrays.pop("factor_values", {})
  where = f"config.data.name={name!r}" + (f" ({path})" if path else "")
  for key in ("train", "test"):
    arrays[key] = _as_float32(arrays[key])
    _check(_shape_fault(arrays[key], arrays["train"], range), key, where)
  first = decide(rows.bytes_of(arrays["train"]))
  if isinstance(arrays["test"], rows.Rows) and rows.bytes_of(arrays["test"]) > first.budget:
    raise errors.UserError(
      f"{where}: the test examples, which lie in memory, need {placements.gib(rows.bytes_of(arrays['test']))}, and the "
      f"budget is {placements.gib(first.budget)}; give fewer, or raise config.data.budget_gib"
    )
  if not first.lazy:
    arrays = {key: rows.loaded(values) for key, values in arrays.items()}
  if one_class != -1:
    _keep_only(one_class, arrays, where)
  if len(arrays["train"]) < 2:
    raise errors.UserError(f"{where}: one training example; 2 or more are wanted")
  decided = decide(rows.bytes_of(arrays["train"]))
  for key in arrays:
    if not (decided.lazy and key in ("train", "train_labels")):
      arrays[key] = rows.gathered(arrays[key])
  for key in ("train", "test"):
    if isinstance(arrays[key], rows.Rows):
      arrays[key] = _checked(arrays[key], range, f"{where}: {key}ing example")
      rows.gather(arrays[key], rows.probes(len(arrays[key])))
    else:
      _check(ranges.fault(arrays[key], range), key, where)
  halves = [arrays.get(f"{half}{what}") for what in ("", "_labels", "_factors") for half in ("train", "test")]
  examples, labels, factors = halves[:2], halves[2:4], halves[4:]
  lie = (decided.streams, decided.words)
  return Dataset(name, range, *examples, *labels, one_class, *lie, *factors, factor_values)


def _check(fault, key, where):
  if fault:
    raise errors.UserError(f"{where}: the array of {key} examples {fault}")


def _as_float32(examples):
  """Floating-point examples as float32; what is lazy stays so."""
  if not np.issubdtype(examples.dtype, np.floating):
    return examples
  return rows.mapped(examples, examples.shape[1:], np.float32, ranges.as_float32)


def _checked(examples, value_range, name):
  """Lazy examples that raise UserError when one of them is read that is not of the range."""

  def read(numbers):
    found = examples.read(numbers)
    if ranges.fault(found, value_range):
      faults = ((number, ranges.fault(row, value_range)) for number, row in zip(numbers, found, strict=True))
      raise errors.UserError("{} {} {}".format(name, *next(pair for pair in faults if pair[1])))
    return found

  return dataclasses.replace(examples, read=read)


def _keep_only(label, arrays, where):
  """Drops the training examples with another label from the arrays."""
  key = f"config.data.one_class={label!r}"
  for half in ("train", "test"):
    labels = arrays.get(f"{half}_labels")
    if labels is None:
      raise errors.UserError(f"{key}: {where} has no labels of its {half} examples; set it to -1")
    if not np.issubdtype(labels.dtype, np.integer):
      raise errors.UserError(f"{key}: {where} has labels of dtype {labels.dtype}; integers are wanted")
    arrays[f"{half}_labels"] = labels = rows.gathered(labels)
    if label not in labels:
      known = ", ".join(map(str, np.unique(labels)[:20]))
      raise errors.UserError(f"{key}: no {half} example of {where} has this label; it has {known}")
  kept = arrays["train_labels"] == label
  for key in ("train", "train_labels", "train_factors"):
    if key in arrays:
      arrays[key] = rows.take(arrays[key], kept)


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
