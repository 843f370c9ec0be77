"""Encoder, decoder and scorer of a run as pure functions of arrays, which contain the weights and the preprocessing.

For an input for which the methods of the run raise an error, such as an unknown label, the result is NaN.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from ae_jax import errors
from ae_jax.data import loss_columns, ranges
from ae_jax.data.scaling import Scaling
from ae_jax.data.schema import Schema
from ae_jax.data.standardisation import Standardisation
from ae_jax.exporting import meanings
from ae_jax.ops import losses
from ae_jax.types import AnyArray

INPUTS = ("float32", "uint8", "int32")  # dtypes of the examples that an exported part may accept


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of a model as a function of arrays."""

  name: str  # "encoder", "decoder" or "scorer"
  # It expects an array [B, ...] for each of `inputs`, in order, and returns float32 [B, ...].
  function: Callable[..., jax.Array]
  inputs: Mapping[str, jax.ShapeDtypeStruct]  # {name: shape (without the axis B) and dtype}
  output: str  # name of the result
  meanings: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)  # {input or output: description}

  def abstract_inputs(self, batch: Any) -> list[jax.ShapeDtypeStruct]:
    """Returns shape and dtype of each input with the axis B, whose size `batch` may be symbolic."""
    return [jax.ShapeDtypeStruct((batch, *each.shape), each.dtype) for each in self.inputs.values()]


def parts_of(run: Any, dtype: str = "float32") -> list[Part]:
  """Returns the encoder, the decoder and the scorer of a run.

  Args:
    run: The run.
    dtype: Dtype of the examples, one of `INPUTS`. "float32" examples are in the data range of the run, or raw rows of a
      table (see `ae_jax.data.schema`). Integers are in the unit of the training data.

  Raises:
    UserError: The run cannot be exported with this dtype.
  """
  check(run, dtype)
  run = dataclasses.replace(run, variables=jax.tree.map(jnp.asarray, run.variables))  # tracers cannot index ndarrays
  model, labels = run.model, {"label": jax.ShapeDtypeStruct((), np.dtype(np.int32))} if run.model.labels else {}
  shape = model.shape if run.schema is None else (len(run.schema.columns),)
  x = {"x": jax.ShapeDtypeStruct(shape, np.dtype(dtype))}
  mask = {"mask": jax.ShapeDtypeStruct(model.shape, np.dtype(np.float32))} if has_mask_input(run) else {}
  described = meanings.of_run(run, dtype)
  z = {"z": jax.ShapeDtypeStruct(model.code.shape, np.dtype(np.float32))}

  def part(name, function, inputs, output):
    chosen = {key: described[key] for key in (*inputs, output)}
    return Part(name, lambda *arrays: function(run, dict(zip(inputs, arrays, strict=True))), inputs, output, chosen)

  return [
    part("encoder", _encode, x | labels | mask, "z"),
    part("decoder", _decode, z | labels, "x_hat"),
    part("scorer", _score, x | labels | mask, "score"),
  ]


def check(run: Any, dtype: str) -> None:
  """Raises UserError if a run cannot be exported with examples of this dtype."""
  if dtype not in INPUTS:
    raise errors.UserError(f"input={dtype!r}: must be one of {', '.join(INPUTS)}")
  if not isinstance(run.standardisation, Standardisation | None):
    raise errors.UserError(
      "export: config.data.scale='quantile' cannot be exported; train with config.data.scale=standard, "
      "or scale the data first and train with config.data.scale=none"
    )
  if dtype == "float32":
    return
  if run.schema is not None:
    raise errors.UserError(f"input={dtype!r}: the run was trained on a table; use input='float32'")
  if dtype == "int32" and run.scaling is None:
    raise errors.UserError("input='int32': the run was trained on bytes or floats; use uint8 or float32")
  if dtype == "uint8" and run.scaling is not None and run.scaling.high > np.iinfo(np.uint8).max:
    raise errors.UserError(
      f"input='uint8': the training data have values up to {run.scaling.high:g}; use input='int32'"
    )


def has_mask_input(run: Any) -> bool:
  """Returns whether a mask of observed elements is an input; for a table, NaN marks missing values instead."""
  return run.model.masked and run.schema is None


def _encode(run: Any, inputs: Mapping[str, AnyArray]) -> jax.Array:
  x, columns, _ = _prepared(run, inputs)
  return _nan_unless(_is_known(run, inputs, x), run.model.encode(run.variables, x, columns).z)


def _decode(run: Any, inputs: Mapping[str, AnyArray]) -> jax.Array:
  logits = run.model.decode(run.variables, inputs["z"], _label(run, inputs))
  x_hat = _nan_unless(_is_known(run, inputs, inputs["z"]), run.model.outputs(logits, run.config.data.range))
  if run.standardisation is None:
    return x_hat
  mean, deviation = _per_column(run.standardisation, x_hat.ndim)
  return x_hat * deviation + mean


