"""Chooses a config for data of any kind. The choices were measured by experiments/defaults."""

import math
from typing import Any, NamedTuple

_LEAST_STEPS, _MOST_STEPS = 300, 3000
_OPERATIONS = 3e12  # multiply-adds of a training, about two minutes on two cores
_BATCH, _WIDTH = 64, 256
_TIMES = 3  # forward pass, and backward pass for the parameters and for the inputs
_EVALUATIONS = 20  # approximate number of evaluations of a training
_FEW, _MANY = 2500, 10_000  # training examples


class Choice(NamedTuple):
  """A shipped config and changes of its keys."""

  config: str
  changes: dict[str, Any]  # dotted config key -> value


def choose(kind: str, shape: tuple[int, ...], count: int) -> Choice:
  """Returns the config for a kind of data.

  All choices have a linear path, because no network alone was better than PCA on small data sets. The fewer examples
  there are, the stronger is the regularisation, because a correction to PCA that fits few examples exactly makes other
  examples worse.

  Args:
    kind: A value of `types.KINDS`.
    shape: Shape of an example.
    count: Number of training examples.
  """
  elements = math.prod(shape)
  batch = min(_BATCH, max(8, count // 8))
  multiply_adds = _TIMES * batch * 2 * _WIDTH * elements
  steps = min(_MOST_STEPS, max(_LEAST_STEPS, round(_OPERATIONS / multiply_adds)))
  epochs = max(2, round(steps * batch / count))
  strength = 0.3 if count < _FEW else 0.1 if count < _MANY else 0.0
  every = max(1, epochs // _EVALUATIONS)
  changes = {
    "model.latent": min(32, max(2, elements // 3)),
    "model.dropout": strength,
    "optimizer.weight_decay": strength,
    "optimizer.learning_rate": 1e-3 if elements > _FEW or count < _FEW else 2e-3,
    "optimizer.warmup_epochs": max(1.0, float(epochs // _EVALUATIONS)),
    "batch_size": batch,
    "epochs": epochs,
    "eval_every_epochs": every,
    "checkpoint_every_epochs": 5 * every,
  }
  return Choice("table", changes) if kind == "table" else Choice("dense", changes | {"model.linear_path": "pca"})
