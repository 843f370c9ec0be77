"""Describes a folder of recordings for `ae_jax data`: .npy files [T, C], of which `config.data.window` cuts windows."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from ae_jax import errors
from ae_jax.data import consecutive, detection, inspection, labels, lazy_arrays, one_class, remarks, series_folders

_MOST_NAMES = 5  # maximum number of recordings in a line
_MOST_CHANNELS = 10  # maximum number of channels in a line
_SETS = {"train": "training recordings", "validation": "validation recordings", "test": "test recordings"}


class _Measured(NamedTuple):
  """Properties of one recording."""

  low: Float64[np.ndarray, " channels"]  # smallest value of each channel; NaN if all are missing
  high: Float64[np.ndarray, " channels"]
  missing: int  # number of NaN values


def inspect(path: str) -> inspection.Inspection | None:
  """Describes the recordings in a folder; returns None if the path is no folder of long recordings.

  The files are long recordings if half of them have at least `inspection.RECORD_STEPS` steps and the rows of the
  longest one look like consecutive steps.
  """
  if not (pathlib.Path(path).is_dir() and detection.DETECTORS["npy"].matches(pathlib.Path(path))):
    return None
  if not series_folders.applies("npy", path, "auto", consecutive.WINDOW):
    return None
  try:
    arrays = series_folders.read(path, consecutive.WINDOW)
  except errors.UserError:  # a folder of other arrays
    return None
  steps = arrays["record_steps"]
  every = [count for counts in steps.values() for count in counts]
  if np.median(every) < inspection.RECORD_STEPS or not _are_consecutive(arrays["train"], steps["train"]):
    return None
  found = [lazy_arrays.read_all(arrays[f"{split}_labels"]) for split in steps if f"{split}_labels" in arrays]
  of_steps = np.concatenate(found) if found else np.array([0])
  usual = None if of_steps.dtype.kind == "f" else one_class.usual(of_steps)
  normal = None if usual is None else labels.class_name(usual, arrays["class_names"])
  options = inspection.RECORD_OPTIONS | ({} if normal is None else {"one_class": normal})
  shape = (consecutive.WINDOW, arrays["train"].shape[1])
  return inspection.Inspection(_lines(arrays), options, "series", shape, recorded=options)


def _are_consecutive(train: lazy_arrays.LazyArray, steps: tuple[int, ...]) -> bool:
  """Returns whether the rows of the longest recording look like consecutive steps."""
  longest = int(np.argmax(steps))
  first = sum(steps[:longest])
  rows = lazy_arrays.read_rows(train, np.arange(first, first + min(steps[longest], consecutive.EXAMINED)))
  return consecutive.look_consecutive(rows)


def _lines(arrays: Mapping[str, Any]) -> list[str]:
  """Returns lines about the lengths, channels, values and labels of the recordings."""
  lines, measured, names = [], [], []
  for split, steps in arrays["record_steps"].items():
    of_split, ends = arrays["record_names"][split], np.cumsum(steps)
    lines.append(f"{_SETS[split]}: {_on_steps(of_split, steps)}")
    for name, first, stop in zip(of_split, ends - steps, ends, strict=True):
      measured.append(_measure(arrays[split], np.arange(first, stop)))
      names.append(name)
  if "test" not in arrays["record_steps"]:
    lines.append("test set: the last fifth of each recording (config.data.test)")
  low = np.fmin.reduce([each.low for each in measured])
  high = np.fmax.reduce([each.high for each in measured])
  shown = [f"channel {channel}: {low[channel]:,.6g} to {high[channel]:,.6g}" for channel in range(len(low))]
  more = f"; {len(shown) - _MOST_CHANNELS} more" if len(shown) > _MOST_CHANNELS else ""
  lines.append(f"values: {arrays['train'].dtype}; {'; '.join(shown[:_MOST_CHANNELS])}{more}")
  lines.append(inspection.on_labels(arrays, "labels of the steps"))
  gaps = [f"{name} ({each.missing:,})" for name, each in zip(names, measured, strict=True) if each.missing]
  missing = f"{', '.join(gaps)}; fill them, because windows must be complete" if gaps else "none"
  lines.append(f"missing values: {missing}")
  lines.append(f"constant channels: {int((low == high).sum()):,} of {len(low):,}")
  return [*lines, *arrays["remarks"], "if each file is one example: --config.data.kind=series, without a window"]


def _on_steps(names: tuple[str, ...], steps: tuple[int, ...]) -> str:
  """Returns a text with the number of files of a split and their lengths."""
  listed = ", ".join(f"{name} ({count:,})" for name, count in list(zip(names, steps, strict=True))[:_MOST_NAMES])
  more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
  lengths = f"{min(steps):,} to {max(steps):,} steps, {sum(steps):,} in all"
  return f"{remarks.counted(len(names), 'file')} of {lengths}: {listed}{more}"


def _measure(steps: lazy_arrays.LazyArray, rows: Int[np.ndarray, " steps"]) -> _Measured:
  """Reads the steps of a recording at `rows` in parts."""
  low, high, missing = [], [], 0
  for part in lazy_arrays.parts(steps, rows):
    values = part.astype(np.float64)
    low.append(np.fmin.reduce(values))
    high.append(np.fmax.reduce(values))
    missing += int(np.isnan(values).sum())
  return _Measured(np.fmin.reduce(low), np.fmax.reduce(high), missing)
