"""Run folders for tests of their readers: written directly, without training."""

import json

import numpy as np
from conftest import config_of

from ae_jax import config as configs
from ae_jax.evaluators import figures, results


def images(count, side=28, channels=1, seed=0):
  """Returns images [count, side, side, channels] in [0, 1]: a bright spot of random position and width on black."""
  generator = np.random.default_rng(seed)
  grid = np.mgrid[:side, :side].transpose(1, 2, 0)[None] / side
  centres, widths = generator.uniform(0.25, 0.75, (count, 1, 1, 2)), generator.uniform(0.05, 0.2, (count, 1, 1))
  spots = np.exp(-np.square(grid - centres).sum(-1) / widths**2)
  return np.repeat(np.round(255 * spots[..., None]) / 255, channels, -1).astype(np.float32)


def series(count, steps=60, channels=1, seed=0):
  """Returns series [count, steps, channels]: sine waves with random phases."""
  phases = np.random.default_rng(seed).uniform(0, 6, (count, 1, channels))
  return np.sin(np.linspace(0, 9, steps)[None, :, None] + phases).astype(np.float32)


def every_kind(examples, points=1000):
  """Returns (name, value) pairs: a figure of every kind from examples [16 or more, ...], numbers and notes."""
  generator = np.random.default_rng(1)
  noisy = examples[:16] * 0.8 + 0.1
  name = "test images" if examples.ndim == 4 else "series"
  labels = np.arange(points) % 10
  centres = generator.normal(size=(10, 2))[labels]
  views = {"PCA": centres + 0.2 * generator.normal(size=(points, 2)), "t-SNE": 9 * generator.normal(size=(points, 2))}
  many = np.resize(examples, (points, *examples.shape[1:]))
  steps = np.resize(examples, (3 * 9 * 9, *examples.shape[1:])).reshape(3, 9, 9, *examples.shape[1:])
  tokens = 16 if examples.ndim == 4 else examples.shape[1]
  weights = generator.dirichlet(np.ones(tokens), (16, 2, 3)).astype(np.float32)
  directions = ("direction 1", "direction 2", "direction 3", "direction 4", "direction 5", "direction 6")
  ramp = np.array([(0, 1, 2, 3), (4.0, 5.5, 7.0, 11.0)])
  reconstructions = {name: examples[:16], "reconstructions": noisy}
  return [
    ("reconstruction/squared_error", 3.6),
    ("reconstruction/ssim", 0.93),
    ("reconstruction/squared_error/class_0", 3.0),
    ("reconstruction/squared_error/class_1", 4.2),
    ("reconstruction/errors", figures.Bars("errors by class", ("0", "1", "2"), np.ones(3), "class", "error")),
    ("reconstruction/reconstructions", figures.ExampleRows("test examples and reconstructions", reconstructions)),
    ("reconstruction/error_map", figures.Heatmap("mean error", "error", examples[:16].mean((0, -1)))),
    ("reconstruction/attention", figures.Attention("attention weights", examples[:16], {"pool": weights})),
    ("probe/latent_map", figures.Points("latent codes of test examples", views, many, labels)),
    ("probe/accuracy", 0.98),
    ("probe/accuracy_low", 0.97),
    ("probe/accuracy_high", 0.99),
    ("generation/explorer", figures.Explorer("decoded examples", directions, np.linspace(-3, 3, 9), steps)),
    ("generation/samples", figures.Gallery("decoded draws", np.resize(examples, (36, *examples.shape[1:])))),
    ("generation/likelihood", "there is no posterior to weigh <draws> with"),
    ("robustness/shifts", figures.Lines("errors after a shift", {"model": ramp, "PCA": 2 * ramp}, "shift", "error")),
    ("anomaly/scores_over_time", figures.Timelines("scores", *timelines(), 1.5)),
    (
      "robustness/disturbed",
      figures.ExampleRows("disturbed", {"clean": examples[:8], "noisy": noisy[:8], "so": noisy[:8]}),
    ),
    ("novel/unheard_of", figures.Bars("figure of an unregistered evaluator", (), np.arange(5.0), "number", "value")),
  ]


def timelines():
  """Returns the curves of two recordings, and stretches to mark, for `figures.Timelines`."""
  steps, names = np.arange(100.0, 160), ("first", "second")
  curve = np.stack([steps, 1 + np.sin(steps)])
  marked = {"first": np.array([[110, 113], [130, 131]]), "second": np.zeros((0, 2), int)}
  return dict.fromkeys(names, curve), dict.fromkeys(names, curve[:, ::8]), marked


def records(epochs, start=1.0, per_epoch=6):
  """Returns the records of metrics.jsonl after `epochs` epochs with falling errors."""
  lines = []
  for part in range(1, epochs * per_epoch + 1):
    epoch = part / per_epoch
    record = {"step": 50 * part, "epoch": epoch, "train/loss": 60 + 90 * start / epoch}
    if part % per_epoch == 0:
      error = 3.0 + 9.0 * start / epoch
      record |= {"images_per_second": 1e5, "compile_seconds": 1.5, "test/loss": 61 + 90 * start / epoch}
      record |= {"test/squared_error": error, "test/psnr": 20.0 + epoch / 10, "test/nats": 61 + 90 * start / epoch}
      record |= {"test/pca_squared_error": 13.193, "test/nats_floor": 45.534}
    lines.append(record)
  return lines


def make(folder, epochs=50, asked=None, found=(), shape=(28, 28, 1), changes=(), start=1.0, fingerprint="5a17"):
  """Writes and returns the folder of a run of configs/dense.py, with `changes`, after `epochs` of `asked` epochs."""
  config = config_of("dense", "digits")
  config.update_from_flattened_dict({"epochs": asked or epochs, "model.latent": 32, **dict(changes)})
  if len(shape) == 2:
    config.data.range = "real"
  description = {
    "config": configs.as_json(config),
    "data": {"shape": list(shape), "train": 60_000, "test": 10_000, "fingerprint": fingerprint},
    "parameters": 419_120,
    "versions": {"python": "3.11.7", "ae_jax": "0.1.0", "jax": "0.10.2"},
    "devices": ["cpu: cpu"],
    "git_commit": "0123456789abcdef",
  }
  folder.mkdir(parents=True)
  (folder / "config.json").write_text(json.dumps(description))
  lines = records(epochs, start)
  (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
  if found:
    results.write(folder, results.collect(lines[-1]["step"], found))
  return folder
