"""Continues a training after its run folder could not be written for a moment, as on a drive that disconnects."""

import errno
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import TypeVar

import jax

from ae_jax import errors
from ae_jax.runs import checkpoints

_SECONDS = 60.0  # longest wait for the folder
_MAX_FAILURES = 3  # failures in a row without a new checkpoint between them
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # do not end by waiting

_Result = TypeVar("_Result")


def resume(train: Callable[[], _Result], folder: pathlib.Path, report: Callable[[str], object]) -> _Result:
  """Returns `train()`. If the run folder cannot be written, waits until it can, and calls `train()` again.

  Several processes do not wait, because the others would wait for the one that failed.

  Args:
    train: Trains, starting from the newest checkpoint in `folder`.
    folder: The folder that contains the folder `checkpoints`.
    report: Called with a message when an outage begins and when it has ended.

  Raises:
    WriteError: The folder cannot be written for a minute, the disk is full, or three attempts in a row fail without a
      new checkpoint.
  """
  failures, step = 0, None
  while True:
    try:
      return train()
    except errors.WriteError as failure:
      if jax.process_count() > 1 or _is_full(failure):
        raise
      report(f"{folder}: cannot be written; the training waits at most {_SECONDS:.0f} seconds and then resumes")
      if not _wait(folder):
        raise
      newest = checkpoints.newest_step(folder / "checkpoints")
      failures, step = failures + 1 if newest == step else 1, newest
      if failures > _MAX_FAILURES:
        raise
    report(f"{folder}: can be written again")


def _wait(folder: pathlib.Path) -> bool:
  """Waits until a file in the folder can be written; returns False if it cannot within _SECONDS."""
  end = time.monotonic() + _SECONDS
  while not _is_writable(folder):
    if time.monotonic() >= end:
      return False
    time.sleep(0.5)
  return True


def _is_writable(folder: pathlib.Path) -> bool:
  try:
    with tempfile.TemporaryFile(dir=folder) as file:
      file.write(b"0")
  except OSError:
    return False
  return True


def _is_full(failure: BaseException | None) -> bool:
  """Returns whether one of the exceptions that led to this one says that the disk is full."""
  while failure is not None:
    if getattr(failure, "errno", None) in _FULL or any(os.strerror(code) in str(failure) for code in _FULL):
      return True
    failure = failure.__cause__ or failure.__context__
  return False
