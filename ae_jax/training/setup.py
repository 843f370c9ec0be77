"""Builds the experiment that a config describes, and checks it before anything is compiled or written."""

import dataclasses
from typing import Any

import numpy as np
import optax

from ae_jax import config as configs
from ae_jax import data, errors, evaluators, models, objectives
from ae_jax.data import augmentation, one_class
from ae_jax.data.batch_schedule import BatchSchedule
from ae_jax.models import memory
from ae_jax.objectives import schedules
from ae_jax.runs import trackers
from ae_jax.system import distributed
from ae_jax.training import freezing, optimizers, stopping


@dataclasses.dataclass(frozen=True)
class Stage:
  """A range of training epochs with its own objective. Each stage starts with a new optimizer state."""

  epochs: range  # numbered from the start of the run
  objective: objectives.Objective
  optimizer_factory: optimizers.OptimizerFactory
  microbatches: int  # per device and batch, computed one after the other

  @property
  def optimizer(self) -> optax.GradientTransformationExtraArgs:
    """The optimizer with the hyperparameters of the config."""
    return self.optimizer_factory.optimizer


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A config and the objects built from it."""

  config: configs.ConfigDict
  dataset: data.Dataset
  model: models.Model
  batch_schedule: BatchSchedule
  stages: list[Stage]
  evaluators: tuple[evaluators.Evaluator, ...]
  augment: augmentation.Augment | None  # augmentation of the training examples
  early_stopping: stopping.EarlyStopping
  remarks: tuple[str, ...] = ()  # messages for the user about the data and about options that have no effect

  def due(self, epochs: int, every: int) -> bool:
    """Returns whether a periodic action is due after `epochs` epochs.

    The action is due every `every` epochs and after the last epoch.
    """
    return epochs == self.stages[-1].epochs.stop or epochs % every == 0


def build_experiment(config: configs.ConfigDict, devices: int, dataset: data.Dataset | None = None) -> Experiment:
  """Checks a config and builds its data set, model, training stages and evaluators.

  Args:
    config: A complete config.
    devices: Number of devices that share each batch.
    dataset: The data set of the config, or None to load it.

  Raises:
    UserError: If the config is invalid or its data cannot be read.
  """
  configs.check(config)
  errors.choose(distributed.MODES, config.parallel, "parallel")
  trackers.check(config.trackers)
  dataset = data.load(**config.data) if dataset is None else dataset
  size = len(dataset.train)
  labelled = config.model.name in models.LABELLED
  labels = data.label_values(dataset, f"config.model.name={config.model.name!r}") if labelled else ()
  objective_options = (config.objective, *(stage["objective"] for stage in config.stages))
  is_mixed = any("likelihood" in options and options["likelihood"] == "mixed" for options in objective_options)
  groups = dataset.schema.groups if is_mixed and dataset.schema else ()
  is_layerwise = any(options["name"] == "layerwise" for options in objective_options if "name" in options)
  config = _with_model(config, dataset, not groups and not is_layerwise)
  inputs = {"shape": dataset.shape, "labels": labels, "groups": groups, "masked": "mask" in dataset.column_names}
  inputs["value_range"] = dataset.value_range
  model = models.build(compute_dtype=config.compute_dtype, **inputs, **config.model)
  freezing.check(config.freeze, model.abstract_variables())
  errors.check(
    config.accumulate <= size, "accumulate", config.accumulate, f"at most {size}, the number of training examples"
  )
  batch_schedule = BatchSchedule(
    size, min(config.batch_size, size), devices * config.accumulate, config.seed, dataset.row_bytes
  )
  stages = _stages(config, model, dataset, batch_schedule, devices)
  remarks = [remark for stage in stages for remark in stage.objective.check_columns(dataset.column_names)]
  augmentation.check_columns(config.data.augment, dataset.column_names)
  built_evaluators = evaluators.build(config.evaluators, model, dataset)
  augment = augmentation.build(config.data.augment, dataset.shape, dataset.value_range, dataset.span)
  early_stopping = stopping.EarlyStopping(**config.early_stopping)
  has_validation = dataset.validation is not None
  early_stopping.check(has_validation)
  remarks += early_stopping.remarks(has_validation)
  remarks += _on_anomalies(config, dataset)
  return Experiment(
    config,
    dataset,
    model,
    batch_schedule,
    stages,
    built_evaluators,
    augment,
    early_stopping,
    remarks=(*dataset.remarks, *dataset.faults, *dict.fromkeys(remarks)),
  )


def _on_anomalies(config: configs.ConfigDict, dataset: data.Dataset) -> list[str]:
  """Returns messages about labelled anomalies whose detection is not measured."""
  if count := dataset.unset_anomalies:
    normal = dataset.class_name(dataset.usual_class)
    return [
      f"config.data.one_class=None: {count:,} of {len(dataset.test):,} test windows have steps of rare classes, such "
      f"as anomalies; set config.data.one_class={normal} to train on normal windows and to measure how well anomalies "
      "are found"
    ]
  if config.data.one_class is None and dataset.test_step_labels is None:  # labels of steps are often states
    is_drawn = "test" in dataset.rows
    return one_class.hints(dataset.train_labels, dataset.test_labels, dataset.class_names, is_drawn)
  if not np.any(dataset.anomalous) or "anomaly" in config.evaluators:
    return []
  return [
    "config.evaluators does not contain 'anomaly': the report will not say how well anomalies are found; add it, or "
    "run `ae_jax evaluate --workdir=RUN --only=anomaly` afterwards"
  ]


def _with_model(config: configs.ConfigDict, dataset: data.Dataset, linear_path: bool) -> configs.ConfigDict:
  """Returns the config in which automatic options of the model are replaced; see `models.completed`.

  A run stores the result, so that a later version of this package with other rules trains and loads the same model.
  """
  given = dict(config.model)
  options = models.completed(given, dataset.shape, linear_path)
  if options == given:
    return config
  return configs.ConfigDict(config.to_dict() | {"model": options}).lock()


def check_memory(experiment: Experiment, devices: int) -> None:
  """Raises UserError if a training step does not fit in the memory of a device."""
  config, rows = experiment.config, experiment.batch_schedule.padded_batch_size // devices
  shards = devices if config.parallel_state == "sharded" else 1
  for stage in experiment.stages:
    memory.check_step(experiment.model, stage.objective, stage.optimizer, rows // stage.microbatches, shards)


def _stages(
  config: configs.ConfigDict,
  model: models.Model,
  dataset: data.Dataset,
  batch_schedule: BatchSchedule,
  devices: int,
) -> list[Stage]:
  """Returns the stages in `config.stages`, followed by one stage with `config.epochs` and `config.objective`."""
  stages, first_epoch = [], 0
  pretraining = [(f"config.stages[{number}]: ", stage, ()) for number, stage in enumerate(config.stages)]
  last = {"epochs": config.epochs, "objective": config.objective}
  for where, stage, scheduled in [*pretraining, ("", last, config.schedules)]:
    epochs = range(first_epoch, first_epoch + stage["epochs"])
    try:
      stages.append(
        _stage(config, model, dataset, batch_schedule, devices, epochs, options=stage["objective"], scheduled=scheduled)
      )
    except errors.UserError as error:
      raise errors.UserError(f"{where}{error}") from None
    first_epoch = epochs.stop
  objectives.check_bottleneck(config.objective.name, model.code, dataset.shape)
  return stages


def _stage(
  config: configs.ConfigDict,
  model: models.Model,
  dataset: data.Dataset,
  batch_schedule: BatchSchedule,
  devices: int,
  epochs: range,
  *,
  options: Any,
  scheduled: Any,
) -> Stage:
  """Returns a training stage; `options` and `scheduled` are the config sections of its objective and schedules."""
  steps = batch_schedule.steps
  built_schedules = schedules.build(scheduled, epochs.start * steps, steps, epochs.stop * steps)
  objective = objectives.build(
    model=model, value_range=dataset.value_range, span=dataset.span, schedules=built_schedules, **options
  )
  if objective.needs_whole_batch:
    errors.check(config.accumulate == 1, "accumulate", config.accumulate, "1; this objective needs the whole batch")
  lengths = {"epochs": len(epochs), "steps_per_epoch": steps}
  optimizer_factory = optimizers.optimizer_factory(**config.optimizer, **lengths, guarded=config.on_nan == "halve")
  rows_in_cache = None if objective.needs_whole_batch else models.rows_in_cache(config.model.name, model.shape)
  microbatches = memory.microbatches(batch_schedule.padded_batch_size // devices, rows_in_cache, config.accumulate)
  return Stage(epochs, dataclasses.replace(objective, remat=config.remat), optimizer_factory, microbatches)
