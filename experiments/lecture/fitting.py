"""Training of several seeds in this process by one compiled program, and functions of the trained models."""

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
  """A trained model with its variables. Arrays are NumPy arrays of floats in the range of the data."""

  model: models.Model
  variables: models.Variables
  value_range: str

  def apply(self, method, *args):
    """Returns the output of a compiled method of the module; for "encode", the latent codes."""
    return np.asarray(_apply(self.variables, *args, model=self.model, method=method))

  def reconstruct(self, x):
    """Returns the reconstructions of examples."""
    return self.output(self.logits(x))

  def logits(self, x):
    """Returns the logits of the reconstructions of examples."""
    return np.asarray(_reconstruct(self.variables, x, model=self.model))

  def output(self, logits):
    """Maps logits to the range of the data."""
    return np.asarray(losses.OUTPUT_ACTIVATIONS[self.value_range](logits))

  def error(self, x):
    """Returns the squared error of the reconstructions; see `squared_error`."""
    return squared_error(self.reconstruct(x), x)


def make_config(module, **changes):
  """Returns the mnist_5k config of a module in configs/ with changed keys; `__` stands for the dot in a key."""
  config = module.get_config("mnist_5k")
  config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
  return config


def mnist_5k():
  """Returns the data set mnist_5k and its test images as floats."""
  dataset = data.load("mnist_5k", "", "unit")
  return dataset, test_examples(dataset)


def fit(config, dataset, seeds):
  """Trains the config's model on a data set with each seed and returns a list of `Fitted`."""
  model = models.build(shape=dataset.shape, **config.model)
  schedules = [batch_schedule.BatchSchedule(len(dataset.train), config.batch_size, 1, seed) for seed in seeds]
  optimizer = optimizers.optimizer_factory(
    **config.optimizer, epochs=config.epochs, steps_per_epoch=schedules[0].steps
  )()
  static = {
    "model": model,
    "objective": objectives.build(model=model, value_range=dataset.value_range, **config.objective),
    "optimizer": optimizer,
    "value_range": dataset.value_range,
    "microbatches": memory.microbatches(
      schedules[0].padded_batch_size, models.rows_in_cache(config.model.name, dataset.shape)
    ),
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


def initialised(config, shape, seed):
  """Returns the untrained model of a config."""
  model = models.build(shape=shape, **config.model)
  return Fitted(model, jax.jit(model.init)(jax.random.key(seed)), config.data.range)


def test_examples(dataset):
  """Returns the test set as floats in the range of the data."""
  return ranges.normalise(dataset.test, dataset.value_range)


def array_dataset(train, test, value_range):
  """Returns a data set of arrays."""
  return data.Dataset("made", value_range, train, test, None, None)


def squared_error(x_hat, x):
  """Returns the squared error, summed over each example and averaged over the examples."""
  return float(np.square(x_hat.astype(np.float64) - x).sum() / len(x))


def psnr(x_hat, x):
  """Returns the peak signal-to-noise ratio in dB of images in [0, 1]."""
  return reconstruction.psnr(float(np.square(x_hat.astype(np.float64) - x).mean()), 1.0)


@functools.partial(jax.jit, static_argnames=("model", "method"))
def _apply(variables, *args, model, method):
  output = model.apply(method, variables, *args)
  return output.z if method == "encode" else output


@functools.partial(jax.jit, static_argnames="model")
def _reconstruct(variables, x, *, model):
  return model.reconstruct(variables, x)
