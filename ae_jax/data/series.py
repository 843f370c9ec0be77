"""Data sources of labelled time series [N, T, 1]: files of the UCR archive, and simulated heartbeats."""

import pathlib
import re
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from ae_jax import errors
from ae_jax.data import remarks, splits

_LARGEST_LABEL = 2**31
_TRAINING_FILE = re.compile(r"(.*)_TRAIN(\.txt|\.tsv|)")


def ucr(name: str, path: str) -> dict[str, Any]:
  """Reads a data set of the UCR archive.

  Each line of a file is an integer label and the samples of one series, separated by blanks, tabs or commas. The
  ..._TEST file in the same folder is the test set. Without this file, the last fifth of each class of the training file
  becomes the test set.

  Args:
    name: Name of the source.
    path: Folder of the data set, or the ..._TRAIN file in it (.txt, .tsv or no suffix).

  Raises:
    UserError: A file is missing or damaged, or the series have unequal lengths or are padded with NaN, as in some data
      sets of the archive of 2018.
  """
  where = f"config.data.path={path!r}"
  splits.check_path(name, path, "UCR folder")
  file = _training_file(pathlib.Path(path), where)
  train, train_labels = _read_ucr(file, where)
  test_file = file.with_name(_TRAINING_FILE.sub(r"\1_TEST\2", file.name))
  others = set(_names(path, where)) - {file.name, test_file.name} if pathlib.Path(path).is_dir() else ()
  notes = remarks.not_read(where, others, f"the files that are read are {file.name} and {test_file.name}")
  if test_file.exists():
    test, test_labels = _read_ucr(test_file, where)
    arrays = {"train": train, "train_labels": train_labels, "test": test, "test_labels": test_labels}
    return arrays | {"remarks": notes}
  held_out = splits.last_of_each_class(train_labels, 1 / 5)
  if not held_out.any():
    raise errors.UserError(
      f"{where}: {test_file.name} not found, and no class is large enough to hold out a fifth of it; add a test file"
    )
  return {"train": train, "train_labels": train_labels, "held_out": held_out, "remarks": notes}


def _names(path: str | pathlib.Path, where: str) -> list[str]:
  """Returns the sorted names of the entries of a folder; raises UserError if the folder cannot be read."""
  with errors.convert_errors(f"{where}: cannot be read"):
    return sorted(remarks.visible(path))


def _training_file(path: pathlib.Path, where: str) -> pathlib.Path:
  if path.is_dir():
    files = [path / name for name in _names(path, where) if _TRAINING_FILE.fullmatch(name)]
    if not files:
      raise errors.UserError(
        f"{where}: contains no ..._TRAIN.txt or ..._TRAIN.tsv; set the path to the folder of a data set"
      )
    if len(files) > 1:
      raise errors.UserError(f"{where}: contains {files[0].name} and {files[1].name}; set the path to one of them")
    return files[0]
  if not path.exists():
    raise errors.UserError(f"{where}: file or folder not found; check the path")
  if not _TRAINING_FILE.fullmatch(path.name):
    raise errors.UserError(f"{where}: the name of a training file must end in _TRAIN.txt or _TRAIN.tsv")
  return path


def _read_ucr(
  file: pathlib.Path, where: str
) -> tuple[Float64[np.ndarray, "series samples 1"], Int64[np.ndarray, " series"]]:
  """Returns the series and the labels of one file."""
  try:
    lines = file.read_text(encoding="ascii").replace(",", " ").splitlines()
  except OSError as error:
    raise errors.UserError(f"{where}: {file.name} cannot be read: {error.strerror}") from None
  except UnicodeDecodeError:
    raise errors.UserError(f"{where}: {file.name} is not an ASCII text file of numbers") from None
  rows = []
  for number, line in enumerate(lines, 1):
    fault = _append_row(rows, line.split())
    if fault:
      raise errors.UserError(f"{where}: line {number} of {file.name} {fault}")
  if not rows:
    raise errors.UserError(f"{where}: {file.name} is empty; expected one series per line")
  table = np.stack(rows)
  return table[:, 1:, None], table[:, 0].astype(np.int64)


