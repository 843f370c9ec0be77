"""The cost of a training step, predicted from its jaxpr: multiply-adds, parameters and bytes.

Nothing is compiled or computed. The count includes contractions (matrix products and convolutions), identical ones
once, as XLA does. It omits elementwise operations, so it is a little below XLA's own count of flops.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend import core
from jaxtyping import PyTree

from ae_jax.models.interface import Variables
from ae_jax.types import Params

Program = core.Jaxpr | core.ClosedJaxpr
Contractions = list[tuple[int, core.JaxprEqn]]  # how often each equation is computed, and the equation


@dataclasses.dataclass(frozen=True)
class Cost:
  """The cost of one training step, independent of the device; a multiply-add is two flops."""

  parameters: int  # number of trained parameters
  forward: float  # multiply-adds of a reconstruction, per example
  training: float  # multiply-adds of the loss and its gradient, per example; the optimizer is elementwise
  state_bytes: int  # parameters and optimizer state
  gradient_bytes: int  # which devices that share a batch sum in each step
  activation_bytes: float  # per example, kept by the forward pass for the backward pass; see `kept_bytes`
  traffic_bytes: int  # per step, of operands and results of each contraction, as if without a cache


def step_cost(
  model: Any,
  objective: Callable,
  optimizer: optax.GradientTransformation,
  batch_size: int,
  *,
  platform: str | None = None,
) -> Cost:
  """Returns the `Cost` of a training step on `batch_size` examples.

  Args:
    model: a `Model`.
    objective: the objective of the stage.
    optimizer: its optimizer.
    batch_size: number of examples of a step.
    platform: "cpu", "cuda" or "tpu", which selects the branch of `lax.platform_dependent`; None selects the default
      branch, the textbook algorithm.

  Raises:
    NotImplementedError: if the program contains a primitive that cannot be counted.
  """
  variables = model.abstract_variables()
  leaves = jax.tree.leaves(variables.params)
  opt_leaves = jax.tree.leaves(jax.eval_shape(optimizer.init, variables.params))
  batch, keys = abstract_batch(model, batch_size)
  loss = training_loss(model, objective)
  reconstruction = contractions(jax.make_jaxpr(model.reconstruct)(variables, batch["x"], batch), platform)
  step = contractions(jax.make_jaxpr(jax.value_and_grad(loss, has_aux=True))(*variables, batch, keys), platform)
  return Cost(
    parameters=sum(leaf.size for leaf in leaves),
    forward=multiply_adds(reconstruction) / batch_size,
    training=multiply_adds(step) / batch_size,
    state_bytes=bytes_of(leaves) + bytes_of(opt_leaves),
    gradient_bytes=bytes_of(leaves),
    activation_bytes=kept_bytes(lambda *args: loss(*args)[0], *variables, batch, keys, platform=platform) / batch_size,
    traffic_bytes=sum(times * bytes_of(var.aval for var in (*eqn.invars, *eqn.outvars)) for times, eqn in step),
  )


def abstract_batch(model: Any, rows: int) -> tuple[dict[str, jax.ShapeDtypeStruct], jax.ShapeDtypeStruct]:
  """Returns the shapes and types of a batch with all columns that the model needs, and of the examples' keys."""
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))
  batch = {name: jax.ShapeDtypeStruct((rows,), jnp.int32) for name in model.columns}
  batch |= {"x": jax.ShapeDtypeStruct((rows, *model.shape), jnp.float32)}
  return batch | {"weight": jax.ShapeDtypeStruct((rows,), jnp.float32)}, keys


def training_loss(model: Any, objective: Callable) -> Callable:
  """Returns the training loss as a function (params, model state, batch, keys) -> (loss, aux)."""
  return lambda params, state, *args: objective(model, Variables(params, state), *args, train=True)


def contractions(program: Program, platform: str | None = None) -> Contractions:
  """Returns the contractions of a jaxpr, [(times, equation)]; a `cond` counts with its most expensive branch."""
  equations, _ = _flatten(program, [_Array(var.aval, True) for var in _jaxpr_of(program).invars], platform)
  return [found for eqn in equations for found in _PRIMITIVES.get(eqn.primitive.name, _other)(eqn, platform)]


def multiply_adds(equations: Contractions) -> int:
  """Returns the number of multiply-adds of the result of `contractions`."""
  return sum(times * _COUNTS[equation.primitive.name](equation) for times, equation in equations)


def kept_bytes(function: Callable, params: Params, *args: PyTree, platform: str | None = None) -> int:
  """Returns the bytes of the intermediates that the gradient of `function(params, *args)` by params needs.

  They are the residuals of `jax.vjp` that depend on `args`, each counted once. XLA keeps less where it fuses or
  recomputes.
  """
  residuals = lambda params, *args: jax.tree.leaves(jax.vjp(lambda params: function(params, *args), params)[1])
  program = jax.make_jaxpr(residuals)(params, *args)
  count = len(jax.tree.leaves(params))
  inputs = [_Array(var.aval, index >= count) for index, var in enumerate(program.jaxpr.invars)]
  return bytes_of(array.aval for array in set(_flatten(program, inputs, platform)[1]) if array.varies)


@dataclasses.dataclass(frozen=True, eq=False)
class _Array:
  """An input, a constant or a result in a flattened program; compared by identity."""

  aval: jax.core.ShapedArray
  varies: bool  # whether it depends on an input that varies


