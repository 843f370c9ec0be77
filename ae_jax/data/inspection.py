"""Describes the examples that a source returns: values, labels, missing values, duplicates and constant elements."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ae_jax.data import (
  consecutive,
  detection,
  draws,
  faults,
  kinds,
  labels,
  lazy_arrays,
  lengths,
  loss_columns,
  one_class,
  remarks,
  schema_fit,
  splits,
  statistics,
  table_inspection,
  tables,
)
from ae_jax.system import paths
from ae_jax.types import KINDS

_MOST_CLASSES = 10  # maximum number of classes in a line
_MOST_EXAMPLES = 5  # maximum number of examples in a line
_CHANNELS = 8  # float arrays [N, T, C] with fewer than this number of channels are treated as series
RECORD_STEPS = 10 * consecutive.WINDOW  # tables with fewer rows are hardly recordings
# Keys of config.data. Windows overlap by three quarters, so that a recording has enough of them for training.
RECORD_OPTIONS = {"window": consecutive.WINDOW, "stride": consecutive.WINDOW // 4, "range": "real", "scale": "standard"}
_FAMILIES = {"table": "dense", "series": "sequence", "images": "cnn", "volumes": "dense"}  # kind -> shipped config
_TABLES = (*schema_fit.NAMED, *tables.BUNDLED)  # sources whose columns have names; `configs/table.py` trains on them
_SET = ("range", "scale")  # keys of config.data that `configs/table.py` already sets
_SETS = {"train": "training", "validation": "validation", "test": "test"}
_USES = {"train": "training", "validation": "validation", "test": "testing"}
_SMALLEST = 8  # the convolutional model needs images with sides of at least this size
_SCALED = ("images", "volumes")  # kinds whose integers are scaled to the range "unit"
_ELEMENTS = {"table": "columns", "series": "elements", "images": "pixels", "volumes": "voxels"}


class Inspection(NamedTuple):
  """Description of the data at a path."""

  lines: list[str]  # for the user
  options: dict[str, Any]  # keys of config.data besides the name and the path
  kind: str  # a value of types.KINDS
  shape: tuple[int, ...]  # of an example
  has_targets: bool = False
  # keys of config.data that cut the rows into windows, if they can be the time steps of a recording
  recorded: dict[str, Any] | None = None


def inspect(found: detection.Found, path: str) -> Inspection:
  """Reads all examples of a source and describes them.

  Args:
    found: The source and its arrays.
    path: The path, used as prefix of messages.

  Raises:
    UserError: The examples have an unsupported number of axes, or a file cannot be read.
  """
  options, arrays = with_kind(found, path)
  arrays, names, sizes = _split(arrays, found.files, path)
  kind, shape = KINDS[len(arrays["train"].shape) - 1], arrays["train"].shape[1:]
  by_split = {split: statistics.measure(arrays[split], path) for split in splits.present(arrays)}
  is_table = found.name in _TABLES  # columns have different units, so one range for all of them is meaningless
  lines = [*found.lines, f"examples: {sizes}", *_on_values(arrays, by_split, kind)[: 1 if is_table else None]]
  lines += table_inspection.lines(arrays, by_split["train"].constant, names) if is_table else _on_lengths(arrays)
  lines += _on_loss_columns(found.arrays)
  if not is_table or not table_inspection.label_column(arrays):
    lines.append(on_labels(arrays))
  lines += [*_on_faults(by_split, names, kind), *_on_duplicates(by_split)]
  lines += arrays.get("remarks") or ()
  notes = consecutive.remarks(found.arrays["train"], found.arrays.get("table"), found.name, path)
  lines += notes
  options |= table_inspection.options(arrays) if is_table else _range_options(by_split, arrays["train"].dtype, kind)
  recorded = None
  if found.name in tables.FILES and notes:
    recorded = RECORD_OPTIONS | table_inspection.recording_options(arrays, options)
  elif found.name == "npy" and kind == "table" and splits.present(found.arrays) == ["train"]:
    is_long = shape[0] < _CHANNELS and len(found.arrays["train"]) >= RECORD_STEPS
    recorded = RECORD_OPTIONS if is_long or notes else None
    if recorded is None:
      lines.append("if the rows are the time steps of one recording, cut it into windows: --config.data.window=STEPS")
  return Inspection(lines, options | _one_class(arrays), kind, shape, "train_target" in arrays, recorded)


def command(name: str, path: str, result: Inspection) -> str:
  """Returns the command line that trains on the data of a source; `path` is "" for a built-in data set."""
  if name in _TABLES:
    return _command("table", name, path, {key: value for key, value in result.options.items() if key not in _SET})
  family = _FAMILIES[result.kind]
  if family == "cnn" and min(result.shape[:2]) < _SMALLEST:
    family = "dense"
  elif family == "cnn" and result.has_targets:
    family = "unet"
  likelihood = ["--config.objective.likelihood=gaussian"] if "range" in result.options else []
  return _command(family, name, path, result.options, likelihood)


def record_command(name: str, path: str, options: Mapping[str, Any]) -> str:
  """Returns the command that trains on windows of recordings; `options` are keys of `config.data`."""
  others = ["--config.objective.likelihood=gaussian"]
  if "one_class" in options:
    others.append(remarks.as_flag("evaluators", ("reconstruction", "anomaly")))
  return _command("dense", name, path, options, others)


def _command(family: str, name: str, path: str, options: Mapping[str, Any], others: Sequence[str] = ()) -> str:
  """Returns the command line that trains on a source with the shipped config `family`."""
  flags = {"path": path, **options} if path else options
  arguments = [remarks.as_flag(f"data.{key}", value) for key, value in flags.items()]
  return paths.command_line(["ae_jax", "train", f"--config={family}:{name}", *arguments, *others])


def value_options(name: str, arrays: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
  """Returns values of config.data.range and config.data.scale that suit the examples; {} if the defaults do.

  Args:
    name: Name of the source.
    arrays: Arrays of the source; not used for a table with named columns.
    kind: Kind of the examples, a value of types.KINDS.
    where: Prefix of error messages.

  Raises:
    UserError: The examples are not numbers.
  """
  if name in _TABLES:
    return {"range": "real", "scale": "standard"}
  dtype = arrays["train"].dtype
  if dtype == np.uint8 and kind in _SCALED:  # no need to read the images
    return {}
  by_split = {split: statistics.measure(arrays[split], where) for split in splits.present(arrays)}
  return _range_options(by_split, dtype, kind)


def with_kind(found: detection.Found, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns the options of a source, with "kind" if the examples look like series, and its arrays with channel axes."""
  options, arrays = dict(found.options), dict(found.arrays)
  if "kind" not in options and found.name in kinds.ARRAY_FILES and _looks_like_series(arrays["train"]):
    options["kind"] = "series"
  kinds.apply(arrays, options.get("kind", "auto"), found.name, where)
  return options, arrays


