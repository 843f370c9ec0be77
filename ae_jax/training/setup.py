"""What a config describes, checked as a whole before anything is compiled or written."""

import dataclasses

import optax

from ae_jax import config as configs
from ae_jax import data, errors, evaluators, models, objectives
from ae_jax.data import augmentation, batch_schedule, lazy_arrays
from ae_jax.models import memory
from ae_jax.objectives import schedules
from ae_jax.runs import trackers
from ae_jax.system import distributed
from ae_jax.training import optimizers, stopping


@dataclasses.dataclass(frozen=True)
class Stage:
  """A part of the training with an objective of its own; its optimizer starts anew."""

  epochs: range  # counted over the whole run
  objective: objectives.Objective
  optimizer_factory: optimizers.OptimizerFactory
  microbatches: int  # of a device's rows of a batch, computed one after the other

  @property
  def optimizer(self) -> optax.GradientTransformation:
    """The optimizer with the numbers of the config."""
    return self.optimizer_factory()


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A config, and what it names."""

  config: configs.ConfigDict
  dataset: data.Dataset
  model: models.Model
  batch_schedule: batch_schedule.BatchSchedule
  stages: list[Stage]
  evaluators: tuple  # evaluators
  augment: augmentation.Augment | None  # of the training examples
  early_stopping: stopping.EarlyStopping

  def due(self, epochs, every):
    """Whether after so many epochs comes what comes every `every` epochs, and at the end."""
    return epochs == self.stages[-1].epochs.stop or epochs % every == 0


def of(config, devices, dataset=None):
  """The `Experiment` of a config on so many devices, with its data set if that is loaded already; UserError."""
  configs.check(config)
  errors.choose(distributed.MODES, config.parallel, "parallel")
  trackers.check(config.trackers)
  dataset = data.load(**config.data) if dataset is None else dataset
  size = len(dataset.train)
  labels = data.label_values(dataset, f"config.model.name={config.model.name!r}") if _labelled(config) else ()
  model = models.build(shape=dataset.shape, compute_dtype=config.compute_dtype, labels=labels, **config.model)
  row_bytes = lazy_arrays.bytes_of_a_row(dataset.train)
  errors.check(config.accumulate <= size, "accumulate", config.accumulate, f"at most the {size} training examples")
  schedule = batch_schedule.BatchSchedule(
    size, min(config.batch_size, size), devices * config.accumulate, config.seed, row_bytes
  )
  stages = _stages(config, model, dataset, schedule, devices)
  measures = evaluators.build(config.evaluators, model, dataset)
  augment = augmentation.build(config.data.augment, dataset.shape, dataset.value_range, dataset.span)
  early_stopping = stopping.EarlyStopping(**config.early_stopping)
  early_stopping.check()
  return Experiment(config, dataset, model, schedule, stages, measures, augment, early_stopping)


def _labelled(config):
  return config.model.name in models.LABELLED


def check_memory(experiment, devices):
  """Raises UserError where a step of it cannot fit one of the devices."""
  config, schedule = experiment.config, experiment.batch_schedule
  shards = devices if config.parallel_state == "sharded" else 1
  for stage in experiment.stages:
    memory.check(
      experiment.model,
      stage.objective,
      stage.optimizer,
      schedule.padded_batch_size // devices // stage.microbatches,
      shards,
    )


def _stages(config, model, dataset, schedule, devices):
  """`config.stages`, then the one that `config.epochs` and `config.objective` describe."""
  stages, first = [], 0
  experiment = [(f"config.stages[{number}]: ", stage) for number, stage in enumerate(config.stages)]
  for where, stage in [*experiment, ("", {"epochs": config.epochs, "objective": config.objective})]:
    try:
      begin, end = first * schedule.steps, (first + stage["epochs"]) * schedule.steps
      changing = () if where else schedules.build(config.schedules, begin, schedule.steps, end)
      values = {"value_range": dataset.value_range, "span": dataset.span, "schedules": changing}
      objective = objectives.build(model=model, **values, **stage["objective"])
      if objective.needs_whole_batch:
        errors.check(config.accumulate == 1, "accumulate", config.accumulate, "1, as this objective sees a batch whole")
      optimizer_factory = optimizers.optimizer_factory(
        **config.optimizer, epochs=stage["epochs"], steps_per_epoch=schedule.steps
      )
    except errors.UserError as error:
      raise errors.UserError(f"{where}{error}") from None
    in_cache = None if objective.needs_whole_batch else models.ROWS_IN_CACHE.get(config.model.name)
    microbatches = memory.microbatches(schedule.padded_batch_size // devices, in_cache, config.accumulate)
    objective = dataclasses.replace(objective, remat=config.remat)
    span = range(first, first + stage["epochs"])
    stages.append(Stage(span, objective, optimizer_factory, microbatches))
    first = span.stop
  objectives.check_bottleneck(config.objective.name, model.code, dataset.shape)
  return stages
