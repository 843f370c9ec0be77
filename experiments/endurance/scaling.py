"""Predicts the cost of a step on many devices from the cost model: arithmetic and communication per device."""

import importlib

import jax

from ae_jax import models, objectives
from ae_jax.models import cost
from ae_jax.system import distributed
from ae_jax.training import optimizers
from ae_jax.training.state import init_state
from experiments.throughput import tables

MODELS = ("dense", "cnn", "attention", "vae")
DEVICES = (8, 64, 512, 4096)
EXAMPLES_PER_DEVICE = 128
# One TPU v5e chip: bfloat16 FLOP/s, and bytes per second over its links (Google Cloud's documentation: 197 TFLOP/s, and
# 1,600 Gbit/s in all four directions together).
FLOPS, LINK = 197e12, 200e9
UTILISATION = 0.2  # fraction of the arithmetic peak, as measured for the CNN on a CPU


def table():
  """Returns a row for each model and number of devices; the batch size is proportional to the number of devices.

  A ring all-reduce of P float32 parameters sends and receives 2 (n - 1) / n * 4 P bytes per device. With sharded state,
  reduce-scatter and all-gather exchange the same number of bytes.
  """
  rows = []
  for name in MODELS:
    config = importlib.import_module(f"configs.{name}").get_config("mnist")
    model = models.build(shape=(28, 28, 1), **config.model)
    objective = objectives.build(model=model, value_range="unit", **config.objective)
    optimizer = optimizers.optimizer_factory(**config.optimizer, epochs=config.epochs, steps_per_epoch=100)()
    step = cost.step_cost(model, objective, optimizer, EXAMPLES_PER_DEVICE)
    state = jax.eval_shape(lambda key: init_state(key, model=model, optimizer=optimizer), jax.random.key(0))  # noqa: B023
    for devices in DEVICES:
      exchanged = 2 * (devices - 1) / devices * step.gradient_bytes
      rows.append(
        {
          "model": name,
          "devices": devices,
          "batch": devices * EXAMPLES_PER_DEVICE,
          "multiply_adds": step.training * EXAMPLES_PER_DEVICE,  # per device
          "exchanged_bytes": exchanged,
          "compute_seconds": 2 * step.training * EXAMPLES_PER_DEVICE / (UTILISATION * FLOPS),
          "exchange_seconds": exchanged / LINK,
          "state_bytes": step.state_bytes,
          "sharded_state_bytes": sum(_bytes_per_device(leaf, devices) for leaf in jax.tree.leaves(state)),
        }
      )
  return rows


def _bytes_per_device(leaf, devices):
  """Returns the bytes of a leaf of the sharded state per device."""
  size = leaf.size * leaf.dtype.itemsize
  return size if distributed.axis_to_shard(leaf.shape, devices) is None else size // devices


def markdown():
  """Returns the table of this folder's README."""
  headings = ["model", "devices", "batch", "multiply-adds a device", "exchanged a device"]
  headings += ["computing", "exchanging", "efficiency", "state", "sharded"]
  cells = []
  for row in table():
    compute, exchange = row["compute_seconds"], row["exchange_seconds"]
    cells.append(
      [
        row["model"],
        row["devices"],
        f"{row['batch']:,}",
        f"{row['multiply_adds'] / 1e9:.2f} G",
        f"{row['exchanged_bytes'] / 1e6:.2f} MB",
        f"{1e6 * compute:.0f} µs",
        f"{1e6 * exchange:.0f} µs",
        f"{compute / (compute + exchange):.0%}",
        f"{row['state_bytes'] / 1e6:.2f} MB",
        f"{row['sharded_state_bytes'] / 1e6:.2f} MB",
      ]
    )
  return tables.markdown_table(headings, cells)


if __name__ == "__main__":
  print(markdown())