def _looks_like_series(train: lazy_arrays.MaybeLazy) -> bool:
  axes = train.shape
  return len(axes) == 3 and train.dtype.kind == "f" and axes[2] < min(_CHANNELS, axes[1])


def _split(
  arrays: dict[str, Any], files: Mapping[str, Sequence[str]], where: str
) -> tuple[dict[str, Any], dict[str, np.ndarray], str]:
  """Returns the arrays of all splits, {split: names of its examples}, and a string with the sizes of the splits.

  A test set is drawn if the source has none. The name of an example is its file, or its row in the array.
  """
  source = "the test set of the files"
  names = {split: np.array(files[split]) if files else _row_names(arrays[split]) for split in splits.present(arrays)}
  if "test" not in arrays:
    _, division, _ = draws.divide(
      draws.Options(), arrays, arrays.get("held_out"), None, arrays.get("class_names"), where
    )
    rows = division.rows["test"]
    names |= {"test": names["train"][rows], "train": np.delete(names["train"], rows)}
    source = "held out of the training examples, as there is no test set"
  sizes = ", ".join(f"{len(arrays[split]):,} for {_USES[split]}" for split in splits.present(arrays))
  return arrays, names, f"{sizes} ({source})"


def _row_names(examples: lazy_arrays.MaybeLazy) -> np.ndarray:
  return np.char.add("row ", np.arange(len(examples)).astype(str))


def _on_values(arrays: dict[str, Any], by_split: Mapping[str, statistics.Statistics], kind: str) -> list[str]:
  """Returns lines about the kind, the shape, the dtype and the range of the examples."""
  train, low, high = arrays["train"], *_range(by_split)
  whole = "" if train.dtype.kind != "f" or not _whole(by_split) else ", all whole numbers"
  lines = [
    f"kind: {kind}, {remarks.examples_of(train.shape[1:], train.shape[1] if kind == 'table' else 0)}",
    f"values: {train.dtype} from {low:,.6g} to {high:,.6g}{whole}",
  ]
  examined = sum(len(found.indices) for found in by_split.values())
  if examined < sum(len(arrays[split]) for split in by_split):
    lines.append(f"examined: {examined:,} evenly spaced examples; the lines below are about these")
  return lines


def _on_lengths(arrays: dict[str, Any]) -> list[str]:
  """Returns a line about the lengths of padded series."""
  found = [arrays[name] for split in splits.present(arrays) if (name := f"{split}_{lengths.NAME}") in arrays]
  every = np.concatenate([lazy_arrays.read_all(each).reshape(-1) for each in found]) if found else np.array([])
  return [f"lengths: {every.min():,} to {every.max():,} steps"] if len(every) else []


