"""Trains a single run without a run folder: nothing is written, printed, evaluated or saved.

If a config is trained several times on arrays of the same shapes, the runs share compiled programs, so that training on
few examples takes a fraction of a second. `ae_jax.estimators` uses this module.
"""

import dataclasses
import functools
import pathlib
import warnings
from typing import Any, NoReturn

from ml_collections import ConfigDict

from ae_jax import data, errors, models
from ae_jax.models import memory
from ae_jax.runs import logs, progress
from ae_jax.system import cache, distributed
from ae_jax.trained_run import Run
from ae_jax.training import compiled_stage, device_arrays, loop, programs, setup, stopping, warm_start
from ae_jax.training.state import TrainState


def train_run(config: ConfigDict, dataset: data.Dataset, start: models.Variables | None = None) -> Run:
  """Trains the model of a config and returns it; like `train.train_run`, but without a run folder.

  Warns of options without effect, and if `config.max_minutes` ends the training early. It gives no warnings about the
  data: the caller may have scaled them, so the caller must check them.

  Args:
    config: A complete config. Its evaluators and trackers do not run, and early stopping and a learning rate "auto" are
      not available; `estimator_options` refuses these keys.
    dataset: The data set of the config; its test set is not used.
    start: Variables from which the training starts, of a model of the same config. None: variables that are initialised
      from the seed, with the model state fitted to the training examples.

  Raises:
    UserError: The config is invalid, or a loss or gradient is not finite.
  """
  mesh = distributed.mesh()
  with progress.quiet(), programs.reused(), memory.explain_out_of_memory():
    experiment = setup.build_experiment(config, mesh.size, dataset)
    taken = warm_start.check(experiment) if start is None else []
    for remark in (*experiment.remarks, *taken):
      if remark not in (*dataset.remarks, *dataset.faults):
        _warn(remark)
    cache.keep_compiled_programs()
    device_data, state = device_arrays.place_and_init(experiment, mesh)
    # No evaluation: its program would take as long to compile as the training step.
    device_data = dataclasses.replace(device_data, evaluated={})
    state = device_arrays.fit_to_data(state, experiment) if start is None else warm_start.started_from(state, start)
    log = logs.MemoryLog()
    state = loop.train(_training(experiment, device_data, log), state)
    variables = distributed.fetch(state.evaluated, mesh)
  return Run(
    variables,
    experiment.config,
    {name: value for record in log.records for name, value in record.items()},
    log.records,
    experiment.model,
    int(state.step),
    class_names=dataset.class_names,
    scaling=dataset.scaling,
    standardisation=dataset.standardisation,
    schema=dataset.schema,
    record_columns=dataset.record_columns,
  )


def _training(
  experiment: setup.Experiment, device_data: device_arrays.DeviceData, log: logs.MemoryLog
) -> loop.Training:
  """Returns the `loop.Training` of a run that starts at step 0 and is not saved."""
  config, batch_schedule = experiment.config, experiment.batch_schedule

  def build(number: int, state: TrainState) -> compiled_stage.CompiledStage:
    compiled = compiled_stage.build(experiment, device_data, pathlib.Path(), False, number, state)
    return dataclasses.replace(compiled, fail=_fail)

  windows = logs.WindowAverages(config.log_every_steps, batch_schedule.steps, 0)
  columns = distributed.local_rows(device_data.batch_sharding, batch_schedule.padded_batch_size)
  return loop.Training(
    experiment,
    [loop.Recorder(log, windows, metrics=lambda results: {}, baselines=dict)],
    build=build,
    feed=functools.partial(device_arrays.feed, experiment, columns),
    checkpoint=lambda state, records: (state, 0.0, {}),
    checkpoint_folder=None,
    received=lambda: "",
    until=experiment.stages[-1].epochs.stop,
    limit=stopping.time_limit(config.max_minutes, "; raise it, or train fewer epochs"),
    progress=stopping.progress(experiment.early_stopping, ()),
    report=_warn,
  )


def _warn(line: str) -> None:
  warnings.warn(line, stacklevel=2)


def _fail(*_: Any) -> NoReturn:
  """Raises UserError after a step with a loss or gradient that is not finite."""
  raise errors.UserError(
    "the training diverged: a loss or gradient is not finite; lower config.optimizer.learning_rate, or scale the data"
  )
