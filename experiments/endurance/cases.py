"""Cases of the config fuzzer: shipped configs on tiny data, each with one to four unusual changes.

In this module, a config is a nested dict and a key is a path such as ("model", "widths") or ("stages", 0, "epochs").
"""

import copy
import importlib
import pathlib

import numpy as np
from hypothesis import strategies as st

from ae_jax import errors
from ae_jax.config.keys import ANALYSES
from experiments.endurance import values

ROOT = pathlib.Path(__file__).parent.parent.parent
SHIPPED = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


def write_data(folder):
  """Writes images (images.npz: 8x8 bytes; colour.npz: 9x7x3 floats) and series (beats/) into a folder."""
  generator = np.random.default_rng(0)
  labels = {"y_train": np.arange(24) % 3, "y_test": np.arange(8) % 3}
  grey = {
    f"x_{split}": generator.integers(0, 256, (len(labels[f"y_{split}"]), 8, 8), np.uint8) for split in ("train", "test")
  }
  np.savez(folder / "images.npz", **grey, **labels)
  np.savez(folder / "colour.npz", x_train=generator.uniform(size=(30, 9, 7, 3)).astype(np.float32))
  (folder / "beats").mkdir()
  for split, size in (("TRAIN", 24), ("TEST", 8)):
    table = np.concatenate([np.arange(size)[:, None] % 2 + 1, generator.normal(size=(size, 20))], axis=1)
    np.savetxt(folder / "beats" / f"Beats_{split}.txt", table, fmt="%.4f")


_SMALLER = {  # changes that make shipped configs smaller, because compilation takes most of a case's time
  "cnn": {"channels": (4,), "decoder_kernels": (3,), "decoder_strides": (2,)},
  "unet": {"channels": (4,)},
  "sequence": {"widths": (8,), "strides": (2,)},
  "vae": {"widths": (16,)},
  "stacked": {"widths": (16,)},
  "attention": {"decoder_depth": 1},
}


def shipped(name, folder):
  """Returns a small version of a shipped config as a nested dict, for one epoch on the data of `write_data`."""
  data = "ucr" if name == "sequence" else "digits"
  config = importlib.import_module(f"configs.{name}").get_config(data).to_dict()
  config["data"] |= (
    {"path": str(folder / "beats")} if data == "ucr" else {"name": "npz", "path": str(folder / "images.npz")}
  )
  config["model"] |= _SMALLER.get(name, {})
  stages = tuple({**stage, "epochs": 1} for stage in config["stages"][:2])
  evaluators = tuple(name for name in config["evaluators"] if name not in ANALYSES)
  return config | {"epochs": 1, "batch_size": 8, "stages": stages, "evaluators": evaluators}


def paths(config, prefix=()):
  """Yields the paths of all keys and sections."""
  entries = config.items() if isinstance(config, dict) else enumerate(config)
  for key, value in entries:
    yield (*prefix, key)
    if isinstance(value, dict) or (key == "stages" and isinstance(value, tuple)):
      yield from paths(value, (*prefix, key))


def read(config, path):
  """Returns the value or section at a path."""
  for key in path:
    config = config[key]
  return config


def write(config, path, value):
  """Returns a copy of the config with a value at a path; intermediate values are replaced by sections."""
  if not path:
    return value
  key, *rest = path
  if isinstance(config, tuple):
    return tuple(write(entry, rest, value) if index == key else entry for index, entry in enumerate(config))
  section = config if isinstance(config, dict) else {}
  return {**section, key: write(section.get(key), rest, value)}


def without(config, path):
  """Returns a copy of the config without the key at a path."""
  *parent, last = path
  section = read(config, parent)
  if isinstance(section, tuple):
    return write(config, parent, section[:last] + section[last + 1 :])
  return write(config, parent, {key: value for key, value in section.items() if key != last})


def dotted(path):
  """Returns a path in the notation of messages and flags."""
  return ".".join(map(str, path))


@st.composite
def cases(draw, folder):
  """Draws (name of the shipped config, changed config, descriptions of the changes)."""
  all_shipped = {name: shipped(name, folder) for name in SHIPPED}
  name = draw(st.sampled_from(SHIPPED))
  config, changes = copy.deepcopy(all_shipped[name]), []
  for _ in range(draw(st.integers(1, 4))):
    config, description = draw(st.sampled_from(_CHANGES))(draw, config, all_shipped)
    changes.append(description)
  return name, config, changes


def _set(draw, config, _):
  path = draw(st.sampled_from(sorted(paths(config), key=str)))
  new = draw(values.value(path[-1], read(config, path)))
  return write(config, path, new), f"{dotted(path)}={errors.format_value(new)}"


