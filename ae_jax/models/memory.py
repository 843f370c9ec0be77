"""Checks, before anything is compiled or written, that a run fits the memory of a device.

A config can ask for terabytes. An allocation of that size would make the operating system end this process or another.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import optax

from ae_jax import errors
from ae_jax.data import placements
from ae_jax.models import cost
from ae_jax.models.interface import Variables


def available_bytes() -> int | float:
  """Returns the bytes of memory that a step may use.

  They are the memory of the first local device; on CPU that of the machine or of its container.
  """
  return min(placements.host_bytes(), placements.device_bytes())


def device_share(devices: int) -> float:
  """Returns the bytes that each of the local devices may use: 90 % of an accelerator's memory.

  On CPU half of the machine's memory, divided by the devices, which share it with all other processes.
  """
  if jax.default_backend() == "cpu":
    return placements.host_bytes() / 2 / devices
  return 0.9 * placements.device_bytes()


def check_parameters(model: Any) -> Variables:
  """Returns the abstract variables of a model; raises UserError if they alone exceed the memory."""
  variables, limit = model.abstract_variables(), available_bytes()
  size = cost.bytes_of(jax.tree.leaves(variables))
  if size > limit:
    raise errors.UserError(
      f"config.model: {size // 4:,} parameters need {placements.format_gib(size)}, and this device has "
      f"{placements.format_gib(limit)}; make the model smaller"
    )
  return variables


def check_step(
  model: Any, objective: Callable, optimizer: optax.GradientTransformation, rows: int, shards: int = 1
) -> None:
  """Raises UserError if a training step exceeds the memory of a device. Nothing is computed.

  The estimate counts the parameters, the optimizer state, the gradient, and the activations that the backward pass
  needs (`cost.kept_bytes`).

  Args:
    model: a `Model`.
    objective: the objective of the stage.
    optimizer: its optimizer.
    rows: number of examples that a device processes at a time.
    shards: number of devices that share the optimizer state; each holds all parameters and the whole gradient.
  """
  variables, limit = check_parameters(model), available_bytes()
  params = variables.params
  optimizer_state = cost.bytes_of(jax.tree.leaves(jax.eval_shape(optimizer.init, params)))
  state = 2 * cost.bytes_of(jax.tree.leaves(params)) + optimizer_state // shards
  if state > limit:
    raise errors.UserError(
      f"config.model: parameters, gradient and optimizer need {placements.format_gib(state)}, and this device has "
      f"{placements.format_gib(limit)}; make the model smaller"
    )
  total = state + _activation_bytes(model, objective, variables, rows)
  if total > limit:
    raise errors.UserError(
      f"config.batch_size: {rows} examples at a time need about {placements.format_gib(total)}, and this device has "
      f"{placements.format_gib(limit)}; reduce config.batch_size, make the model smaller, or raise config.accumulate"
    )


@contextlib.contextmanager
def explain_out_of_memory() -> Iterator[None]:
  """Turns JAX's out-of-memory error inside the context into a UserError."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    raise errors.UserError(
      f"config.batch_size, config.model: the device is out of memory ({errors.one_line(error)}); reduce one of them "
      "or raise config.accumulate"
    ) from None


def _activation_bytes(model, objective, variables, rows):
  batch, keys = cost.abstract_batch(model, rows)
  loss = cost.training_loss(model, objective)
  platform = jax.default_backend()
  return cost.kept_bytes(lambda *args: loss(*args)[0], *variables, batch, keys, platform=platform)


def microbatches(rows: int, in_cache: int | None, least: int = 1) -> int:
  """Returns the number of equal microbatches that a device splits its rows of a batch into.

  On CPU it is the smallest divisor of `rows` from `least` on for which a microbatch has at most `in_cache` rows, so
  that its activations stay in the cache, but more than half as many. It is `least`, which divides `rows`, if no such
  divisor exists, if `in_cache` is None, and on other platforms.
  """
  if jax.default_backend() != "cpu" or in_cache is None:
    return least
  smallest = max(least, -(-rows // in_cache))
  return next((count for count in range(smallest, 2 * smallest) if rows % count == 0), least)
