"""The common problem of all contestants: model sizes, images, batches and the recipe of the race.

Imports NumPy only, so that JAX adds no memory or threads to a process whose library does not use it.
"""

import dataclasses
import math
import os
from collections.abc import Callable

import numpy as np

# The models of configs/*.py, and larger images with the cnn. The number of parameters of each peer's model is checked
# against ours.
ON_MNIST = ("dense", "cnn", "attention", "vae")
LARGE = {"cnn64": ((64, 64, 3), 32, 1024), "cnn128": ((128, 128, 3), 16, 256)}  # shape, batch size, number of images
MODELS = (*ON_MNIST, *LARGE)
CHANNELS = {"cnn": (16, 32), **dict.fromkeys(LARGE, (32, 64, 128))}
PIXELS, SIDE, LATENT = 784, 28, 32
WIDTHS = {"dense": (256,), "vae": (512, 256)}  # hidden layers of the encoder; the decoder has them in reverse order
LEARNING_RATE = 1e-3  # of Adam, for all measurements except the race

# The recipe of the race to a test error: configs/cnn.py with 8 epochs.
RECIPE_MODEL, RECIPE_BATCH, RECIPE_EPOCHS, RECIPE_PEAK, WARMUP_EPOCHS = "cnn", 64, 8, 4e-3, 1.0


@dataclasses.dataclass(frozen=True)
class Contestant:
  """A model and its training step in one library."""

  parameters: int
  train: Callable  # (rows int32 [steps, B]) -> None; trains one step per batch and waits for the device
  squared_error: Callable  # (images uint8 [N, H, W, C]) -> squared error summed over pixels, averaged over images
  epoch: Callable  # (number) -> list of arguments of `train` that visit all images once
  program: Callable | None = None  # () -> text of the compiled call of `train`; None: not known


def cores():
  """Returns the number of processor cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def shape(model):
  """Returns the shape of the images of a model."""
  return LARGE[model][0] if model in LARGE else (SIDE, SIDE, 1)


def images(model, mnist):
  """Returns the training images of a model, bytes [N, H, W, C]: MNIST, or random bytes for the models of `LARGE`."""
  if model not in LARGE:
    return mnist
  return np.random.default_rng(0).integers(0, 256, (LARGE[model][2], *shape(model)), np.uint8)


def batches(model, default):
  """Returns the batch sizes of a model: `default`, or the size in `LARGE`."""
  return (LARGE[model][1],) if model in LARGE else default


def unit(images):
  """Converts bytes [N, H, W, C] to float32 in [0, 1], the format in which peers keep the images in memory."""
  return np.divide(images, 255, dtype=np.float32)


def calls(examples, batch_size, steps):
  """Returns the full calls of a shuffled epoch, rows int32 [calls, steps, B]."""
  order = np.random.default_rng(0).permutation(examples).astype(np.int32)
  size = steps * batch_size
  return order[: len(order) // size * size].reshape(-1, steps, batch_size)


def epoch(examples, batch_size, number):
  """Returns the full batches of a shuffled epoch as the arguments of one call, [(rows int32 [steps, B],)]."""
  order = np.random.default_rng((0, number)).permutation(examples).astype(np.int32)
  return [(order[: examples // batch_size * batch_size].reshape(-1, batch_size),)]


def learning_rate(step, steps_per_epoch, cosine=math.cos, minimum=min):
  """Returns the learning rate of the recipe: linear warm-up, then cosine decay to 0.

  `cosine` and `minimum` are functions of the library whose tensor `step` is.
  """
  warmup = WARMUP_EPOCHS * steps_per_epoch
  fraction = minimum(1.0, (step + 1) / warmup)
  progress = (step - warmup) / (RECIPE_EPOCHS * steps_per_epoch - warmup)
  return RECIPE_PEAK * minimum(fraction, 0.5 * (1 + cosine(math.pi * progress)))


def mean_in_parts(function, images, size=1000):
  """Returns the mean of `function` over parts of `size` images; `size` must divide the number of images."""
  parts = images.reshape(-1, size, *images.shape[1:])
  return sum(float(function(part)) for part in parts) / len(parts)
