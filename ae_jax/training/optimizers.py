"""name -> optax transform with its schedule."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ae_jax import errors

# Each scales the gradient to a direction; weight decay and the learning rate follow it.
OPTIMIZERS = {
  "adam": optax.scale_by_adam,
  "nadam": lambda: optax.scale_by_adam(nesterov=True),
  "rmsprop": optax.scale_by_rms,
  "adagrad": optax.scale_by_rss,
  "sgd": optax.identity,
  "momentum": lambda: optax.trace(decay=0.9),
  "nesterov": lambda: optax.trace(decay=0.9, nesterov=True),
}

# (peak, steps) -> the learning rate over the steps that follow the warm-up
SCHEDULES = {
  "constant": lambda peak, steps: optax.constant_schedule(peak),
  "cosine": lambda peak, steps: optax.cosine_decay_schedule(peak, steps),
  "linear": lambda peak, steps: optax.linear_schedule(peak, 0.0, steps),
}


def build(name, **options):
  """The optimizer that `config.optimizer` describes, over a run of epochs * steps_per_epoch steps: see `optimizer_factory`."""
  return optimizer_factory(name, **options)()


@dataclasses.dataclass(frozen=True)
class OptimizerFactory:
  """An optimizer as a function of its numbers, which members of a sweep that share a program may differ in."""

  scale: Callable  # of OPTIMIZERS
  decay: Callable  # of SCHEDULES
  warmup: int  # steps
  steps: int  # after the warm-up
  numbers: tuple[tuple[str, float], ...]  # learning_rate, and those of weight_decay and clip_norm that are not 0

  def __call__(self, **numbers: float | jax.Array) -> optax.GradientTransformation:
    """Returns the optimizer with these numbers, and its own in place of those that are not given."""
    return _chain(self.scale, self.decay, self.warmup, self.steps, **{**dict(self.numbers), **numbers})


def optimizer_factory(
  name, *, learning_rate, schedule, warmup_epochs, weight_decay, clip_norm, epochs, steps_per_epoch
) -> OptimizerFactory:
  """Returns the optimizer_factory of the optimizer that `config.optimizer` describes.

  The rate rises linearly to `learning_rate` during `warmup_epochs` and then follows the schedule to the end.
  Weight decay is decoupled (Loshchilov & Hutter 2019): "adam" with some is AdamW. A gradient longer than `clip_norm` is
  shortened to it (Pascanu et al. 2013), 0 for none. `update` takes the gradient's norm as `norm`. Raises UserError.
  """
  scale = errors.choose(OPTIMIZERS, name, "optimizer.name")
  decay = errors.choose(SCHEDULES, schedule, "optimizer.schedule")
  positive = errors.is_number(learning_rate) and learning_rate >= errors.SMALLEST
  wanted = f"a positive number from {errors.SMALLEST:g} to {errors.LARGEST:g}"
  errors.check(positive, "optimizer.learning_rate", learning_rate, wanted)
  most = errors.LARGEST_COUNT // steps_per_epoch
  errors.check(epochs <= most, "epochs", epochs, f"at most {most} at {steps_per_epoch} steps an epoch")
  errors.check(0 <= warmup_epochs <= epochs, "optimizer.warmup_epochs", warmup_epochs, f"from 0 to epochs={epochs}")
  errors.check_not_negative("optimizer.weight_decay", weight_decay)
  errors.check_not_negative("optimizer.clip_norm", clip_norm)
  warmup = round(warmup_epochs * steps_per_epoch)
  steps = max(1, epochs * steps_per_epoch - warmup)
  used = {"learning_rate": learning_rate} | ({"weight_decay": weight_decay} if weight_decay else {})
  used |= {"clip_norm": clip_norm} if clip_norm else {}
  numbers = tuple((name, float(number)) for name, number in used.items())  # JAX's int is int32
  return OptimizerFactory(scale, decay, warmup, steps, numbers)


def _chain(scale, decay, warmup, steps, *, learning_rate, weight_decay=None, clip_norm=None):
  rate = decay(learning_rate, steps)
  if warmup:
    rate = optax.join_schedules([optax.linear_schedule(learning_rate / warmup, learning_rate, warmup), rate], [warmup])
  decoupled = [] if weight_decay is None else [optax.add_decayed_weights(weight_decay)]
  clip = [] if clip_norm is None else [_clip(clip_norm)]
  return optax.with_extra_args_support(optax.chain(*clip, scale(), *decoupled, optax.scale_by_learning_rate(rate)))


def _clip(limit):
  """Optax's clip_by_global_norm for a norm that is known: that of a gradient of which the devices hold parts."""

  def update(updates, state, params=None, *, norm, **_):
    scale = jnp.minimum(1.0, limit / norm)
    return jax.tree.map(lambda leaf: scale * leaf, updates), state

  return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)
