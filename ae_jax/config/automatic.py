"""Chooses values for keys of the config `dense` for data of any kind. experiments/defaults measured the choices."""

import math
from typing import Any

_LEAST_STEPS, _MOST_STEPS = 300, 2000
_OPERATIONS = 3e12  # multiply-adds of a training: about two minutes on two cores
_TIMES = 3  # cost of a training step in forward passes: one forward, two backward (for parameters and for inputs)
_BATCH, _WIDTH = 64, 256
_EVALUATIONS = 20  # approximate number of evaluations of a training
# Maximum number of training examples -> dropout rate, weight decay and learning rate. With few examples, the correction
# to PCA overfits unless it is strongly regularised.
_STRENGTHS = {2500: (0.3, 0.3, 1e-3), 10_000: (0.1, 0.1, 2e-3), math.inf: (0.0, 0.0, 2e-3)}
_FEWER_THAN_ELEMENTS = (0.5, 0.3, 3e-4)  # the same if there are fewer examples than elements per example (photographs)


def changes(
  shape: tuple[int, ...], count: int, epochs: int | None = None, batch_size: int | None = None
) -> dict[str, Any]:
  """Returns {dotted config key: value}, which replace the defaults of the config `dense`.

  Args:
    shape: Shape of an example.
    count: Number of training examples.
    epochs: Number of epochs set by the user; None: the number is chosen.
    batch_size: Batch size set by the user; None: the size is chosen.
  """
  elements = math.prod(shape)
  batch = batch_size or min(_BATCH, max(8, count // 8), count)
  multiply_adds = _TIMES * batch * 2 * _WIDTH * elements
  steps = min(_MOST_STEPS, max(_LEAST_STEPS, round(_OPERATIONS / multiply_adds)))
  shorten = epochs is None
  if epochs is None:
    epochs = max(2, math.ceil(steps * min(batch, count) / count))
  every = max(1, epochs // _EVALUATIONS)
  by_count = next(strength for most, strength in _STRENGTHS.items() if count <= most)
  dropout, decay, learning_rate = _FEWER_THAN_ELEMENTS if count < elements else by_count
  return {
    "model.latent": min(32, max(1, elements // 3)),
    "model.widths": (_WIDTH,),
    "model.linear_path": "auto",
    "model.dropout": dropout,
    "optimizer.weight_decay": decay,
    "optimizer.learning_rate": learning_rate,
    "batch_size": batch,
    "on_nan": "halve",
    "shorten": shorten,
    "epochs": epochs,
    "eval_every_epochs": every,
    "checkpoint_every_epochs": 5 * every,
  }