def _score(run: Any, inputs: Mapping[str, AnyArray]) -> jax.Array:
  x, columns, mask = _prepared(run, inputs)
  logits = run.model.reconstruct(run.variables, x, columns)
  squares = losses.flat(jnp.square(run.model.outputs(logits, run.config.data.range) - x))
  score = (squares if mask is None else squares * losses.flat(mask)).sum(-1)
  return _nan_unless(_is_known(run, inputs, x), score)


def _prepared(run: Any, inputs: Mapping[str, AnyArray]) -> tuple[jax.Array, dict[str, jax.Array], jax.Array | None]:
  """Returns the examples as the model receives them, its other inputs, and the mask of observed elements (or None)."""
  value_range, mask = run.config.data.range, inputs.get("mask")
  if run.schema is not None:
    x, mask = _elements(run.schema, inputs["x"])
  else:
    x = _in_range(inputs["x"], run.scaling, value_range)
  if run.standardisation is not None:
    mean, deviation = _per_column(run.standardisation, x.ndim)
    x = (x - mean) / deviation
  if mask is not None:
    x = jnp.where(mask > 0, x, loss_columns.missing_value(x.dtype, value_range, run.standardisation is not None))
  columns = _label(run, inputs)
  if run.model.masked:
    columns["mask"] = jnp.ones_like(x) if mask is None else mask
  return x, columns, mask


def _in_range(x: AnyArray, scaling: Scaling | None, value_range: str) -> Float[Array, "..."]:
  """Converts examples to float32 in the data range; bytes and other integers are scaled as in training."""
  divisor = 255 if scaling is None else scaling.divisor
  if x.dtype == np.float32 or not divisor:
    return x.astype(np.float32)
  low, high, _ = ranges.SPANS[value_range]
  return x.astype(np.float32) * np.float32((high - low) / divisor) + np.float32(low)


def _per_column(scaling: Standardisation, axes: int) -> list[Float[np.ndarray, "..."]]:
  """Returns mean and deviation, reshaped to broadcast against an array with `axes` axes (columns are the last)."""
  return [np.asarray(each).reshape((1,) * (axes - 1) + (-1,)) for each in (scaling.mean, scaling.deviation)]


def _elements(schema: Schema, raw: Float[AnyArray, "rows columns"]) -> tuple[jax.Array, jax.Array | None]:
  """Encodes raw rows like `Schema.encode`, and returns the mask of observed elements if the run masks missing values.

  The elements are NaN for invalid categories and booleans, and for missing values if the run does not accept them.
  """
  parts, known = [], []
  for position, column in enumerate(schema.columns):
    value = raw[:, position : position + 1]
    gap = jnp.isnan(value)
    if schema.missing != "error":
      value = jnp.where(gap, np.float32(column.fill), value)
    if column.kind == "categorical":
      matches = value == np.arange(column.width, dtype=np.float32)[None]
      value = jnp.where(matches.any(1, keepdims=True), matches.astype(np.float32), np.float32(np.nan))
    elif column.kind == "boolean":
      value = jnp.where((value == 0) | (value == 1), value, np.float32(np.nan))
    else:
      value = value - np.float32(column.first)
    parts.append(value)
    known.append(jnp.broadcast_to(~gap, value.shape))
  indicators = [jnp.isnan(raw[:, position : position + 1]) for position in schema.indicated]
  x = jnp.concatenate([*parts, *(each.astype(np.float32) for each in indicators)], axis=1)
  if schema.missing != "mask":
    return x, None
  return x, jnp.concatenate([*known, *(jnp.ones_like(each) for each in indicators)], axis=1).astype(np.float32)


def _label(run: Any, inputs: Mapping[str, Shaped[AnyArray, "..."]]) -> dict[str, jax.Array]:
  """Returns {"label": position of each label among the training labels}; {} for a model without labels."""
  if not run.model.labels:
    return {}
  positions = np.arange(len(run.model.labels), dtype=np.int32)[None]
  return {"label": jnp.where(_matches(run, inputs), positions, 0).sum(1, dtype=np.int32)}


def _matches(run: Any, inputs: Mapping[str, Shaped[AnyArray, "..."]]) -> Bool[Array, "batch labels"]:
  return inputs["label"][:, None] == np.asarray(run.model.labels, np.int32)[None]


def _is_known(run: Any, inputs: Mapping[str, AnyArray], array: Float[AnyArray, "batch ..."]) -> Bool[Array, " batch"]:
  """Returns a mask of the rows whose elements in `array` are all finite and whose label is a training label."""
  finite = (jnp.abs(losses.flat(array)) < np.float32(np.inf)).all(1)
  return finite & _matches(run, inputs).any(1) if run.model.labels else finite


def _nan_unless(known: Bool[Array, " batch"], result: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
  """Sets rows that are not `known` to NaN; the model alone may turn NaN into finite values, e.g. by a ReLU."""
  return jnp.where(known.reshape(-1, *(1,) * (result.ndim - 1)), result, np.float32(np.nan))
