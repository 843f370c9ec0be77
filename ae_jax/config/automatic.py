"""Chooses the keys of the config `dense` for data of any kind. experiments/defaults measured the choices."""

import math
from typing import Any

_LEAST_STEPS, _MOST_STEPS = 300, 2000
_OPERATIONS = 3e12  # multiply-adds of a training: about two minutes on two cores
_TIMES = 3  # forward pass, and backward pass for the parameters and for the inputs
_BATCH, _WIDTH = 64, 256
_EVALUATIONS = 20  # approximate number of evaluations of a training
# Maximum number of training examples -> dropout rate, weight decay and learning rate. A correction to PCA that fits few
# examples exactly makes other examples worse.
_STRENGTHS = {2500: (0.3, 0.3, 1e-3), 10_000: (0.1, 0.1, 2e-3), math.inf: (0.0, 0.0, 2e-3)}
_FEWER_THAN_ELEMENTS = (0.5, 0.3, 3e-4)  # the same for fewer examples than elements, such as photographs


def changes(
  shape: tuple[int, ...], count: int, epochs: int | None = None, batch_size: int | None = None
) -> dict[str, Any]:
  """Returns the values of dotted config keys, in addition to the defaults of the config `dense`.

  Args:
    shape: Shape of an example.
    count: Number of training examples.
    epochs: Number of epochs, if the user sets it; None: it is chosen.
    batch_size: Batch size, if the user sets it; None: it is chosen.
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
