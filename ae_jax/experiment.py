"""What a config describes, checked as a whole before anything is compiled or written."""

import dataclasses

import optax

from ae_jax import config as configs
from ae_jax import (
  data,
  errors,
  evaluators,
  memory,
  models,
  objectives,
  optimizers,
  parallel,
  schedules,
  stopping,
  trackers,
)
from ae_jax.data import augmentation, epochs, rows


@dataclasses.dataclass(frozen=True)
class Stage:
  """A part of the training with an objective of its own; its optimizer starts anew."""

  epochs: range  # counted over the whole run
  objective: objectives.Objective
  recipe: optimizers.Recipe
  parts: int  # of a device's rows of a batch, computed one after the other

  @property
  def optimizer(self) -> optax.GradientTransformation:
    """The optimizer with the numbers of the config."""
    return self.recipe()


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A config, and what it names."""

  config: configs.ConfigDict
  dataset: data.Dataset
  model: models.Model
  plan: epochs.Epochs
  stages: list[Stage]
  measures: tuple  # evaluators
  augment: augmentation.Augment | None  # of the training examples
  early_stopping: stopping.EarlyStopping

  def due(self, epochs, every):
    """Whether after so many epochs comes what comes every `every` epochs, and at the end."""
    return epochs == self.stages[-1].epochs.stop or epochs % every == 0


def of(config, devices, dataset=None):
  """The `Experiment` of a config on so many devices, with its data set if that is loaded already; UserError."""
  configs.check(config)
  errors.choose(parallel.MODES, config.parallel, "parallel")
  trackers.check(config.trackers)
  dataset = data.load(**config.data) if dataset is None else dataset
  size = len(dataset.train)
  labels = data.label_values(dataset, f"config.model.name={config.model.name!r}") if _labelled(config) else ()
  model = models.build(shape=dataset.shape, compute_dtype=config.compute_dtype, labels=labels, **config.model)
  row_bytes = rows.bytes_of_a_row(dataset.train)
  errors.check(config.accumulate <= size, "accumulate", config.accumulate, f"at most the {size} training examples")
  plan = epochs.Epochs(size, min(config.batch_size, size), devices * config.accumulate, config.seed, row_bytes)
  stages = _stages(config, model, dataset, plan, devices)
  measures = evaluators.build(config.evaluators, model, dataset)
  augment = augmentation.build(config.data.augment, dataset.shape, dataset.value_range, dataset.span)
  early_stopping = stopping.EarlyStopping(**config.early_stopping)
  early_stopping.check()
  return Experiment(config, dataset, model, plan, stages, measures, augment, early_stopping)


def _labelled(config):
  return config.model.name in models.LABELLED


def check_memory(described, devices):
  """Raises UserError where a step of it cannot fit one of the devices."""
  config, plan = described.config, described.plan
  shards = devices if config.parallel_state == "sharded" else 1
  for stage in described.stages:
    memory.check(described.model, stage.objective, stage.optimizer, plan.slots // devices // stage.parts, shards)


def _stages(config, model, dataset, plan, devices):
  """`config.stages`, then the one that `config.epochs` and `config.objective` describe."""
  stages, first = [], 0
  described = [(f"config.stages[{number}]: ", stage) for number, stage in enumerate(config.stages)]
  for where, stage in [*described, ("", {"epochs": config.epochs, "objective": config.objective})]:
    try:
      begin, end = first * plan.steps, (first + stage["epochs"]) * plan.steps
      changing = () if where else schedules.build(config.schedules, begin, plan.steps, end)
      values = {"value_range": dataset.value_range, "span": dataset.span, "schedules": changing}
      objective = objectives.build(model=model, **values, **stage["objective"])
      if objective.needs_whole_batch:
        errors.check(config.accumulate == 1, "accumulate", config.accumulate, "1, as this objective sees a batch whole")
      recipe = optimizers.recipe(**config.optimizer, epochs=stage["epochs"], steps_per_epoch=plan.steps)
    except errors.UserError as error:
      raise errors.UserError(f"{where}{error}") from None
    in_cache = None if objective.needs_whole_batch else models.ROWS_IN_CACHE.get(config.model.name)
    parts = memory.microbatches(plan.slots // devices, in_cache, config.accumulate)
    objective = dataclasses.replace(objective, remat=config.remat)
    span = range(first, first + stage["epochs"])
    stages.append(Stage(span, objective, recipe, parts))
    first = span.stop
  objectives.check_bottleneck(config.objective.name, model.code, dataset.shape)
  return stages
