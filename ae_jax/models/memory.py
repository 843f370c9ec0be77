"""Whether a run fits the memory of a device: what it is going to need, predicted, against what there is.

A config can ask for terabytes. What is refused here is refused before anything is compiled or written, in a line, and
not by the operating system, which would end the process or another one.
"""

import contextlib

import jax

from ae_jax import errors
from ae_jax.data import placements
from ae_jax.models import cost


def available():
  """Bytes of memory that a step may take: of the first local device, on CPU of the machine or of its container."""
  return min(placements.host_bytes(), placements.device_bytes())


def share(devices):
  """Bytes that each of so many local devices may take: nine tenths of an accelerator's memory.

  On CPU half of the machine's, in equal parts: its devices share it with all else.
  """
  if jax.default_backend() == "cpu":
    return placements.host_bytes() / 2 / devices
  return 0.9 * placements.device_bytes()


def check_parameters(model):
  """Returns the abstract variables of a model; UserError if they alone do not fit the memory."""
  variables, there = model.abstract_variables(), available()
  size = cost.bytes_of(jax.tree.leaves(variables))
  if size > there:
    raise errors.UserError(
      f"config.model: {size // 4:,} parameters need {placements.gib(size)}, and this device has "
      f"{placements.gib(there)}; make the model smaller"
    )
  return variables


def check(model, objective, optimizer, rows, shards=1):
  """Raises UserError where a step cannot fit a device that computes `rows` examples at a time.

  The optimizer's state is cut between so many `shards`; parameters and gradient come together on every device.
  Counted are parameters, optimizer state and gradient, and what the backward pass keeps of the forward pass
  (`cost.kept_bytes`); nothing is computed.
  """
  variables, there = check_parameters(model), available()
  params = variables.params
  optimizer_state = cost.bytes_of(jax.tree.leaves(jax.eval_shape(optimizer.init, params)))
  state = 2 * cost.bytes_of(jax.tree.leaves(params)) + optimizer_state // shards
  if state > there:
    raise errors.UserError(
      f"config.model: parameters, gradient and optimizer need {placements.gib(state)}, and this device has "
      f"{placements.gib(there)}; make the model smaller"
    )
  kept = state + _kept(model, objective, variables, rows)
  if kept > there:
    raise errors.UserError(
      f"config.batch_size: {rows} examples at a time need about {placements.gib(kept)}, and this device has "
      f"{placements.gib(there)}; make it or the model smaller, or raise config.accumulate"
    )


@contextlib.contextmanager
def explained():
  """Turns what JAX raises where the memory of a device gives out into a UserError."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    raise errors.UserError(
      f"config.batch_size, config.model: the device's memory gave out ({errors.one_line(error)}); make one of them "
      "smaller, or raise config.accumulate"
    ) from None


def _kept(model, objective, variables, rows):
  batch, keys = cost.abstract_batch(model, rows)
  loss = cost.training_loss(model, objective)
  platform = jax.default_backend()
  return cost.kept_bytes(lambda *args: loss(*args)[0], *variables, batch, keys, platform=platform)


def microbatches(rows, in_cache, least=1):
  """Returns into how many equal parts a device cuts its rows of a batch, so that one part's activations stay in cache.

  On CPU these are the fewest, `least` or more, with at most `in_cache` rows, but more than half as many; `least`, which
  divides the rows, if no such number divides them, if `in_cache` is None, and on any other platform.
  """
  if jax.default_backend() != "cpu" or in_cache is None:
    return least
  enough = max(least, -(-rows // in_cache))
  return next((count for count in range(enough, 2 * enough) if rows % count == 0), least)
