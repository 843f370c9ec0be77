"""Optimizers: Optax transformations by name, with learning-rate schedules."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ae_jax import errors
from ae_jax.config import keys
from ae_jax.types import Number

# Transformations of the gradient; `_chain` applies weight decay and the learning rate after them.
OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
  "adam": optax.scale_by_adam,
  "nadam": lambda: optax.scale_by_adam(nesterov=True),
  "rmsprop": optax.scale_by_rms,
  "adagrad": optax.scale_by_rss,
  "sgd": optax.identity,
  "momentum": lambda: optax.trace(decay=0.9),
  "nesterov": lambda: optax.trace(decay=0.9, nesterov=True),
}

# (peak, number of steps after the warmup) -> learning-rate schedule of these steps
SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
  "constant": lambda peak, steps: optax.constant_schedule(peak),
  "cosine": optax.cosine_decay_schedule,
  "linear": lambda peak, steps: optax.linear_schedule(peak, 0.0, steps),
}


class Guard(NamedTuple):
  """State of the divergence guard (`config.on_nan="halve"`), the last part of the optimizer state; see `guard`."""

  scale: Any  # float32 [], factor of the learning rate: 0.5 ** (number of halvings in this stage)
  level: Any  # float32 [], level of the loss in this stage, 0.0 before the first chunk; see `guard.with_level`


@dataclasses.dataclass(frozen=True)
class OptimizerFactory:
  """Returns optimizers that differ only in numeric hyperparameters, such as the learning rate.

  The hyperparameters can be traced arrays, so sweep members with different values can share one compiled program.
  """

  scale: Callable  # a value of OPTIMIZERS
  decay: Callable  # a value of SCHEDULES
  warmup: int  # number of warmup steps
  steps: int  # number of steps after the warmup
  numbers: tuple[tuple[str, float], ...]  # (name, value) of learning_rate, and of weight_decay and clip_norm if not 0
  guarded: bool = False  # whether the last part of the optimizer state is a `Guard`

  @property
  def optimizer(self) -> optax.GradientTransformationExtraArgs:
    """The optimizer with the values in `self.numbers`.

    Equal factories return the same object, so that they can share compiled programs.
    """
    return _optimizer(self)

  def __call__(self, **numbers: Number) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer with `numbers` in place of the values in `self.numbers`."""
    used = {**dict(self.numbers), **numbers}
    return _chain(self.scale, self.decay, self.warmup, self.steps, guarded=self.guarded, **used)


def optimizer_factory(
  name: str,
  *,
  learning_rate: Any,
  schedule: str,
  warmup_epochs: float,
  weight_decay: Any,
  clip_norm: Any,
  epochs: int,
  steps_per_epoch: int,
  guarded: bool = False,
) -> OptimizerFactory:
  """Returns the factory of the optimizer that `config.optimizer` describes.

  Args:
    name: A key of OPTIMIZERS.
    learning_rate: Peak learning rate, reached by a linear warmup.
    schedule: A key of SCHEDULES; the learning rate follows this schedule after the warmup.
    warmup_epochs: Length of the warmup in epochs.
    weight_decay: Decoupled weight decay (Loshchilov & Hutter 2019); "adam" with weight decay is AdamW.
    clip_norm: Gradients with a larger norm are scaled to this norm (Pascanu et al. 2013); 0 for no limit. The `update`
      function of the optimizer takes the norm of the gradient as `norm`.
    epochs: Length of the training in epochs.
    steps_per_epoch: Number of steps per epoch.
    guarded: Whether the learning rate has the factor `Guard.scale`.

  Raises:
    UserError: If an option is invalid.
  """
  scale = errors.choose(OPTIMIZERS, name, "optimizer.name")
  decay = errors.choose(SCHEDULES, schedule, "optimizer.schedule")
  if learning_rate == keys.AUTO:
    raise errors.UserError(
      "config.optimizer.learning_rate='auto': works only in `ae_jax train` and ae_jax.fit; set a number, such as the "
      "rate that they print"
    )
  positive = errors.is_number(learning_rate) and learning_rate >= errors.SMALLEST
  wanted = f"a positive number from {errors.SMALLEST:g} to {errors.LARGEST:g}"
  errors.check(positive, "optimizer.learning_rate", learning_rate, wanted)
  most = errors.LARGEST_COUNT // steps_per_epoch
  errors.check(epochs <= most, "epochs", epochs, f"at most {most} at {steps_per_epoch} steps per epoch")
  errors.check(0 <= warmup_epochs <= epochs, "optimizer.warmup_epochs", warmup_epochs, f"from 0 to epochs={epochs}")
  errors.check_not_negative("optimizer.weight_decay", weight_decay)
  errors.check_not_negative("optimizer.clip_norm", clip_norm)
  warmup = round(warmup_epochs * steps_per_epoch)
  steps = max(1, epochs * steps_per_epoch - warmup)
  used = {"learning_rate": learning_rate} | ({"weight_decay": weight_decay} if weight_decay else {})
  used |= {"clip_norm": clip_norm} if clip_norm else {}
  numbers = tuple((name, float(number)) for name, number in used.items())  # JAX would convert a large int to int32
  return OptimizerFactory(scale, decay, warmup, steps, numbers, guarded)


@functools.lru_cache(maxsize=64)
def _optimizer(factory: OptimizerFactory) -> optax.GradientTransformationExtraArgs:
  return factory()


def _chain(scale, decay, warmup, steps, *, guarded, learning_rate, weight_decay=None, clip_norm=None):
  rate = decay(learning_rate, steps)
  if warmup:
    rate = optax.join_schedules([optax.linear_schedule(learning_rate / warmup, learning_rate, warmup), rate], [warmup])
  decoupled = [] if weight_decay is None else [optax.add_decayed_weights(weight_decay)]
  clip = [] if clip_norm is None else [_clip(clip_norm)]
  last = [_scale_by_guard()] if guarded else []
  chain = optax.chain(*clip, scale(), *decoupled, optax.scale_by_learning_rate(rate), *last)
  return optax.with_extra_args_support(chain)


def _scale_by_guard() -> optax.GradientTransformation:
  """Returns a transformation that multiplies the updates by `Guard.scale`, a power of two, so without rounding."""

  def update(updates, state, params=None):
    del params
    return jax.tree.map(lambda leaf: state.scale * leaf, updates), state

  return optax.GradientTransformation(lambda params: Guard(jnp.ones(()), jnp.zeros(())), update)


def _clip(limit: Number) -> optax.GradientTransformationExtraArgs:
  """Returns a variant of `optax.clip_by_global_norm` whose `update` takes the norm of the gradient as `norm`.

  A device that holds only a shard of the gradient cannot compute this norm alone.
  """

  def update(updates, state, params=None, *, norm, **_):
    scale = jnp.minimum(1.0, limit / norm)
    return jax.tree.map(lambda leaf: scale * leaf, updates), state

  return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)
