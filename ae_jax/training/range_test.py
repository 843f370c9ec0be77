"""Learning-rate range test (Smith 2017): a short training with a rising rate, from which a rate is chosen."""

import dataclasses
import functools
import math

import jax
import numpy as np
import optax
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ae_jax import data, errors, models, objectives, overrides
from ae_jax.config.keys import AUTO
from ae_jax.data import columns as column_arrays
from ae_jax.ops import losses as loss_terms
from ae_jax.system import distributed
from ae_jax.training import device_arrays, setup, steps
from ae_jax.training.state import init_state
from ae_jax.types import AnyArray, Columns

STEPS = 100
_CHUNK = 10  # steps per compiled call
LOWEST, HIGHEST = 1e-5, 10.0  # learning rates of the first and the last step
# Chosen rate, relative to the rate with the smallest loss; experiments/learning_rate compares such rules.
_OF_SMALLEST = 0.2
# Lower bound of the chosen rate, relative to `before_doubling`. If a model starts as PCA, its loss hardly falls during
# the test, so noise determines which rate has the smallest loss.
_OF_DOUBLED = 0.01
_WINDOW = 9  # steps of the running mean
_DIGITS = (1.0, 2.0, 5.0, 10.0)  # leading digits of the rounded rate; see `rounded`


def choose(config: ConfigDict, dataset: data.Dataset | None) -> tuple[float, str, data.Dataset]:
  """Returns the learning rate for a config, a message for the user, and the data set.

  Args:
    config: The config; its learning rate is not used.
    dataset: The data set of the config; None to load it.

  Raises:
    UserError: The config is invalid or has several stages, or its training does not fit in the memory of a device.
  """
  if config.stages:
    raise errors.UserError(
      f"config.optimizer.learning_rate={AUTO!r}: does not work with config.stages, because each objective needs "
      "its own rate; set a number"
    )
  trial = setup.build_experiment(overrides.apply(config, {"optimizer.learning_rate": LOWEST}), 1, dataset)
  try:
    setup.check_memory(trial, 1)
  except errors.UserError as error:
    raise errors.UserError(
      f"config.optimizer.learning_rate={AUTO!r}: the learning-rate range test needs the model to fit on one device, "
      f"and it does not ({error}); set a number"
    ) from None
  rate = rounded(float(distributed.from_first_process(np.float32(pick(losses(trial))))))
  line = (
    f"config.optimizer.learning_rate={rate:g}: chosen by a range test of {STEPS} steps with rates from {LOWEST:g} to "
    f"{HIGHEST:g}; to skip the test, set this rate"
  )
  return rate, line, trial.dataset


def smooth(losses: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " steps"]:
  """Returns the running mean of the losses; it is very large near losses that are not finite."""
  padded = np.pad(np.where(np.isfinite(losses), losses, errors.LARGEST), _WINDOW // 2, mode="edge")
  return np.lib.stride_tricks.sliding_window_view(padded.astype(np.float64), _WINDOW).mean(1)


def pick(losses: Float[np.ndarray, " steps"]) -> float:
  """Returns a fifth of the rate with the smallest running mean of the losses, at least 1 % of `before_doubling`."""
  return max(float(_OF_SMALLEST * rates()[np.argmin(smooth(losses))]), _OF_DOUBLED * before_doubling(losses))


def before_doubling(losses: Float[np.ndarray, " steps"]) -> float:
  """Returns the last rate before the running mean of the losses first exceeds twice its minimum so far."""
  mean = smooth(losses)
  smallest = np.minimum.accumulate(mean)
  doubled = np.flatnonzero(mean > smallest + np.abs(smallest))
  return float(rates()[doubled[0] - 1 if len(doubled) else -1])


def rounded(rate: float) -> float:
  """Rounds a rate to 1, 2 or 5 times a power of ten, so that floating-point errors do not change the chosen rate.

  The result is the candidate with the smallest ratio to the rate.
  """
  power = 10.0 ** math.floor(math.log10(rate))
  nearest = min(_DIGITS, key=lambda digit: abs(math.log(digit * power / rate)))
  return float(f"{nearest * power:.1g}")


def rates() -> Float[np.ndarray, " steps"]:
  """Returns the learning rate of each step; it grows by a constant factor."""
  return np.geomspace(LOWEST, HIGHEST, STEPS)


def losses(experiment: setup.Experiment) -> Float[np.ndarray, " steps"]:
  """Trains on the first device with the learning rates `rates`; returns the loss before each step.

  The initial state, the batches, the noise, the optimizer and the objective are those of the experiment; only the
  learning rate differs. If the model starts as PCA, the entropy of the targets, the smallest possible value of a
  cross-entropy, is subtracted. Otherwise its differences between the batches hide those between the rates.
  """
  model, dataset, stage = experiment.model, experiment.dataset, experiment.stages[0]
  rising = lambda peak, steps: optax.exponential_decay(peak, 1, (HIGHEST / LOWEST) ** (1 / (STEPS - 1)))
  factory = dataclasses.replace(stage.optimizer_factory, decay=rising, warmup=0, guarded=False)
  optimizer = factory(learning_rate=LOWEST)
  static = {"model": model, "objective": stage.objective, "optimizer": optimizer, "augment": experiment.augment}
  static |= {"microbatches": stage.microbatches, "value_range": dataset.value_range}
  init_key, noise_key = device_arrays.keys(experiment.batch_schedule.seed)
  state = distributed.jit_once(functools.partial(init_state, model=model, optimizer=optimizer))(init_key)
  state = device_arrays.fit_to_data(state, experiment)
  chunk = jax.jit(functools.partial(steps.train_chunk, examples=None, **static))
  has_floor = bool(model.principal_components) and stage.objective.likelihood == "bernoulli"
  floor = jax.jit(functools.partial(_entropy, model=model, value_range=dataset.value_range))
  result = []
  for first in range(0, STEPS, _CHUNK):
    rows, weights = _batches(experiment, range(first, first + _CHUNK))
    state, terms, _ = chunk(state, rows=rows, weights=weights, key=noise_key)
    result.append(np.asarray(terms["loss"] - floor(rows, weights) if has_floor else terms["loss"]))
  return np.concatenate(result)


def _batches(experiment: setup.Experiment, numbers: range) -> tuple[Columns, Float[np.ndarray, "steps batch"]]:
  """Returns the batches of the steps `numbers`: columns {"x": [steps, B, elements], ...} and example weights."""
  schedule, columns = experiment.batch_schedule, data.split_columns(experiment.dataset, "train", experiment.model)
  batches = []
  for step in numbers:
    epoch, row = divmod(step, schedule.steps)
    indices, weights = (part[row] for part in schedule.batches(epoch))
    batches.append(
      (column_arrays.flat({name: np.asarray(column[indices]) for name, column in columns.items()}), weights)
    )
  return jax.tree.map(lambda *parts: np.stack(parts), *batches)


def _entropy(
  rows: Columns, weights: Float[AnyArray, "steps batch"], *, model: models.Model, value_range: str
) -> Float[Array, " steps"]:
  """Returns the mean entropy in nats of the targets of each batch."""

  def of_batch(batch):
    batch = steps.read_batch(*batch, examples=None, model=model, value_range=value_range)
    return objectives.batch_mean(loss_terms.bernoulli_entropy(*objectives.compared(batch)), batch["weight"])

  return jax.lax.map(of_batch, (rows, weights))
