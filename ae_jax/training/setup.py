"""The experiment that a config describes, checked as a whole before anything is compiled or written."""

import dataclasses

import optax

from ae_jax import config as configs
from ae_jax import data, errors, evaluators, models, objectives
from ae_jax.data import augmentation, lazy_arrays
from ae_jax.data.batch_schedule import BatchSchedule
from ae_jax.models import memory
from ae_jax.objectives import schedules
from ae_jax.runs import trackers
from ae_jax.system import distributed
from ae_jax.training import optimizers, stopping


@dataclasses.dataclass(frozen=True)
class Stage:
  """A part of the training with its own objective and a new optimizer state."""

  epochs: range  # counted over the whole run
  objective: objectives.Objective
  optimizer_factory: optimizers.OptimizerFactory
  microbatches: int  # per device and batch, computed one after the other

  @property
  def optimizer(self) -> optax.GradientTransformationExtraArgs:
    """The optimizer with the hyperparameters of the config."""
    return self.optimizer_factory()


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A config and the objects that it describes."""

  config: configs.ConfigDict
  dataset: data.Dataset
  model: models.Model
  batch_schedule: BatchSchedule
  stages: list[Stage]
  evaluators: tuple[evaluators.Evaluator, ...]
  augment: augmentation.Augment | None  # of the training examples
  early_stopping: stopping.EarlyStopping

  def due(self, epochs: int, every: int) -> bool:
    """Returns whether a periodic action is due after `epochs`: every `every` epochs and after the last one."""
    return epochs == self.stages[-1].epochs.stop or epochs % every == 0


def build_experiment(config: configs.ConfigDict, devices: int, dataset: data.Dataset | None = None) -> Experiment:
  """Returns the experiment of a config.

  Args:
    config: A complete config.
    devices: Number of devices that share each batch.
    dataset: The data set of the config if it is already loaded.

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
  model = models.build(shape=dataset.shape, compute_dtype=config.compute_dtype, labels=labels, **config.model)
  row_bytes = lazy_arrays.row_bytes(dataset.train)
  errors.check(config.accumulate <= size, "accumulate", config.accumulate, f"at most the {size} training examples")
  batch_schedule = BatchSchedule(
    size, min(config.batch_size, size), devices * config.accumulate, config.seed, row_bytes
  )
  stages = _stages(config, model, dataset, batch_schedule, devices)
  chosen = evaluators.build(config.evaluators, model, dataset)
  augment = augmentation.build(config.data.augment, dataset.shape, dataset.value_range, dataset.span)
  early_stopping = stopping.EarlyStopping(**config.early_stopping)
  early_stopping.check()
  return Experiment(config, dataset, model, batch_schedule, stages, chosen, augment, early_stopping)


def check_memory(experiment: Experiment, devices: int) -> None:
  """Raises UserError if a training step does not fit the memory of a device."""
  config, rows = experiment.config, experiment.batch_schedule.padded_batch_size // devices
  shards = devices if config.parallel_state == "sharded" else 1
  for stage in experiment.stages:
    memory.check_step(experiment.model, stage.objective, stage.optimizer, rows // stage.microbatches, shards)


def _stages(config, model, dataset, batch_schedule, devices) -> list[Stage]:
  """Returns the stages of `config.stages`, then that of `config.epochs` and `config.objective`."""
  stages, first_epoch = [], 0
  described = [(f"config.stages[{number}]: ", stage, ()) for number, stage in enumerate(config.stages)]
  last = {"epochs": config.epochs, "objective": config.objective}
  for where, stage, scheduled in [*described, ("", last, config.schedules)]:
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


def _stage(config, model, dataset, batch_schedule, devices, epochs, *, options, scheduled) -> Stage:
  """Returns the stage of an objective, given by its options and schedules, over a range of epochs."""
  steps = batch_schedule.steps
  built_schedules = schedules.build(scheduled, epochs.start * steps, steps, epochs.stop * steps)
  objective = objectives.build(
    model=model, value_range=dataset.value_range, span=dataset.span, schedules=built_schedules, **options
  )
  if objective.needs_whole_batch:
    errors.check(config.accumulate == 1, "accumulate", config.accumulate, "1: this objective needs the whole batch")
  optimizer_factory = optimizers.optimizer_factory(**config.optimizer, epochs=len(epochs), steps_per_epoch=steps)
  rows_in_cache = None if objective.needs_whole_batch else models.ROWS_IN_CACHE.get(config.model.name)
  microbatches = memory.microbatches(batch_schedule.padded_batch_size // devices, rows_in_cache, config.accumulate)
  return Stage(epochs, dataclasses.replace(objective, remat=config.remat), optimizer_factory, microbatches)
