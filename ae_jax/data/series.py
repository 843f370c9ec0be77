"""Series, as sources of data: the files of the UCR archive, and heartbeats made from a seed; [N, T, 1] with labels."""

import pathlib
import re

import numpy as np

from ae_jax import errors
from ae_jax.data import remarks, splits

_LARGEST_LABEL = 2**31
_TRAINING_FILE = re.compile(r"(.*)_TRAIN(\.txt|\.tsv|)")


def ucr(name, path):
  """A data set of the UCR archive: `path` is its folder or its ..._TRAIN file (.txt, .tsv or neither).

  A line is an integer label and then the samples, between blanks, tabs or commas. Testing takes the ..._TEST file
  beside it or, where there is none, the last fifth of each class of the training file. Raises UserError, also for
  series of unequal length, whether they are padded with NaN (as in the archive of 2018) or not.
  """
  where = f"config.data.path={path!r}"
  splits.check_path(name, path, "UCR folder")
  file = _training_file(pathlib.Path(path), where)
  train, train_labels = _read_ucr(file, where)
  test_file = file.with_name(_TRAINING_FILE.sub(r"\1_TEST\2", file.name))
  others = set(_names(path, where)) - {file.name, test_file.name} if pathlib.Path(path).is_dir() else ()
  said = remarks.not_read(where, others, f"the files that are read are {file.name} and {test_file.name}")
  if test_file.exists():
    test, test_labels = _read_ucr(test_file, where)
    halves = {"train": train, "train_labels": train_labels, "test": test, "test_labels": test_labels}
    return halves | {"remarks": said}
  held_out = splits.last_of_each_class(train_labels, 1 / 5)
  if not held_out.any():
    raise errors.UserError(
      f"{where}: there is no {test_file.name} beside it, and no class is large enough to hold a fifth of it out"
    )
  return splits.split(train, train_labels, held_out) | {"remarks": said}


def _names(path, where):
  """The names in a folder; UserError if it cannot be read."""
  with errors.explained(f"{where}: cannot be read"):
    return sorted(remarks.visible(path))


def _training_file(path, where):
  if path.is_dir():
    files = [path / name for name in _names(path, where) if _TRAINING_FILE.fullmatch(name)]
    if not files:
      raise errors.UserError(f"{where}: no ..._TRAIN.txt or ..._TRAIN.tsv in this folder")
    if len(files) > 1:
      raise errors.UserError(f"{where}: holds {files[0].name} and {files[1].name}; name the file that is meant")
    return files[0]
  if not path.exists():
    raise errors.UserError(f"{where}: there is no such file or folder")
  if not _TRAINING_FILE.fullmatch(path.name):
    raise errors.UserError(f"{where}: the name of a training file ends in _TRAIN.txt or _TRAIN.tsv")
  return path


def _read_ucr(file, where):
  """(series float64 [N, T, 1], labels int64 [N]) of one file."""
  try:
    lines = file.read_text(encoding="ascii").replace(",", " ").splitlines()
  except OSError as error:
    raise errors.UserError(f"{where}: {file.name} cannot be read: {error.strerror}") from None
  except UnicodeDecodeError:
    raise errors.UserError(f"{where}: {file.name} is not a text of numbers") from None
  rows = []
  for number, line in enumerate(lines, 1):
    fault = _append(rows, line.split())
    if fault:
      raise errors.UserError(f"{where}: line {number} of {file.name} {fault}")
  if not rows:
    raise errors.UserError(f"{where}: {file.name} is empty")
  table = np.stack(rows)
  return table[:, 1:, None], table[:, 0].astype(np.int64)


def _append(rows, words):
  """Appends the numbers of a line that is not blank to `rows`; returns what is wrong with it, or None."""
  if not words:
    return None
  try:
    row = np.array([np.nan if word == "?" else float(word) for word in words])
  except ValueError as error:
    return f"is not a line of numbers: {error}"
  if not np.isfinite(row).all():
    return "has missing samples (NaN, ?) or infinite ones; series that are whole and of one length are wanted"
  if not float(row[0]).is_integer() or abs(row[0]) > _LARGEST_LABEL:
    return f"begins with {words[0]}; an integer label is wanted"
  if len(row) < 2 or len(row) != len((rows or [row])[0]):
    wanted = f"{len(rows[0]) - 1}, as many as the first" if rows else "1 or more"
    return f"has {len(row) - 1} samples after its label; {wanted}, are wanted"
  rows.append(row)
  return None


# The waves of a beat: when, seconds after the R peak; how high, in units of R; how wide, seconds (standard deviation).
_WAVES = {
  "P": (-0.17, 0.15, 0.025),
  "Q": (-0.035, -0.12, 0.010),
  "R": (0.0, 1.0, 0.012),
  "S": (0.035, -0.22, 0.010),
  "ST": (0.13, 0.0, 0.050),
  "T": (0.27, 0.30, 0.045),
}
HEARTBEATS = ("normal", "no P wave", "premature beat", "ST depression", "inverted T wave")  # by label
_SERIES, _SAMPLES, _SECONDS, _BEATS = 5000, 140, 2.0, 6  # beats begin before the window and end behind it


def heartbeats(name, path):
  """Electrocardiograms made from a fixed seed: two seconds, 140 samples, of gaussian waves; 3,000 of 5,000 are normal.

  Of each kind in `HEARTBEATS` the last fifth is for testing. Heart rate, phase, the waves' heights and times, the
  wandering of the base line and the noise are drawn for each series; in an anomalous one the wave is missing, lowered
  or inverted in every beat, or one beat comes too early, without P and wide. Each series has mean 0 and standard
  deviation 1 (with N - 1, as the archive's). Rounded to 1e-4, so that the last digits of a machine's exp do not show.
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
    after = np.sqrt(period / 0.8) * after * (1 + 0.05 * rng.normal(size=(_SERIES, 1)))  # slower hearts, longer waves
    height = height * np.exp(0.15 * rng.normal(size=(_SERIES, 1))) * np.ones(beats)
    height = _HEIGHTS.get(wave, lambda height, labels, early: height)(height, labels[:, None], early)
    width = np.where(early, 2.0, 1.0) * width
    distance = (seconds - (times + after)[..., None]) / width[..., None]  # [N, beats, T]
    x += (height[..., None] * np.exp(-0.5 * distance**2)).sum(1)
  wander = rng.uniform(0.0, 2 * np.pi, (_SERIES, 1)) + 2 * np.pi * rng.uniform(0.15, 0.4, (_SERIES, 1)) * seconds
  x += 0.05 * rng.normal(size=(_SERIES, 1)) * np.sin(wander) + 0.02 * rng.normal(size=x.shape)
  x = (x - x.mean(1, keepdims=True)) / x.std(1, ddof=1, keepdims=True)
  x = x.round(4).astype(np.float32)[..., None]
  return splits.split(x, labels, splits.last_of_each_class(labels, 1 / 5))


# What an anomaly does to a wave: (heights [N, beats], labels [N, 1], early [N, beats]) -> heights.
_HEIGHTS = {
  "P": lambda height, labels, early: np.where((labels == 1) | early, 0.0, height),
  "ST": lambda height, labels, early: height - 0.15 * (labels == 3),
  "T": lambda height, labels, early: np.where((labels == 4) | early, -height, height),
}
