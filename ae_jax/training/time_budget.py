"""Chooses a number of epochs that fits in a time limit, from the speed of the first steps and an evaluation."""

import functools
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from ae_jax import errors
from ae_jax.system import distributed
from ae_jax.training import compiled_stage, device_arrays, setup

_USED = 0.8  # planned fraction of the time limit; the rest is for checkpoints, figures and variations in speed
_CHUNKS = 3  # number of chunks of steps that are run to measure the speed; only the last one is measured
_COUNTS = ("epochs", "eval_every_epochs", "checkpoint_every_epochs")


def shorter(
  experiment: setup.Experiment, mesh: jax.sharding.Mesh, workdir: pathlib.Path, limit: float, start_time: float
) -> dict[str, Any]:
  """Returns {config key: new value} so that the training ends within a time limit; {} if it does with the config as is.

  The lengths of schedules and the intervals between evaluations and between checkpoints are reduced in proportion to
  the number of epochs.

  Args:
    experiment: The experiment.
    mesh: The devices.
    workdir: The run folder; nothing is written.
    limit: The time limit in seconds.
    start_time: Value of `time.monotonic()` at the start of the limited time.
  """
  config, batch_schedule = experiment.config, experiment.batch_schedule
  compile_seconds, chunk_seconds, eval_seconds = _measure(experiment, mesh, workdir)
  left = _USED * limit - (time.monotonic() - start_time) - compile_seconds
  epoch_seconds = chunk_seconds * batch_schedule.chunks_per_epoch + eval_seconds / config.eval_every_epochs
  fitting = math.floor(max(0.0, left) / epoch_seconds) - sum(len(stage.epochs) for stage in experiment.stages[:-1])
  epochs = int(distributed.global_min(min(max(1, fitting), config.epochs)))
  if epochs == config.epochs:
    return {}
  share = epochs / config.epochs
  counts = {key: max(1, math.floor(config[key] * share)) for key in _COUNTS}
  values = counts | {
    "epochs": epochs,
    "optimizer.warmup_epochs": min(float(epochs), config.optimizer.warmup_epochs * share),
  }
  if config.schedules:
    least, most = 1 / batch_schedule.steps, float(epochs)
    values["schedules"] = [_scaled(schedule, share, least, most) for schedule in config.schedules]
  return values


def _scaled(schedule: dict[str, Any], share: float, least: float, most: float) -> dict[str, Any]:
  """Returns an entry of `config.schedules` with its length multiplied by `share`; epochs stay in [least, most]."""
  if "steps" in schedule:
    return schedule | {"steps": max(1, math.floor(schedule["steps"] * share))}
  return schedule | {"epochs": min(most, max(least, schedule["epochs"] * share))}


def sentence(values: dict[str, Any], config: ConfigDict) -> str:
  """Returns a message for the user about the result of `shorter`."""
  keys = ", ".join(f"config.{key}={errors.format_value(value)}" for key, value in values.items())
  fits = "fewer epochs with the whole schedule of the learning rate fit"
  if values["epochs"] == 1:
    fits = "one epoch, which may take longer, too, is the least"
  return (
    f"{keys}: {config.epochs} epochs take longer than config.max_minutes={config.max_minutes:g}; {fits} "
    "(config.shorten)"
  )


def _measure(
  experiment: setup.Experiment, mesh: jax.sharding.Mesh, workdir: pathlib.Path
) -> tuple[float, float, float]:
  """Returns the seconds of the compilation, of a chunk of training steps and of an evaluation."""
  device_data, state = device_arrays.place_and_init(experiment, mesh)
  compiled = compiled_stage.build(experiment, device_data, workdir, False, len(experiment.stages) - 1, state)
  columns = distributed.local_rows(device_data.batch_sharding, experiment.batch_schedule.padded_batch_size)
  feed = device_arrays.feed(experiment, columns, 0, _CHUNKS * experiment.batch_schedule.chunks_per_epoch)
  state = compiled.restart(state)
  for _ in range(_CHUNKS):  # the first chunk is slower, and streamed examples of later chunks are read meanwhile
    start_time = time.perf_counter()
    (state, *_), _ = _timed(functools.partial(compiled.train_chunk, state, *next(feed)))
    chunk_seconds = time.perf_counter() - start_time
    _, eval_seconds = _timed(functools.partial(compiled.evaluate, state))
  return compiled.compile_seconds, chunk_seconds, eval_seconds


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
  start_time = time.perf_counter()
  result = jax.block_until_ready(function())
  return result, time.perf_counter() - start_time