def _add(draw, config, _):
  sections = [path for path in paths(config) if isinstance(read(config, path), dict)]
  section = draw(st.sampled_from([(), *sorted(sections, key=str)]))
  names = [
    "latnet",
    "name",
    "shape",
    "compute_dtype",
    "model",
    "value_range",
    "table",
    "self",
    "x\ny",
    "",
    "kernel",
    "beta",
  ]
  path = (*section, draw(st.sampled_from(names)))
  return write(config, path, draw(st.sampled_from([1, "a", 0.5]))), f"{dotted(path)} added"


def _delete(draw, config, _):
  path = draw(st.sampled_from(sorted(paths(config), key=str)))
  return without(config, path), f"{dotted(path)} deleted"


def _transplant(draw, config, all_shipped):
  donor = draw(st.sampled_from(SHIPPED))
  section = draw(st.sampled_from(["model", "objective", "optimizer", "data", "stages", "evaluators"]))
  return config | {section: copy.deepcopy(all_shipped[donor][section])}, f"{section} of {donor}"


def _conflict(draw, config, all_shipped):
  changes = draw(st.sampled_from(CONFLICTS))
  for key, new in changes.items():
    new = all_shipped[new[1:]][key] if isinstance(new, str) and new.startswith("@") else new
    config = write(config, tuple(key.split(".")), copy.deepcopy(new))
  return config, ", ".join(f"{key}={errors.format_value(new)}" for key, new in changes.items())


# Combinations of values that are invalid or unusual; "@vae" stands for the section of the shipped config vae.
CONFLICTS = (
  {"data.range": "real", "objective.likelihood": "bernoulli"},
  {"objective": "@vae", "model.bottleneck": "identity"},
  {"objective": "@vae", "model.bottleneck": "gaussian", "objective.likelihood": "gaussian"},
  {"objective": "@sparse", "objective.penalty": "kl"},
  {"objective": "@sparse", "objective.penalty": "kl", "model.bottleneck": "sigmoid"},
  {"objective": "@contractive", "objective.probes": 0, "compute_dtype": "bfloat16"},
  {"objective": "@contractive", "objective.probes": 10**7},
  {"objective": "@contractive", "remat": True},
  {"stages": "@stacked"},
  {"parallel": "pmap", "parallel_state": "sharded"},
  {"parallel": "pmap", "accumulate": 2},
  {"accumulate": 3, "objective": "@sparse"},
  {"accumulate": 8, "batch_size": 2},
  {"accumulate": 10**9},
  {"data.placement": "stream", "data.one_class": 1},
  {"data.placement": "stream", "parallel": "pmap", "data.budget_gib": 1e-9},
  {"data.placement": "memory", "data.budget_gib": 1e-9},
  {"data.name": "ucr"},
  {"data.name": "npz"},
  {"data.name": "folder"},
  {"data.name": "npy"},
  {"data.one_class": 1, "batch_size": 9},
  {"data.one_class": 1, "evaluators": ("anomaly",)},
  {"evaluators": ANALYSES},
  {
    "evaluators": ("anomaly", "denoising", "posterior", "sparsity"),
    "data.one_class": 1,
    "model.bottleneck": "gaussian",
  },
  {"model.tied": True, "model.decoder_widths": (5,)},
  {"model.tied": True, "model.bottleneck": "gaussian"},
  {"model.decoder": "tied", "model.bottleneck": "gaussian"},
  {
    "model.channels": (4,) * 60,
    "model.kernel": 1,
    "model.decoder_kernels": (3,) * 60,
    "model.decoder_strides": (2,) * 60,
  },
  {"model.latent": 10**6, "model.bottleneck": "gaussian"},
  {"model.latent": 65},
  {"model.heads": 64, "model.depth": 8},
  {"optimizer.warmup_epochs": 2.0, "epochs": 1},
  {"optimizer.learning_rate": 1e30, "optimizer.name": "sgd", "on_nan": "skip"},
  {"optimizer.learning_rate": 1e30, "optimizer.name": "sgd", "on_nan": "stop"},
  {"optimizer.learning_rate": 1e30, "optimizer.name": "sgd", "on_nan": "halve"},
  {"optimizer.learning_rate": "auto", "optimizer.name": "sgd"},
  {"epochs": 10**9, "checkpoint_every_epochs": 10**9},
  {"batch_size": 1, "log_every_steps": 1},
)

_CHANGES = (_set,) * 7 + (_conflict,) * 2 + (_add, _delete, _transplant)
