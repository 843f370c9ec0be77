"""Measures the training step with microbatches of several sizes on images of several sizes.

  python -m experiments.throughput.microbatches

The sizes take turns within a process. Prints the speed of each relative to one whole batch, marks the size that
`models.rows_in_cache` chooses, and writes microbatches.json in this folder. It takes about half an hour on two cores.
"""

import functools
import pathlib
import statistics
import time

import jax
import numpy as np

from ae_jax import models, objectives
from ae_jax.data.batch_schedule import BatchSchedule
from ae_jax.models import memory
from ae_jax.training import steps
from ae_jax.training.state import init_state
from configs import attention, cnn, unet, vqvae
from experiments.throughput import measure, tables
from experiments.throughput.peers import ours

RESULTS = pathlib.Path(__file__).parent / "microbatches.json"
# Config, shape of an image, channels of the stages (None: those of the config), batch size, rows of a microbatch, and
# steps of a call. With few steps, fresh buffers cost large batches more than small ones; a chunk of training reuses
# them.
CASES = (
  (cnn, (28, 28, 1), (16, 32), 128, (128, 64, 32), 32),
  (cnn, (28, 28, 1), (16, 32), 256, (256, 128, 64, 32), 8),
  (cnn, (32, 32, 3), (16, 32), 128, (128, 64, 32), 32),
  (cnn, (32, 32, 3), (16, 32), 256, (256, 128, 64, 32), 8),
  (cnn, (64, 64, 3), (32, 64, 128), 32, (32, 16, 8), 32),
  (cnn, (64, 64, 3), (32, 64, 128), 128, (128, 64, 16, 8), 8),
  (cnn, (128, 128, 3), (32, 64, 128), 16, (16, 8, 4), 32),
  (cnn, (128, 128, 3), (32, 64, 128), 64, (64, 16, 8, 4), 8),
  (unet, (28, 28, 1), (16, 32), 128, (128, 64, 32), 32),
  (unet, (28, 28, 1), (16, 32), 256, (256, 128, 64, 32), 8),
  (unet, (64, 64, 3), (16, 32), 32, (32, 16, 8), 32),
  (unet, (64, 64, 3), (16, 32), 128, (128, 64, 16, 8), 8),
  (vqvae, (64, 64, 3), None, 64, (64, 16, 8), 32),
  (vqvae, (64, 64, 3), None, 128, (128, 32, 16, 8), 8),
  (attention, (64, 64, 3), None, 64, (64, 32, 16), 32),
  (attention, (64, 64, 3), None, 128, (128, 64, 32, 16), 8),
)


def main():
  """Measures all cases, writes the results and prints the table."""
  results = measure.measured_cases(__doc__, RESULTS, lambda rounds: [measured(*case, rounds) for case in CASES], 5)
  print(markdown(results["cases"]), tables.processor(results["run"]), sep="\n\n")


def measured(config, shape, channels, batch_size, sizes, steps_per_call, rounds):
  """Returns the seconds of a training step with each size of microbatches, in `rounds` alternating rounds."""
  config = config.get_config("mnist")
  options = config.model.to_dict() | ({"channels": channels} if channels else {})
  model = models.build(shape=shape, **options)
  images = np.random.default_rng(0).integers(0, 256, (steps_per_call * batch_size, *shape), np.uint8)
  static = {
    "model": model,
    "objective": objectives.build(model=model, value_range="unit", **config.objective),
    "optimizer": ours.build_optimizer(BatchSchedule(len(images), batch_size, 1, seed=0), recipe=False),
    "value_range": "unit",
  }
  key = jax.random.key(0)
  rows = np.arange(len(images), dtype=np.int32).reshape(steps_per_call, batch_size)
  state = init_state(key, model=model, optimizer=static["optimizer"])
  arguments = jax.device_put(
    (state, {"x": images.reshape(len(images), -1)}, rows, np.ones(rows.shape, np.float32), key)
  )
  chunks = {
    size: jax.jit(functools.partial(steps.train_chunk, microbatches=batch_size // size, **static)) for size in sizes
  }
  seconds = {size: [] for size in sizes}
  for turn in range(rounds + 1):
    for size, chunk in chunks.items():
      begun = time.perf_counter()
      jax.block_until_ready(chunk(*arguments))
      seconds[size] += [(time.perf_counter() - begun) / steps_per_call] if turn else []  # the first call compiles
  record = {"model": config.model.name, "shape": shape, "channels": channels, "batch_size": batch_size}
  record |= {"rows": list(sizes), "seconds": list(seconds.values()), "steps": steps_per_call}
  print(markdown([record]).splitlines()[-1], flush=True)
  return record


def markdown(records):
  """Returns the table: speeds relative to one batch, median (minimum to maximum) of the rounds' ratios."""
  rows = []
  for record in records:
    name = f"{record['model']} on {'x'.join(map(str, record['shape']))}, batch {record['batch_size']}"
    whole, in_cache = record["seconds"][0], models.rows_in_cache(record["model"], tuple(record["shape"]))
    chosen = record["batch_size"] // memory.microbatches(record["batch_size"], in_cache)
    cells = []
    for size, seconds in zip(record["rows"][1:], record["seconds"][1:], strict=True):
      ratios = [one / other for one, other in zip(whole, seconds, strict=True)]
      text = f"{size}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
      cells.append(f"**{text}**" if size == chosen else text)
    rows.append([name, ", ".join(cells)])
  return tables.markdown_table(["step", "rows of a microbatch: speed relative to one batch"], rows, left=(0, 1))


if __name__ == "__main__":
  main()
