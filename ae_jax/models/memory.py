"""Checks that a run fits in the memory of a device, before anything is compiled or written.

A config can require terabytes. Such an allocation would make the operating system kill this process or another one.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import optax

from ae_jax import errors
from ae_jax.data import placements
from ae_jax.models import cost
from ae_jax.models.interface import Variables

# INTERNAL: CUDA_ERROR_OUT_OF_MEMORY is the error of libraries, such as cuBLAS, for which XLA left no memory
_OUT_OF_MEMORY = re.compile("RESOURCE_EXHAUSTED|OUT_OF_MEMORY")
_SMALLER_STEP = "reduce config.batch_size, raise config.accumulate, set config.remat=True, or make the model smaller"
_LARGE = 256  # images with a larger side, in pixels, can be resized or cut into patches


def available_bytes() -> int | float:
  """Returns the bytes of memory that a training step may use.

  This is the memory of the machine (or of its container) or the memory of the first local accelerator, whichever is
  smaller.
  """
  return min(placements.host_bytes(), placements.device_bytes())


def device_share(devices: int) -> float:
  """Returns the bytes of memory that each of `devices` local devices may use.

  On an accelerator, this is 90 % of its memory. On CPU, it is half of the machine's memory divided by `devices`; the
  other half is left to other processes.
  """
  if jax.default_backend() == "cpu":
    return placements.host_bytes() / 2 / devices
  return 0.9 * placements.device_bytes()


def check_parameters(model: Any) -> Variables:
  """Returns the shapes and dtypes of a model's variables; raises UserError if the variables do not fit in memory."""
  variables, limit = model.abstract_variables(), available_bytes()
  size = cost.bytes_of(jax.tree.leaves(variables))
  if size > limit:
    raise errors.UserError(
      f"config.model: {size // 4:,} parameters need {placements.format_gib(size)}, but this device has "
      f"{placements.format_gib(limit)}; make the model smaller"
    )
  return variables


def check_step(
  model: Any, objective: Callable, optimizer: optax.GradientTransformation, rows: int, shards: int = 1
) -> None:
  """Raises UserError if a training step would exceed the memory of a device. The step is not executed.

  The estimate counts the parameters, the optimizer state, the gradient, and the activations that the backward pass
  needs (`cost.kept_bytes`).

  Args:
    model: A `Model`.
    objective: Objective of the training stage.
    optimizer: Optimizer of the training stage.
    rows: Microbatch size per device.
    shards: Number of devices over which the optimizer state is sharded. Each device holds all parameters and the whole
      gradient.
  """
  variables, limit = check_parameters(model), available_bytes()
  params = variables.params
  optimizer_state = cost.bytes_of(jax.tree.leaves(jax.eval_shape(optimizer.init, params)))
  state = 2 * cost.bytes_of(jax.tree.leaves(params)) + optimizer_state // shards
  if state > limit:
    raise errors.UserError(
      f"config.model: parameters, gradient and optimizer state need {placements.format_gib(state)}, but this device "
      f"has {placements.format_gib(limit)}; make the model smaller"
    )
  total = state + _activation_bytes(model, objective, variables, rows)
  if total > limit:
    raise errors.UserError(
      f"config.batch_size: processing {rows} examples at a time needs about {placements.format_gib(total)}, but this "
      f"device has {placements.format_gib(limit)}; reduce config.batch_size, raise config.accumulate, or make the "
      f"model smaller{_on_large_images(model.shape)}"
    )


def _on_large_images(shape: Sequence[int]) -> str:
  """Returns how large images can be made smaller, as the end of a message; "" for other examples."""
  if len(shape) != 3 or max(shape[:2]) <= _LARGE:
    return ""
  height, width = (round(side * _LARGE / max(shape[:2])) for side in shape[:2])
  return (
    f"; or resize the images of a folder, such as with config.data.size={height},{width}, or cut images into patches, "
    f"such as with config.data.patch={_LARGE}"
  )


@contextlib.contextmanager
def explain_out_of_memory(key: str = "config.batch_size, config.model", fix: str = _SMALLER_STEP) -> Iterator[None]:
  """Converts JAX's out-of-memory error inside the context to the UserError "KEY: the device is out of memory; FIX"."""
  try:
    yield
  except RuntimeError as error:  # JaxRuntimeError, and that of a GPU whose memory is full when JAX starts
    if not _OUT_OF_MEMORY.search(str(error)):
      raise
    raise errors.UserError(f"{key}: the device is out of memory ({errors.one_line(error)}); {fix}{_on_gpu()}") from None


def _on_gpu() -> str:
  """Returns what else frees memory on a GPU, as a sentence; "" on other devices."""
  try:
    if jax.default_backend() not in ("gpu", "cuda", "rocm"):
      return ""
    limit = placements.format_gib(placements.device_bytes())
  except RuntimeError:  # JAX could not start
    limit = "no memory"
  return (
    f". This process can use {limit} of the GPU: end other processes on it, which nvidia-smi lists, or change "
    "--gpu_memory (in Python, XLA_CLIENT_MEM_FRACTION)"
  )


def _activation_bytes(model, objective, variables, rows):
  batch, keys = cost.abstract_batch(model, rows)
  loss = cost.training_loss(model, objective)
  platform = jax.default_backend()
  return cost.kept_bytes(lambda *args: loss(*args)[0], *variables, batch, keys, platform=platform)


def microbatches(rows: int, in_cache: int | None, least: int = 1) -> int:
  """Returns the number of equal microbatches into which a device splits its examples of a batch.

  On CPU, small microbatches keep their activations in the cache. The result is the smallest divisor of `rows` in
  [n, 2 n), where n = max(least, ceil(rows / in_cache)). If there is no such divisor, the result is `least`. The result
  is also `least` if `in_cache` is None or if the platform is not the CPU.

  Args:
    rows: Number of examples of the batch on the device.
    in_cache: Largest number of examples whose activations fit in the cache; None if the cache does not matter.
    least: Smallest number of microbatches; must divide `rows`.
  """
  if jax.default_backend() != "cpu" or in_cache is None:
    return least
  smallest = max(least, -(-rows // in_cache))
  return next((count for count in range(smallest, 2 * smallest) if rows % count == 0), least)
