"""Examples for the comparison of exported files with the run, and the results of the run for these examples."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ae_jax.data import lazy_arrays, ranges
from ae_jax.exporting import parts

COUNT = 64  # number of examples that are compared
_GAPS = 0.1  # fraction of the elements that are masked or missing, if the run has a mask or accepts missing values


class Checked(NamedTuple):
  """Inputs for the exported parts (encoder, decoder, scorer), and the results of the run for these inputs."""

  source: str  # "test examples", "given examples" or "random examples"
  compute_dtype: str  # compute dtype of the run
  inputs: dict[str, Shaped[np.ndarray, "examples ..."]]  # {input name, such as "x" or "z": array}
  results: dict[str, Float[np.ndarray, "examples ..."]]  # {part: result of the run, computed in float32}
  own_results: dict[str, Float[np.ndarray, "examples ..."]]  # {part: result of the run in its compute dtype}


def of_dataset(run: Any, dataset: Any) -> Float[np.ndarray, "examples ..."]:
  """Returns the first test examples as the model receives them."""
  rows = lazy_arrays.read_rows(dataset.test, np.arange(min(COUNT, len(dataset.test))))
  return ranges.normalise(rows, run.config.data.range)


def drawn(run: Any) -> Float[np.ndarray, "examples ..."]:
  """Returns random examples as the model receives them."""
  generator, shape = np.random.default_rng(0), (COUNT, *run.model.shape)
  low, high = ranges.INTERVALS[run.config.data.range]
  return (generator.uniform(low, high, shape) if np.isfinite(low) else generator.normal(size=shape)).astype(np.float32)


def checked(run: Any, x: Float[np.ndarray, "examples ..."], dtype: str, source: str) -> Checked:
  """Converts examples to inputs of the exported parts, and computes the results of the run.

  The inputs of the decoder are latents that are computed in float32.

  Args:
    run: The run.
    x: Examples [N, *shape] as the model receives them.
    dtype: Dtype of the examples that the exported files accept, one of `parts.INPUTS`.
    source: Description of the examples for the report, such as "test examples".
  """
  generator = np.random.default_rng(1)
  values = run.conversion.invert(x)
  columns: dict[str, Any] = {}
  if run.model.labels:
    columns["label"] = generator.choice(np.asarray(run.model.labels, np.int32), len(x))
  if parts.has_mask_input(run):
    columns["mask"] = (generator.uniform(size=values.shape) > _GAPS).astype(np.float32)
  if run.schema is None:
    given = stored = _stored(values, run, dtype)
  else:
    stored = run.schema.decode(values).astype(np.float32)
    if run.schema.missing != "error":
      numbers = np.array([column.kind in ("numeric", "integer") for column in run.schema.columns])
      stored[numbers & (generator.uniform(size=stored.shape) < _GAPS)] = np.nan
    given = _frame(stored, run.schema)
  results = _results(in_float32(run), given, columns)
  z = results["encoder"]
  is_exact = run.model.compute_dtype == "float32"
  own = results if is_exact else _results(run, given, columns, z)
  return Checked(source, run.model.compute_dtype, {"x": stored, "z": z, **columns}, results, own)


def _results(run: Any, given: Any, columns: dict[str, Any], z: Any = None) -> dict[str, Any]:
  """Returns {part: result}; the decoder receives the latents `z` or, if `z` is None, the output of the encoder."""
  encoded = run.encode(given, **columns)
  labels = {name: value for name, value in columns.items() if name != "mask"}
  decoded = run.decode(encoded if z is None else z, **labels)
  return {"encoder": encoded, "decoder": decoded, "scorer": run.score(given, **columns)}


def in_float32(run: Any) -> Any:
  """Returns the run with a model that computes in float32."""
  return dataclasses.replace(run, model=dataclasses.replace(run.model, compute_dtype="float32"))


def _stored(values: Float[np.ndarray, "examples ..."], run: Any, dtype: str) -> Shaped[np.ndarray, "examples ..."]:
  """Converts values from the data range to the inputs of an exported file with this dtype."""
  if dtype == "float32":
    return values
  divisor = 255 if run.scaling is None else run.scaling.divisor
  low, high, _ = ranges.SPANS[run.config.data.range]
  return np.rint((values - low) / (high - low) * divisor if divisor else values).astype(dtype)


def _frame(raw: Float[np.ndarray, "rows columns"], schema: Any) -> Any:
  """Returns raw rows in a form that the run accepts: a DataFrame if there are categories, otherwise the array."""
  from ae_jax.data import frames

  return frames.to_frame(raw.astype(np.float64), schema) if schema.has_categories else raw