def _on_loss_columns(arrays: Mapping[str, Any]) -> list[str]:
  """Returns lines that name the targets, masks and weights in the files."""
  present = splits.present(arrays)
  given = {name: [f"{name}_{split}" for split in present if f"{split}_{name}" in arrays] for name in loss_columns.NAMES}
  return [f"{name}s: {', '.join(found)}" for name, found in given.items() if found]


def on_labels(arrays: dict[str, Any], name: str = "labels") -> str:
  """Returns a line with the number of examples of each class; it begins with `name`."""
  stored = {split: arrays.get(f"{split}_labels") for split in splits.present(arrays)}
  given = {split: lazy_arrays.read_all(each) for split, each in stored.items() if each is not None}
  if not given:
    return f"{name}: none"
  values = np.concatenate(list(given.values()))
  if values.dtype.kind == "f":
    return f"{name}: none, because the numbers from {values.min():.6g} to {values.max():.6g} have fractions"
  classes = np.unique(values).tolist()
  texts = []
  for label in classes[:_MOST_CLASSES]:
    counts = ", ".join(f"{(each == label).sum():,} {split}" for split, each in given.items())
    texts.append(f"{labels.class_name(label, arrays.get('class_names'))} ({counts})")
  rest = len(classes) - len(texts)
  return f"{name}: {len(classes)} classes: {', '.join([*texts, f'{rest} more'] if rest else texts)}"


def _one_class(arrays: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {"one_class": class} if the training set has a single class and the test set has others, otherwise {}."""
  label, names = one_class.likely(arrays.get("train_labels"), arrays.get("test_labels")), arrays.get("class_names")
  if label is None:
    return {}
  return {"one_class": labels.class_name(label, names) if names else label}


def _on_faults(by_split: Mapping[str, statistics.Statistics], names: Mapping[str, np.ndarray], kind: str) -> list[str]:
  """Returns lines about missing and infinite values, and about constant elements and examples."""
  lines = []
  for split, found in by_split.items():
    rows = np.flatnonzero(found.missing)
    if len(rows):
      number = f"{int(found.missing.sum()):,} in {len(rows):,} of {len(found.indices):,} {_SETS[split]} examples"
      lines.append(f"missing values: {number}; {_first(found.indices[rows], names[split])}")
    if found.infinite:
      lines.append(f"infinite values: {found.infinite:,} in the {_SETS[split]} examples")
    rows = np.flatnonzero(found.uniform)
    if len(rows) and kind != "table":
      examples = remarks.counted(len(rows), f"{_SETS[split]} example")
      lines.append(f"all elements equal, such as black images: {examples}; {_first(found.indices[rows], names[split])}")
  lines = lines or ["missing values: none"]
  constant = by_split["train"].constant
  return [*lines, f"constant {_ELEMENTS[kind]} in the training examples: {int(constant.sum()):,} of {constant.size:,}"]


def _first(indices: np.ndarray, names: np.ndarray) -> str:
  """Returns a string with the names of the first examples in `indices`."""
  listed = names[indices[:_MOST_EXAMPLES]].tolist()
  more = f" and {len(indices) - len(listed):,} more" if len(indices) > len(listed) else ""
  return f"{', '.join(listed)}{more}"


def _on_duplicates(by_split: Mapping[str, statistics.Statistics]) -> list[str]:
  known = by_split["train"].hashes
  shared = {split: faults.count_common(found.hashes, known) for split, found in by_split.items()}
  copies = ", ".join(f"{found.copies:,} in the {_SETS[split]} examples" for split, found in by_split.items())
  others = " and ".join(remarks.counted(shared[split], f"{split} example") for split in by_split if split != "train")
  return [f"exact duplicates: {copies}; {others} also among the training examples"]


def _range(by_split: Mapping[str, statistics.Statistics]) -> tuple[float, float]:
  lows, highs = [found.low for found in by_split.values()], [found.high for found in by_split.values()]
  return float(np.fmin.reduce(lows)), float(np.fmax.reduce(highs))


def _whole(by_split: Mapping[str, statistics.Statistics]) -> bool:
  return all(found.whole for found in by_split.values())


def _range_options(by_split: Mapping[str, statistics.Statistics], dtype: np.dtype, kind: str) -> dict[str, Any]:
  """Returns values of config.data.range and config.data.scale that suit the examples; {} if the defaults do."""
  low, high = _range(by_split)
  is_scaled = low >= 0 and high <= 65_535 and (dtype.kind in "bui" or _whole(by_split))
  if (low >= 0 and high <= 1) or (kind in _SCALED and is_scaled):
    return {}
  if low >= -1 and high <= 1:
    return {"range": "symmetric"}
  return {"range": "real", "scale": "standard"}