def _flatten(
  program: Program, inputs: Sequence[_Array], platform: str | None
) -> tuple[list[core.JaxprEqn], list[_Array]]:
  """Returns the equations of a jaxpr with all calls inlined and identical ones merged, and its results."""
  equations, known = [], {}

  def inline(program, inputs):
    jaxpr = _jaxpr_of(program)
    arrays = dict(zip(jaxpr.invars, inputs, strict=True))
    for var, constant in zip(jaxpr.constvars, getattr(program, "consts", ()), strict=True):
      arrays[var] = known.setdefault(id(constant), _Array(var.aval, False))

    def read(atom):
      if isinstance(atom, core.Literal):
        return known.setdefault((str(atom.aval), str(atom.val)), _Array(atom.aval, False))
      return arrays[atom]

    for equation in jaxpr.eqns:
      arguments = [read(atom) for atom in equation.invars]
      called = _called(equation, platform)
      if called is None:
        new = [_Array(var.aval, any(array.varies for array in arguments)) for var in equation.outvars]
        results = _remember(known, (equation.primitive, *sorted(equation.params.items()), *arguments), new)
        if results is new:
          equations.append(equation)
      else:
        count = len(_jaxpr_of(called).invars)  # without the index of a branch, which is the first argument
        results = inline(called, arguments[len(arguments) - count :])
      arrays.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]

  results = inline(program, inputs)
  return equations, results


def _remember(known, key, results):
  """Returns the known results of a key, or stores and returns these."""
  try:
    return known.setdefault(key, results)
  except TypeError:  # a parameter without a hash
    return results


def _called(equation, platform):
  """Returns the jaxpr that a call, or `lax.platform_dependent` on this platform, runs; None for other equations."""
  name, params = equation.primitive.name, equation.params
  if name in _CALLS:
    return params[_CALLS[name]]
  variants = params.get("branches_platforms") if name == "cond" else None
  matching = [index for index, names in enumerate(variants or ()) if names is None or platform in names]
  return params["branches"][matching[0]] if matching else None


def _jaxpr_of(program):
  """Returns the jaxpr of a jaxpr or a closed jaxpr."""
  return getattr(program, "jaxpr", program)


def bytes_of(arrays: Iterable[Any]) -> int:
  """Returns the total bytes of arrays or abstract arrays."""
  return sum(array.size * array.dtype.itemsize for array in arrays)


def _dot(equation):
  """Returns the multiply-adds of a matrix product: the size of the result times the size of the summed axes."""
  (summed, _), _ = equation.params["dimension_numbers"]
  left, product = equation.invars[0].aval, equation.outvars[0].aval
  return product.size * math.prod(left.shape[axis] for axis in summed)


def _conv(equation):
  """Returns the multiply-adds of a convolution, without those of padding and of the zeros between dilated pixels.

  A convolution, its transpose and the gradient of its kernel then cost the same. XLA's cost analysis counts alike.
  """
  image, kernel, out = (atom.aval.shape for atom in (*equation.invars, *equation.outvars))
  params = equation.params
  image_axes, kernel_axes, out_axes = params["dimension_numbers"]
  axes_and_shapes = ((image_axes, image), (kernel_axes, kernel), (out_axes, out))
  total = out[out_axes[0]] * out[out_axes[1]] * kernel[kernel_axes[1]]
  for axis, (low, _) in enumerate(params["padding"]):
    side, taps, outputs = (shape[axes[2 + axis]] for axes, shape in axes_and_shapes)
    stride, lhs_dilation, rhs_dilation = (
      params[key][axis] for key in ("window_strides", "lhs_dilation", "rhs_dilation")
    )
    position = stride * np.arange(outputs)[:, None] + rhs_dilation * np.arange(taps) - low  # in the dilated image
    inside = (position >= 0) & (position <= lhs_dilation * (side - 1))
    total *= int((inside & (position % lhs_dilation == 0)).sum())
  return total


def _repeated(equation, platform):
  """Returns the contractions of a scan, times its length, or of the body of `jax.checkpoint`.

  The backward pass recomputes the body of a checkpoint: its equations are not merged with identical ones outside.
  """
  inside = contractions(equation.params["jaxpr"], platform)
  return [(equation.params.get("length", 1) * times, inner) for times, inner in inside]


def _most_expensive_branch(equation, platform):
  return max((contractions(branch, platform) for branch in equation.params["branches"]), key=multiply_adds)


def _other(equation, platform):
  """Returns [] for elementwise primitives; raises NotImplementedError for those with uncounted contractions.

  These are recognised by name, or by a contraction in a jaxpr that they run, such as the body of `while_loop`, whose
  number of iterations is unknown.
  """
  name, leaves = equation.primitive.name, jax.tree.leaves(equation.params)
  programs = [leaf for leaf in leaves if isinstance(leaf, core.Jaxpr | core.ClosedJaxpr)]
  if _UNCOUNTED.fullmatch(name) or any(contractions(program, platform) for program in programs):
    raise NotImplementedError(f"ae_jax.models.cost cannot count the multiply-adds of the primitive {name!r}")
  return []


# Primitive that only calls a jaxpr -> parameter that holds it.
_CALLS = {
  "jit": "jaxpr",
  "closed_call": "call_jaxpr",
  "custom_jvp_call": "call_jaxpr",
  "custom_vjp_call": "call_jaxpr",
}

_COUNTS = {"dot_general": _dot, "conv_general_dilated": _conv}

# Name of the primitive -> function (equation, platform) -> [(times, equation)]; `_other` handles the rest.
_PRIMITIVES = {
  **dict.fromkeys(_COUNTS, lambda equation, platform: [(1, equation)]),
  **dict.fromkeys(("scan", "remat2", "checkpoint"), _repeated),
  "cond": _most_expensive_branch,
}

# Contractions under other names, foreign function calls, and linear algebra.
_UNCOUNTED = re.compile(
  ".*(dot|matmul|conv_|product|_call|solve).*|fft|cholesky.*|lu|qr|eigh?|svd|schur|hessenberg|tridiagonal"
)
