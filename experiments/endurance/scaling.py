"""What a step on many devices costs, from the cost model: arithmetic per device, and bytes that it must exchange."""

import importlib

from ae_jax import cost, models, objectives, optimizers

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
    step = cost.of(model, objective, optimizer, EXAMPLES_PER_DEVICE)
    for devices in DEVICES:
      exchanged = 2 * (devices - 1) / devices * step.gradient_bytes
      compute = 2 * step.training * EXAMPLES_PER_DEVICE / (REACHED * FLOPS)
      rows.append(
        {
          "model": name,
          "devices": devices,
          "batch": devices * EXAMPLES_PER_DEVICE,
          "multiply_adds": step.training * EXAMPLES_PER_DEVICE,
          "exchanged_bytes": exchanged,
          "compute_seconds": compute,
          "exchange_seconds": exchanged / LINK,
          "state_bytes_sharded": step.state_bytes / devices,
        }
      )
  return rows
