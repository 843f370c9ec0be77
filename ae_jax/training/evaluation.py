"""Evaluation during training: the evaluated splits of the data, and the compiled evaluation function."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from ae_jax import models, objectives
from ae_jax.ops import randomness
from ae_jax.system.data_parallel import SINGLE_DEVICE, DataParallel
from ae_jax.training import steps
from ae_jax.training.state import TrainState
from ae_jax.types import AnyArray, Columns, Scalar, Step


class Evaluated(NamedTuple):
  """A split of the data that is evaluated during the training, on the devices."""

  columns: dict[str, jax.Array]  # {"x": [N, elements], ...}
  rows: tuple[jax.Array, jax.Array]  # indices and weights of the batches, [batches, padded batch size]
  weights: np.ndarray  # the weights in `rows`, as a NumPy array on every process


def evaluate(
  variables: models.Variables,
  step: Step,
  examples: Columns,
  indices: Int[AnyArray, "batches batch"],
  weights: Float[AnyArray, "batches batch"],
  key: Key[Array, ""],
  *,
  model: models.Model,
  objective: objectives.Objective,
  statistics: Callable[..., Columns],
  value_range: str,
  data_parallel: DataParallel = SINGLE_DEVICE,
) -> tuple[Scalar, dict[str, Array]]:
  """Returns the loss [] of the objective on a split, and per-example statistics {name: [batches, B, ...]}.

  The loss is computed from means over the whole split, and the random key of an example depends only on its index.
  Therefore the results do not depend on the batches. If the examples have weights, the means are weighted.

  Args:
    variables: The variables to evaluate; if the parameters are sharded, each device passes its shard.
    step: The training step at which the schedules of the objective are evaluated.
    examples: Columns of the split, e.g. the test set.
    indices: Indices of the examples of each batch.
    weights: 1 for an example, 0 for padding.
    key: The noise key of the run.
    model: The model.
    objective: The objective.
    statistics: Maps (model, variables, batch, keys) to {name: [B, ...]}.
    value_range: Range of the data.
    data_parallel: The devices that share each batch.
  """
  objective = objective.at(step)
  if data_parallel.size > 1:
    variables = variables._replace(params=data_parallel.all_gather_params(variables.params))

  def body(_, rows):
    batch = steps.read_batch(*rows, examples=examples, model=model, value_range=value_range)
    keys = randomness.example_keys(key, rows[0])
    values, penalties, _ = objective.statistics(model, variables, batch, keys)
    sums = objectives.batch_sum((values, penalties), batch["weight"])
    return None, (sums, data_parallel.all_gather(statistics(model, variables, batch, keys)))

  sums, values = lax.scan(body, None, (indices, weights))[1]
  if "weight" in examples:
    weights = weights * examples["weight"][indices]
  sums, count = data_parallel.total((jax.tree.map(lambda leaf: leaf.sum(0), sums), weights.sum()))
  loss, _ = objective.loss(model, *jax.tree.map(lambda leaf: leaf / count, sums))
  return loss, values


def arguments(split: Evaluated, model_args: tuple, state: TrainState) -> tuple:
  """Returns the arguments of a compiled `evaluate`; for `model_args`, see `device_arrays.chunk_arguments`."""
  return (state.evaluated, state.step, split.columns, *split.rows, *model_args)


def compile_all(
  by_split: Mapping[str, Evaluated], model_args: tuple, state: TrainState, compile_one: Callable[[tuple], Callable]
) -> dict[str, Callable]:
  """Returns {split: compiled `evaluate`}; splits whose arrays have the same shapes share a program.

  `compile_one` compiles `evaluate` for the given arguments.
  """
  programs, by_shapes = {}, {}
  for name, split in by_split.items():
    shapes = str(jax.tree.map(lambda array: (array.shape, array.dtype), (split.columns, split.rows)))
    if shapes not in by_shapes:
      by_shapes[shapes] = compile_one(arguments(split, model_args, state))
    programs[name] = by_shapes[shapes]
  return programs


def bind(
  by_split: Mapping[str, Evaluated], model_args: tuple, programs: Mapping[str, Callable]
) -> Callable[[TrainState], dict[str, tuple]]:
  """Returns the function that evaluates a training state on every split: {split: (loss, statistics of the examples)}.

  `programs` is the result of `compile_all`.
  """
  return lambda state: {
    name: program(*arguments(by_split[name], model_args, state)) for name, program in programs.items()
  }
