"""How many images a second does the training step take, beside PyTorch eager on the same machine?

  pip install -e '.[benchmark]' && python -m experiments.throughput.run

Both train the lecture's models on the same images in memory with Adam and cross-entropy. They take turns, so that the
machine's moods meet both; reported are medians over the rounds with the least and the greatest, and the median of the
rounds' ratios. Writes results.json and figure.png beside this file.
"""

import json
import math
import os
import pathlib
import platform
import statistics
import sys
import time

import jax
import numpy as np
from matplotlib.figure import Figure

from ae_jax import data, models, objectives, optimizers, parallel, steps
from ae_jax.data.epochs import Epochs
from ae_jax.errors import UserError
from configs import cnn, dense

HERE = pathlib.Path(__file__).parent
BATCHES = (64, 128, 256)
ROUNDS = 9
SECONDS = 1.0  # of a turn, about
MODELS = {"dense": dense.get_config().model, "cnn": cnn.get_config().model}


def ours(name, batch_size, dataset):
  """A turn of ae_jax: trains one chunk of steps and returns how many."""
  plan = Epochs(len(dataset.train), batch_size, 1, seed=0)
  optimizer = optimizers.build(
    "adam", learning_rate=1e-3, schedule="constant", warmup_epochs=0, weight_decay=0.0, epochs=1, steps_per_epoch=1
  )
  model = models.build(shape=dataset.shape, **MODELS[name])
  static = {
    "model": model,
    "objective": objectives.build("reconstruction", model, "unit", likelihood="bernoulli"),
    "optimizer": optimizer,
    "value_range": "unit",
    "blocks": parallel.blocks(batch_size, models.ROWS_IN_CACHE.get(name)),
  }
  key = jax.random.key(0)
  images = jax.device_put(dataset.train.reshape(len(dataset.train), -1))
  indices = jax.device_put(np.arange(plan.chunk * batch_size, dtype=np.int32).reshape(plan.chunk, -1) % plan.examples)
  weights = jax.numpy.ones(indices.shape)
  state = steps.init(key, model=model, optimizer=optimizer)
  placement = parallel.replicated(parallel.mesh(jax.local_devices()[:1]))
  arguments = jax.device_put((state, images, indices, weights, key), placement)
  chunk = steps.compiled(steps.train_chunk, arguments, out_shardings=placement, donate=(0,), **static)
  holder = {"state": arguments[0]}

  def turn():
    holder["state"], terms = chunk(holder["state"], *arguments[1:])
    jax.block_until_ready(terms)
    return plan.chunk

  return turn


def pytorch(name, batch_size, dataset):
  """A turn of PyTorch eager at its best: floats in memory, fused Adam, the same number of steps."""
  import torch
  from torch import nn

  torch.manual_seed(0)
  images = torch.from_numpy(dataset.train.astype(np.float32) / 255)
  if name == "dense":
    images = images.reshape(len(images), -1)
    layers = [nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 32), nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 784)]
  else:
    images = images.permute(0, 3, 1, 2).contiguous()
    layers = [nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(800, 32), nn.Linear(32, 800), nn.ReLU(), nn.Unflatten(1, (32, 5, 5))]
    layers += [nn.ConvTranspose2d(32, 16, 3, 2), nn.ReLU(), nn.ConvTranspose2d(16, 1, 8, 2)]
  model = nn.Sequential(*layers)
  optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
  count = Epochs(len(images), batch_size, 1, seed=0).chunk
  rows = torch.arange(count * batch_size).reshape(count, -1) % len(images)

  def turn():
    for row in rows:
      x = images[row]
      loss = nn.functional.binary_cross_entropy_with_logits(model(x), x, reduction="sum") / batch_size
      optimizer.zero_grad()
      loss.backward()
      optimizer.step()
    return count

  return turn


def images_per_second(turn, batch_size):
  """Repeats a turn for about SECONDS."""
  done, started = 0, time.perf_counter()
  while (seconds := time.perf_counter() - started) < SECONDS:
    done += turn()
  return done * batch_size / seconds


def compare(name, batch_size, dataset):
  """{who: images/s of every round}; the contestants take turns, after one turn each that does not count."""
  turns = {"ae_jax": ours(name, batch_size, dataset), "PyTorch eager": pytorch(name, batch_size, dataset)}
  for turn in turns.values():
    turn()
  rounds = {who: [] for who in turns}
  for _ in range(ROUNDS):
    for who, turn in turns.items():
      rounds[who].append(images_per_second(turn, batch_size))
  return rounds


def machine():
  """What the figures were measured on."""
  import torch

  processor = platform.processor() or platform.machine()
  if pathlib.Path("/proc/cpuinfo").exists():
    names = [line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = names[0].partition(":")[2].strip() if names else processor
  versions = {"python": platform.python_version(), "jax": jax.__version__, "torch": torch.__version__}
  return {"processor": processor, "cores": os.cpu_count(), **versions}


def draw(rows, path):
  """Bars of the medians with least and greatest."""
  figure = Figure(figsize=(8, 3), layout="constrained", dpi=150)
  for axes, name in zip(figure.subplots(1, len(MODELS)), MODELS, strict=True):
    cells = []
    for offset, who in ((-0.2, "ae_jax"), (0.2, "PyTorch eager")):
      mine = [row[who] for row in rows if row["model"] == name]
      cells += mine
      medians = [cell["median"] for cell in mine]
      spread = [[c["median"] - c["least"] for c in mine], [c["greatest"] - c["median"] for c in mine]]
      axes.bar(np.arange(len(mine)) + offset, medians, 0.38, yerr=spread, capsize=3, label=who)
    axes.set_xticks(range(len(BATCHES)), [f"batch {size}" for size in BATCHES])
    axes.set(title=f"{name}, training images per second", ylim=(0, 1.3 * max(cell["greatest"] for cell in cells)))
    axes.legend(fontsize=8)
  figure.savefig(path)


def main():
  """Measures, prints the table, and writes the results."""
  try:
    import torch  # noqa: F401
  except ImportError:
    raise UserError("this compares with PyTorch, the extra `benchmark`: pip install -e '.[benchmark]'") from None
  dataset = data.load("mnist_5k", "", "unit")
  rows = []
  for name in MODELS:
    for batch_size in BATCHES:
      rounds = compare(name, batch_size, dataset)
      row = {"model": name, "batch_size": batch_size}
      for who, values in rounds.items():
        row[who] = {"median": statistics.median(values), "least": min(values), "greatest": max(values)}
      row["ratio"] = statistics.median(a / b for a, b in zip(*rounds.values(), strict=True))
      rows.append(row)
      cells = [f"{row[who]['median']:,.0f} ({row[who]['least']:,.0f} to {row[who]['greatest']:,.0f})" for who in rounds]
      print(f"| {name} | {batch_size} | {' | '.join(cells)} | {math.floor(row['ratio'] * 100) / 100:.2f} |", flush=True)
  result = {"machine": machine(), "images_per_second": rows}
  (HERE / "results.json").write_text(json.dumps(result, indent=2) + "\n")
  draw(rows, HERE / "figure.png")


if __name__ == "__main__":
  try:
    main()
  except UserError as error:
    sys.exit(f"experiments.throughput: {error}")
