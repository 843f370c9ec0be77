"""What a step on many devices costs, from the cost model: arithmetic per device, and bytes that it must exchange."""

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
# Cloud TPU v5e: bfloat16 operations a second of a chip, and bytes a second over its links to the others (Google Cloud's
# documentation of the v5e gives 197 TFLOP/s, and 1,600 Gbit/s in all four directions)
FLOPS, LINK = 197e12, 200e9
REACHED = 0.2  # of the arithmetic peak, as the CNN does of a processor's


def table():
  """Rows of plain numbers for each model and number of devices, the batch growing with the devices.

  A ring all-reduce of P parameters in float32 sends and receives 2 (n - 1) / n * 4 P bytes per device; with a sharded
  state the reduce-scatter and the gathering exchange the same bytes.
  """
  rows = []
  for name in MODELS:
    config = importlib.import_module(f"configs.{name}").get_config("mnist")
    model = models.build(shape=(28, 28, 1), **config.model)
    objective = objectives.build(model=model, value_range="unit", **config.objective)
    optimizer = optimizers.build(**config.optimizer, epochs=config.epochs, steps_per_epoch=100)
    step = cost.step_cost(model, objective, optimizer, EXAMPLES_PER_DEVICE)
    state = jax.eval_shape(lambda key: init_state(key, model=model, optimizer=optimizer), jax.random.key(0))  # noqa: B023
    for devices in DEVICES:
      exchanged = 2 * (devices - 1) / devices * step.gradient_bytes
      rows.append(
        {
          "model": name,
          "devices": devices,
          "batch": devices * EXAMPLES_PER_DEVICE,
          "multiply_adds": step.training * EXAMPLES_PER_DEVICE,  # of a device
          "exchanged_bytes": exchanged,
          "compute_seconds": 2 * step.training * EXAMPLES_PER_DEVICE / (REACHED * FLOPS),
          "exchange_seconds": exchanged / LINK,
          "state_bytes": step.state_bytes,
          "sharded_state_bytes": sum(_held(leaf, devices) for leaf in jax.tree.leaves(state)),
        }
      )
  return rows


def _held(leaf, devices):
  """Bytes of a leaf of a sharded state that each of the devices holds."""
  whole = leaf.size * leaf.dtype.itemsize
  return whole if distributed.axis_to_shard(leaf.shape, devices) is None else whole // devices


def markdown():
  """Returns the table of the README beside this file."""
  heads = ["model", "devices", "batch", "multiply-adds a device", "exchanged a device"]
  heads += ["computing", "exchanging", "efficiency", "state", "sharded"]
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
  return tables.grid(heads, cells)


if __name__ == "__main__":
  print(markdown())