def _append_row(rows: list[np.ndarray], words: list[str]) -> str | None:
  """Parses the fields of a line and appends the numbers to `rows`; skips blank lines.

  Returns the end of an error message if the line is invalid, otherwise None.
  """
  if not words:
    return None
  try:
    row = np.array([np.nan if word == "?" else float(word) for word in words])
  except ValueError as error:
    return f"is not a line of numbers: {error}"
  if not np.isfinite(row).all():
    return "has missing (NaN, ?) or infinite samples; all series must be complete and have the same length"
  if not float(row[0]).is_integer() or abs(row[0]) > _LARGEST_LABEL:
    return f"begins with {words[0]}; expected an integer label"
  if len(row) < 2 or len(row) != len((rows or [row])[0]):
    expected = f"{len(rows[0]) - 1}, as in the first series" if rows else "1 or more"
    return f"has {len(row) - 1} samples after its label; expected {expected}"
  rows.append(row)
  return None


# wave of a heartbeat -> (seconds after the R peak, height relative to the R peak, standard deviation in seconds)
_WAVES: dict[str, tuple[Any, Any, Any]] = {
  "P": (-0.17, 0.15, 0.025),
  "Q": (-0.035, -0.12, 0.010),
  "R": (0.0, 1.0, 0.012),
  "S": (0.035, -0.22, 0.010),
  "ST": (0.13, 0.0, 0.050),
  "T": (0.27, 0.30, 0.045),
}
HEARTBEATS = ("normal", "no P wave", "premature beat", "ST depression", "inverted T wave")  # class names, by label
_SERIES, _SAMPLES, _SECONDS, _BEATS = 5000, 140, 2.0, 6  # the beats extend beyond both ends of the window


def heartbeats(name: str, path: str) -> dict[str, Any]:
  """Simulates 5,000 electrocardiograms of two seconds (140 samples) as sums of Gaussian waves, with a fixed seed.

  3,000 series are normal, and 500 belong to each other class in `HEARTBEATS`. The last fifth of each class is the test
  set. Heart rate, phase, heights and times of the waves, baseline wander and noise are random in each series. In an
  anomalous series, a wave is missing, lowered or inverted in every beat, or one beat is early, wide and without a P
  wave. Each series has mean 0 and standard deviation 1 (with divisor N - 1, as in the UCR archive). Values are rounded
  to 1e-4, so they do not depend on how the machine computes exp.
  """
  splits.check_no_path(name, path)
  rng = np.random.default_rng(5000)
  labels = rng.permutation(np.repeat([0, 0, 0, 0, 0, 0, 1, 2, 3, 4], _SERIES // 10))
  beats = (_SERIES, _BEATS)
  period = rng.uniform(0.65, 1.0, (_SERIES, 1))  # 60 to 92 beats a minute
  times = period * (np.arange(_BEATS) - 1.5 + rng.uniform(-0.5, 0.5, (_SERIES, 1)) + 0.02 * rng.normal(size=beats))
  early = np.zeros(beats, bool)
  early[labels == 2, rng.integers(2, 4, (labels == 2).sum())] = True
  times -= early * period * rng.uniform(0.25, 0.35, (_SERIES, 1))

  seconds = np.linspace(0.0, _SECONDS, _SAMPLES, endpoint=False)
  x = np.zeros((_SERIES, _SAMPLES))
  for wave, (after, height, width) in _WAVES.items():
    # waves are longer at a slower heart rate
    after = np.sqrt(period / 0.8) * after * (1 + 0.05 * rng.normal(size=(_SERIES, 1)))
    height = height * np.exp(0.15 * rng.normal(size=(_SERIES, 1))) * np.ones(beats)
    height = _HEIGHTS.get(wave, lambda height, labels, early: height)(height, labels[:, None], early)
    width = np.where(early, 2.0, 1.0) * width
    distance = (seconds - (times + after)[..., None]) / width[..., None]  # [N, beats, T]
    x += (height[..., None] * np.exp(-0.5 * distance**2)).sum(1)
  wander = rng.uniform(0.0, 2 * np.pi, (_SERIES, 1)) + 2 * np.pi * rng.uniform(0.15, 0.4, (_SERIES, 1)) * seconds
  x += 0.05 * rng.normal(size=(_SERIES, 1)) * np.sin(wander) + 0.02 * rng.normal(size=x.shape)
  x = (x - x.mean(1, keepdims=True)) / x.std(1, ddof=1, keepdims=True)
  x = x.round(4).astype(np.float32)[..., None]
  return splits.train_and_test(x, labels, splits.last_of_each_class(labels, 1 / 5)) | {"class_names": HEARTBEATS}


# wave -> function (heights [N, beats], labels [N, 1], early [N, beats]) that returns its heights with the anomalies
_HEIGHTS = {
  "P": lambda height, labels, early: np.where((labels == 1) | early, 0.0, height),
  "ST": lambda height, labels, early: height - 0.15 * (labels == 3),
  "T": lambda height, labels, early: np.where((labels == 4) | early, -height, height),
}
