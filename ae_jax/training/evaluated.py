"""The halves of the data that are evaluated during the training, and the programs that evaluate them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from ae_jax.training.state import TrainState


class Evaluated(NamedTuple):
  """A half of the data that is evaluated during the training, on the devices."""

  columns: dict[str, jax.Array]  # {"x": [N, elements], ...}
  rows: tuple[jax.Array, jax.Array]  # indices and weights of the batches, [batches, padded batch size]
  weights: np.ndarray  # the weights in `rows`, as a NumPy array on every process


def arguments(half: Evaluated, model_args: tuple, state: TrainState) -> tuple:
  """Returns the arguments of a compiled `steps.evaluate`; for `model_args`, see `compiled_stage.chunk_arguments`."""
  return (state.evaluated, state.step, half.columns, *half.rows, *model_args)


def compile_all(
  halves: Mapping[str, Evaluated], model_args: tuple, state: TrainState, compile_one: Callable[[tuple], Callable]
) -> dict[str, Callable]:
  """Returns {half: compiled `steps.evaluate`}; halves whose arrays have the same shapes share a program.

  `compile_one` compiles the function for its arguments.
  """
  programs, by_shapes = {}, {}
  for name, half in halves.items():
    shapes = str(jax.tree.map(lambda array: (array.shape, array.dtype), (half.columns, half.rows)))
    if shapes not in by_shapes:
      by_shapes[shapes] = compile_one(arguments(half, model_args, state))
    programs[name] = by_shapes[shapes]
  return programs


def bind(
  halves: Mapping[str, Evaluated], model_args: tuple, programs: Mapping[str, Callable]
) -> Callable[[TrainState], dict[str, tuple]]:
  """Returns `CompiledStage.evaluate`; `programs` is the result of `compile_all`."""
  return lambda state: {
    name: program(*arguments(halves[name], model_args, state)) for name, program in programs.items()
  }
