"""Training in this process, several seeds by one compiled program, and what is asked of what was trained."""

import dataclasses
import functools

import jax
import numpy as np

from ae_jax import data, models, objectives
from ae_jax.data import batch_schedule, ranges
from ae_jax.evaluators import reconstruction
from ae_jax.models import memory
from ae_jax.ops import losses
from ae_jax.training import optimizers, steps
from ae_jax.training.state import init_state

SEEDS = (0, 1, 2)


@dataclasses.dataclass(frozen=True)
class Fitted:
  """A trained model with its variables, on arrays of floats in the data's range."""

  model: models.Model
  variables: models.Variables
  value_range: str

  def apply(self, method, *args):
    """Returns the codes of "encode", or what another method of the module returns; compiled, NumPy in and out."""
    return np.asarray(_apply(self.variables, *args, model=self.model, method=method))

  def reconstruct(self, x):
    """Examples -> reconstructions in the range."""
    return self.output(self.logits(x))

  def logits(self, x):
    """Examples -> logits of their reconstructions."""
    return np.asarray(_reconstruct(self.variables, x, model=self.model))

  def output(self, logits):
    """Logits -> examples in the range."""
    return np.asarray(losses.OUTPUT_ACTIVATIONS[self.value_range](logits))

  def error(self, x):
    """The mean squared error per example."""
    return squared_error(self.reconstruct(x), x)


def configured(module, **changes):
  """configs/NAME.py:mnist_5k with some keys changed, dotted by two underscores."""
  config = module.get_config("mnist_5k")
  config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
  return config


def mnist_5k():
  """The embedded images, and the test images as floats."""
  dataset = data.load("mnist_5k", "", "unit")
  return dataset, test_examples(dataset)


def fit(config, dataset, seeds):
  """Trains what the config describes on a data set, once for each seed: a list of `Fitted`."""
  model = models.build(shape=dataset.shape, **config.model)
  schedules = [batch_schedule.BatchSchedule(len(dataset.train), config.batch_size, 1, seed) for seed in seeds]
  optimizer = optimizers.build(**config.optimizer, epochs=config.epochs, steps_per_epoch=schedules[0].steps)
  static = {
    "model": model,
    "objective": objectives.build(model=model, value_range=dataset.value_range, **config.objective),
    "optimizer": optimizer,
    "value_range": dataset.value_range,
    "microbatches": memory.microbatches(schedules[0].padded_batch_size, models.ROWS_IN_CACHE.get(config.model.name)),
  }
  chunk = jax.jit(functools.partial(steps.train_chunk, **static), donate_argnums=0)
  init = jax.jit(functools.partial(init_state, model=model, optimizer=optimizer))
  examples = jax.device_put({"x": dataset.train.reshape(len(dataset.train), -1)})
  fitted = []
  for schedule in schedules:
    init_key, noise_key = jax.random.split(jax.random.key(schedule.seed))
    state = init(init_key)
    for epoch in range(config.epochs):
      for rows in schedule.chunks(epoch):
        state, *_ = chunk(state, examples, *rows, noise_key)
    fitted.append(Fitted(model, state.variables, dataset.value_range))
  return fitted


def untrained(config, shape, seed):
  """The model that the config describes, at its initialisation."""
  model = models.build(shape=shape, **config.model)
  return Fitted(model, jax.jit(model.init)(jax.random.key(seed)), config.data.range)


def test_examples(dataset):
  """The test set as floats in the data's range."""
  return ranges.normalise(dataset.test, dataset.value_range)


def made(train, test, value_range):
  """A data set from arrays."""
  return data.Dataset("made", value_range, train, test, None, None)


def squared_error(x_hat, x):
  """The mean over examples of the squared error summed over each."""
  return float(np.square(x_hat.astype(np.float64) - x).sum() / len(x))


def psnr(x_hat, x):
  """Peak signal-to-noise ratio in dB of images in [0, 1]."""
  return reconstruction.psnr(float(np.square(x_hat.astype(np.float64) - x).mean()), 1.0)


@functools.partial(jax.jit, static_argnames=("model", "method"))
def _apply(variables, *args, model, method):
  found = model.apply(method, variables, *args)
  return found.z if method == "encode" else found


@functools.partial(jax.jit, static_argnames="model")
def _reconstruct(variables, x, *, model):
  return model.reconstruct(variables, x)
