"""Converts the weights of a run to a safetensors file, and its config and preprocessing to JSON."""

import json
from typing import Any

import jax
import numpy as np
from jaxtyping import Shaped

from ae_jax import config as configs
from ae_jax.data import ranges
from ae_jax.exporting import places
from ae_jax.models import variable_names


def arrays_of(run: Any) -> dict[str, Shaped[np.ndarray, "..."]]:
  """Returns the parameters and the model state, {"params/encoder/code/kernel": array, ...}."""
  tree = {"params": run.variables.params, "state": run.variables.state}
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {variable_names.of_path(path): np.asarray(leaf) for path, leaf in leaves}


def as_bytes(run: Any) -> bytes:
  """Returns the safetensors file of the weights."""
  from safetensors import numpy as safetensors

  arrays = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays_of(run).items()}
  return safetensors.save(arrays, metadata={"format": "ae_jax"})


def largest_difference(run: Any, contents: bytes) -> float:
  """Returns the largest absolute difference between the weights of a run and the weights in a safetensors file."""
  from safetensors import numpy as safetensors

  read, expected = safetensors.load(contents), arrays_of(run)
  if {*read} != {*expected}:
    raise AssertionError(f"{sorted(read)} != {sorted(expected)}")
  return max((float(np.abs(read[name] - expected[name]).max(initial=0)) for name in expected), default=0.0)


def description(run: Any) -> dict[str, Any]:
  """Returns the config, the shapes and the preprocessing, which a forward pass needs besides the weights.

  Folders are removed from the path of the data; only the name of the file or folder remains.
  """
  low, high, _ = ranges.SPANS[run.config.data.range]
  contents = {
    "config": configs.as_json(run.config),
    "shape": list(run.model.shape),
    "code_shape": list(run.model.code.shape),
    "labels": list(run.model.labels),
    "class_names": None if run.class_names is None else list(run.class_names),
    "bytes": {"low": low, "high": high},
    "scaling": None if run.scaling is None else vars(run.scaling) | {},
    "standardisation": None if run.standardisation is None else run.standardisation.as_json(),
    "schema": None if run.schema is None else run.schema.as_json(),
  }
  return places.without_folders(contents, run.config.data.path, run.config.init_from)


def description_text(run: Any) -> str:
  """Returns `description(run)` as JSON text."""
  return f"{json.dumps(description(run), indent=2)}\n"
