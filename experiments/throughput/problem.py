"""What every contestant is given: the models' sizes, the images, the rows of each step, and the recipe.

NumPy only, so that a peer's process holds nothing of JAX that the peer itself does not bring.
"""

import dataclasses
import math
import os
from collections.abc import Callable

import numpy as np

# The models of configs/*.py; that they are the same is checked by their numbers of parameters.
MODELS = ("dense", "cnn", "attention", "vae")
PIXELS, SIDE, LATENT = 784, 28, 32
WIDTHS = {"dense": (256,), "vae": (512, 256)}  # hidden layers of the encoder, the decoder's in reverse
LEARNING_RATE = 1e-3  # Adam's, where speed is measured

# The recipe of the race to a quality: configs/cnn.py at 8 epochs.
RECIPE_MODEL, RECIPE_BATCH, RECIPE_EPOCHS, RECIPE_PEAK, WARMUP_EPOCHS = "cnn", 64, 8, 4e-3, 1


@dataclasses.dataclass(frozen=True)
class Contestant:
  """A model in training, by whatever library."""

  parameters: int
  train: Callable  # (rows int32 [steps, B]) -> None; one step on each batch of rows, waited for
  squared_error: Callable  # (images uint8 [N, 28, 28, 1]) -> their mean squared error, summed over the pixels
  epoch: Callable  # (number) -> list of arguments of `train`, all images once


def cores():
  """The processor cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def unit(images):
  """Bytes [N, 28, 28, 1] -> float32 in [0, 1], as every peer keeps them in memory."""
  return np.divide(images, 255, dtype=np.float32)


def calls(examples, batch_size, steps):
  """A shuffled epoch cut into as many calls as are full: rows int32 [calls, steps, B]."""
  order = np.random.default_rng(0).permutation(examples).astype(np.int32)
  size = steps * batch_size
  return order[: len(order) // size * size].reshape(-1, steps, batch_size)


def epoch(examples, batch_size, number):
  """The full batches of a shuffled epoch, as the arguments of one call: [(rows int32 [steps, B],)]."""
  order = np.random.default_rng((0, number)).permutation(examples).astype(np.int32)
  return [(order[: examples // batch_size * batch_size].reshape(-1, batch_size),)]


def learning_rate(step, steps_per_epoch, cosine=math.cos, minimum=min):
  """The recipe's rate: up in a straight line during the warm-up, then down a cosine to 0.

  `cosine` and `minimum` are those of the library that `step` belongs to.
  """
  warmup = WARMUP_EPOCHS * steps_per_epoch
  fraction = minimum(1.0, (step + 1) / warmup)
  progress = (step - warmup) / (RECIPE_EPOCHS * steps_per_epoch - warmup)
  return RECIPE_PEAK * minimum(fraction, 0.5 * (1 + cosine(math.pi * progress)))


def mean_in_parts(function, images, size=1000):
  """The mean over parts of the images of what `function` says of each; `size` divides their number."""
  parts = images.reshape(-1, size, *images.shape[1:])
  return sum(float(function(part)) for part in parts) / len(parts)
