"""ae_jax: the compiled chunk of training steps, called as in `ae_jax.training.train`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ae_jax import models, objectives
from ae_jax.data.batch_schedule import BatchSchedule
from ae_jax.models import cost, memory
from ae_jax.ops import losses
from ae_jax.system import cache, distributed
from ae_jax.training import optimizers, programs, steps
from ae_jax.training.state import init_state
from configs import attention, cnn, dense, vae
from experiments.throughput import problem

CONFIGS = {"dense": dense, "cnn": cnn, "attention": attention, "vae": vae, **dict.fromkeys(problem.LARGE, cnn)}


def model(name, compute_dtype="float32"):
  """Returns the model of configs/<name>.py on MNIST, or the cnn with the channels of `problem.CHANNELS`."""
  options = CONFIGS[name].get_config("mnist").model.to_dict()
  if name in problem.CHANNELS:
    options["channels"] = problem.CHANNELS[name]
  return models.build(shape=problem.shape(name), compute_dtype=compute_dtype, **options)


def step(name, schedule, recipe, compute_dtype="float32"):
  """Returns the static arguments of the training step."""
  network, config = model(name, compute_dtype), CONFIGS[name].get_config("mnist")
  return {
    "model": network,
    "objective": objectives.build(model=network, value_range="unit", **config.objective),
    "optimizer": build_optimizer(schedule, recipe),
    "microbatches": memory.microbatches(
      schedule.batch_size, models.rows_in_cache(config.model.name, problem.shape(name))
    ),
  }


def costs(name, batch_size):
  """Returns the predicted cost of a step and the cost that XLA counts in the compiled step, by name.

  Multiply-adds are per image ("textbook": by formula; "products": executed by the CPU; "xla": half of XLA's flops).
  Bytes are per step.
  """
  static = _whole_step(name, batch_size)
  parts = static["model"], static["objective"], static["optimizer"], batch_size
  textbook, executed = cost.step_cost(*parts), cost.step_cost(*parts, platform=jax.default_backend())
  state = jax.eval_shape(functools.partial(init_state, model=parts[0], optimizer=parts[2]), jax.random.key(0))
  batch = {"x": jnp.zeros((batch_size, *parts[0].shape)), "weight": jnp.ones(batch_size)}
  program = jax.jit(functools.partial(steps.train_step, **static)).lower(state, batch, jax.random.key(0)).compile()
  xla_cost, xla_memory = program.cost_analysis(), program.memory_analysis()
  return {
    "parameters": textbook.parameters,
    "textbook": textbook.training,
    "products": executed.training,
    "xla": xla_cost["flops"] / 2 / batch_size,
    "activation_bytes": executed.activation_bytes * batch_size,
    "xla_temporary_bytes": xla_memory.temp_size_in_bytes,
    "traffic_bytes": executed.traffic_bytes,
    "xla_bytes": xla_cost["bytes accessed"],
  }


def multiply_adds(name, batch_size):
  """Returns the multiply-adds of a step per image, by formula; see `costs`. Nothing is compiled."""
  static = _whole_step(name, batch_size)
  return cost.step_cost(static["model"], static["objective"], static["optimizer"], batch_size).training


def _whole_step(name, batch_size):
  return step(name, BatchSchedule(60_000, batch_size, 1, seed=0), False) | {"microbatches": 1}


def build(name, batch_size, images, steps_per_call, recipe, compute_dtype="float32"):
  """Builds the contestant of ae_jax.

  `name` is one of `problem.MODELS`, and `images` are the training images as bytes [N, H, W, C]. `steps_per_call` is
  ignored with `recipe`, which uses the chunks and the learning rate of the race's recipe.
  """
  cache.keep_compiled_programs()
  schedule = BatchSchedule(len(images), batch_size, 1, seed=0)
  static = step(name, schedule, recipe, compute_dtype)
  network, optimizer = static["model"], static["optimizer"]
  placement = distributed.replicated(distributed.mesh(jax.local_devices()[:1]))
  init_key, key = jax.random.split(jax.random.key(0))
  data = jax.device_put({"x": images.reshape(len(images), -1)}, placement)
  static_of_init = {"model": network, "optimizer": optimizer}
  initialise = programs.compile_program(init_state, (init_key,), placement, mode=distributed.auto, **static_of_init)
  holder = {"state": initialise(init_key)}
  shape = (schedule.chunk if recipe else steps_per_call, batch_size)
  rows = jax.device_put((np.zeros(shape, np.int32), np.ones(shape, np.float32)), placement)
  arguments = jax.device_put((holder["state"], data, *rows, key), placement)
  chunk = programs.compile_program(steps.train_chunk, arguments, placement, value_range="unit", **static)

  def train(rows, weights=None):
    weights = np.ones(rows.shape, np.float32) if weights is None else weights
    batches = jax.device_put((rows, weights), placement)
    holder["state"], terms, _ = chunk(holder["state"], data, *batches, key)
    jax.block_until_ready(terms)

  @jax.jit
  def squared_error(variables, images):
    x = images.reshape(-1, *network.shape).astype(np.float32) / 255
    x_hat = losses.OUTPUT_ACTIVATIONS["unit"](network.reconstruct(variables, x))
    return jnp.square(x_hat - x).sum() / len(x)

  return problem.Contestant(
    network.parameter_count(),
    train,
    lambda test: problem.mean_in_parts(lambda part: squared_error(holder["state"].variables, part), test),
    schedule.chunks,
    chunk.as_text,
  )


def build_optimizer(schedule, recipe):
  """Returns Adam with the constant rate of all measurements, or with the rates of the race's recipe."""
  common = {"name": "adam", "weight_decay": 0.0, "clip_norm": 0.0, "steps_per_epoch": schedule.steps}
  if recipe:
    epochs = {"warmup_epochs": problem.WARMUP_EPOCHS, "epochs": problem.RECIPE_EPOCHS}
    return optimizers.optimizer_factory(learning_rate=problem.RECIPE_PEAK, schedule="cosine", **epochs, **common)()
  constant = {"schedule": "constant", "warmup_epochs": 0.0, "epochs": 1}
  return optimizers.optimizer_factory(learning_rate=problem.LEARNING_RATE, **constant, **common)()
