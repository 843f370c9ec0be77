"""Applies a trained model to arrays of any length, in compiled batches, and checks the inputs of the model."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Shaped

from ae_jax import data, errors
from ae_jax.models import Model, Variables, memory
from ae_jax.models.interface import Gaussian
from ae_jax.types import AnyArray, Columns

# Limits of a call of the model. Activations of larger batches do not fit in a CPU's cache, which halves the speed.
_MOST_EXAMPLES, _MOST_ELEMENTS = 256, 2**22

# Methods by name. Each entry is called with (model, function from logits to reconstructions), and returns
# the function that `apply` calls with (variables, array, columns).
FUNCTIONS = {
  "encode": lambda model, outputs: lambda *args: model.encode(*args).z,
  "indices": lambda model, outputs: lambda *args: model.encode(*args).indices,
  "posterior": lambda model, outputs: lambda *args: _moments(model.encode(*args).posterior),
  "decode": lambda model, outputs: lambda *args: outputs(model.decode(*args)),
  "lookup": lambda model, outputs: lambda variables, array, columns: model.lookup(variables, array),
  "nearest": lambda model, outputs: lambda variables, array, columns: model.nearest_codes(variables, array),
  "reconstruct": lambda model, outputs: lambda *args: outputs(model.reconstruct(*args)),
}


def apply(
  model: Model, variables: Variables, method: str, array: AnyArray, columns: Columns, value_range: str
) -> Shaped[np.ndarray, "examples ..."]:
  """Returns the result of a method of the model for each row of an array, computed with `in_batches`.

  Args:
    model: The model.
    variables: Variables of the model.
    method: A key of FUNCTIONS.
    array: Examples float32 [N, *shape] in the data range, latent codes float32 [N, *code shape], or, for "lookup",
      indices int32 [N, *index shape].
    columns: Other inputs of the model, {name: int32 [N]}.
    value_range: Range of the data, a key of `ranges.INTERVALS`.
  """
  function = functools.partial(_apply, model=model, method=method, value_range=value_range)
  return in_batches(function, variables, array, columns, batch_size(model.shape))


def batch_size(shape: Sequence[int], most: int = _MOST_EXAMPLES) -> int:
  """Returns how many examples of a shape a call of the model processes: a power of two, and at most `most`."""
  size = min(most, max(1, _MOST_ELEMENTS // max(1, math.prod(shape))))
  return 1 << (size.bit_length() - 1)


def in_batches(
  function: Callable[..., jax.Array],
  variables: Variables,
  array: AnyArray,
  columns: Columns,
  largest: int,
) -> Shaped[np.ndarray, "examples ..."]:
  """Applies a compiled function (variables, array, columns) in batches; returns the result for each row of the array.

  Each batch has at most `largest` rows. It is padded to a power of two of rows, so that the function is compiled for
  few batch sizes.
  """
  if not len(array):
    one = lambda rows: jax.ShapeDtypeStruct((1, *rows.shape[1:]), rows.dtype)
    output = jax.eval_shape(function, variables, one(array), {name: one(rows) for name, rows in columns.items()})
    return np.zeros((0, *output.shape[1:]), output.dtype)
  results = []
  fix = "use a device with more memory, or JAX_PLATFORMS=cpu for the memory of the host"
  for start in range(0, len(array), largest):
    batch = {name: rows[start : start + largest] for name, rows in (columns | {"": array}).items()}
    size = len(batch[""])
    padding = (1 << (size - 1).bit_length()) - size
    if padding:
      batch = {name: np.concatenate([r, np.zeros((padding, *r.shape[1:]), r.dtype)]) for name, r in batch.items()}
    with memory.explain_out_of_memory(f"a batch of {size} examples", fix):
      results.append(np.asarray(function(variables, batch.pop(""), batch))[:size])
  return np.concatenate(results)


def _moments(posterior: Gaussian) -> jax.Array:
  """Returns the means and variances of a posterior, [B, 2, *latent]."""
  return jnp.stack([posterior.mean, jnp.exp(posterior.log_variance)], 1)


def check_columns(
  model: Model,
  class_names: tuple[str, ...] | None,
  count: int,
  columns: Mapping[str, Any],
  mask: Bool[np.ndarray, "examples ..."] | None,
) -> Columns:
  """Returns the inputs of a model other than the examples, {name: array [count, ...]}.

  Args:
    model: The model.
    class_names: Name of each label 0, 1, ...; None if the labels have no names.
    count: Number of examples.
    columns: The inputs by name, without the mask. The labels are an array [count] of integers or class names, or one
      integer or class name for all examples.
    mask: True for observed elements; None if all elements are observed. It is ignored if the model does not read it.

  Raises:
    UserError: An input is missing, unknown or invalid, or `columns` contains a mask.
  """
  needed = model.columns
  for name in {*columns} - {*needed}:
    known = ", ".join(("x", *needed))
    raise errors.UserError(f"{name}=: the model of this run has no input {name!r}; its inputs are {known}")
  if "mask" in columns:
    raise errors.UserError("mask=: this method has no mask argument; remove it")
  checked = {}
  if "mask" in needed:
    checked["mask"] = np.ones((count, *model.shape), np.float32) if mask is None else mask.astype(np.float32)
  if "label" in needed:
    if "label" not in columns:
      raise errors.UserError("label= is missing: this run was trained on x and label; pass label=... too")
    checked["label"] = data.class_indices(columns["label"], model.labels, count, class_names)
  return checked


def attention(model: Model, variables: Variables, x: AnyArray, columns: Columns) -> dict[str, np.ndarray]:
  """Returns the attention weights of the encoder, {layer: float32 [N, ...]}; {} for an encoder without attention."""
  if not jax.eval_shape(model.attention, variables, x, columns):
    return {}  # `eval_shape` finds this out without compiling
  return jax.tree.map(np.asarray, _attention(variables, x, columns, model=model))


@functools.partial(jax.jit, static_argnames=("model", "method", "value_range"))
def _apply(
  variables: Variables, array: jax.Array, columns: Columns, *, model: Model, method: str, value_range: str
) -> jax.Array:
  outputs = functools.partial(model.outputs, value_range=value_range)
  return FUNCTIONS[method](model, outputs)(variables, array, columns)


@functools.partial(jax.jit, static_argnames="model")
def _attention(variables: Variables, x: jax.Array, columns: Columns, *, model: Model) -> dict[str, jax.Array]:
  return model.attention(variables, x, columns)
