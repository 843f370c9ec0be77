"""The cost of a training step, predicted from its jaxpr: multiply-adds, parameters and bytes.

Nothing is compiled or executed. Only contractions (matrix products and convolutions) are counted. Identical
contractions are counted once, because XLA merges them. Elementwise operations are not counted, so the result is
slightly below XLA's own count of flops.
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
Contractions = list[tuple[int, core.JaxprEqn]]  # (number of executions, equation) of each contraction


@dataclasses.dataclass(frozen=True)
class Cost:
  """The cost of one training step, independent of the device. A multiply-add is two flops."""

  parameters: int  # number of trained parameters
  forward: float  # multiply-adds of a reconstruction, per example
  training: float  # multiply-adds of the loss and its gradient, per example; the optimizer adds none
  state_bytes: int  # bytes of the parameters and the optimizer state
  gradient_bytes: int  # bytes of the gradient, which data-parallel devices sum in each step
  activation_bytes: float  # bytes per example that the forward pass keeps for the backward pass; see `kept_bytes`
  traffic_bytes: int  # bytes per step that contractions read and write if there is no cache


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
    model: A `Model`.
    objective: Objective of the training stage.
    optimizer: Optimizer of the training stage.
    batch_size: Number of examples in a step.
    platform: "cpu", "cuda" or "tpu"; selects the branch of `lax.platform_dependent`. None selects the default branch.

  Raises:
    NotImplementedError: The step contains a primitive whose multiply-adds cannot be counted.
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
  """Returns the shapes and dtypes of the columns of a batch of `rows` examples, and of one random key per example."""
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))
  batch = model.abstract_columns(rows) | {"x": jax.ShapeDtypeStruct((rows, *model.shape), jnp.float32)}
  return batch | {"weight": jax.ShapeDtypeStruct((rows,), jnp.float32)}, keys


def training_loss(model: Any, objective: Callable) -> Callable:
  """Returns the training loss as a function (params, model state, batch, keys) -> (loss, aux)."""
  return lambda params, state, *args: objective(model, Variables(params, state), *args, train=True)


def contractions(program: Program, platform: str | None = None) -> Contractions:
  """Returns the contractions of a jaxpr as [(number of executions, equation)].

  Only the most expensive branch of a `cond` is counted.
  """
  equations, _ = _flatten(program, [_Array(var.aval, True) for var in _jaxpr_of(program).invars], platform)
  return [pair for eqn in equations for pair in _PRIMITIVES.get(eqn.primitive.name, _other)(eqn, platform)]


def multiply_adds(equations: Contractions) -> int:
  """Returns the total multiply-adds of a list returned by `contractions`."""
  return sum(times * _COUNTS[equation.primitive.name](equation) for times, equation in equations)


def kept_bytes(function: Callable, params: Params, *args: PyTree, platform: str | None = None) -> int:
  """Returns the bytes of the intermediates kept for the gradient of `function(params, *args)` with respect to `params`.

  The intermediates are the residuals of `jax.vjp` that depend on `args`. Each residual is counted once. XLA keeps fewer
  bytes if it fuses or recomputes operations.
  """
  residuals = lambda params, *args: jax.tree.leaves(jax.vjp(lambda params: function(params, *args), params)[1])
  program = jax.make_jaxpr(residuals)(params, *args)
  count = len(jax.tree.leaves(params))
  inputs = [_Array(var.aval, index >= count) for index, var in enumerate(program.jaxpr.invars)]
  return bytes_of(array.aval for array in set(_flatten(program, inputs, platform)[1]) if array.varies)


@dataclasses.dataclass(frozen=True, eq=False)
class _Array:
  """An input, a constant or a result of an equation in a flattened program; compared by identity."""

  aval: jax.core.ShapedArray
  varies: bool  # whether the value depends on an input with `varies` True


def _flatten(
  program: Program, inputs: Sequence[_Array], platform: str | None
) -> tuple[list[core.JaxprEqn], list[_Array]]:
  """Returns (equations, results) of a jaxpr. Calls are inlined, and identical equations are merged."""
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
        count = len(_jaxpr_of(called).invars)  # the first argument of `cond` is the branch index, not an input
        results = inline(called, arguments[len(arguments) - count :])
      arrays.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]

  results = inline(program, inputs)
  return equations, results


def _remember(known, key, results):
  """Returns the results stored for `key`; if there are none, stores and returns `results`."""
  try:
    return known.setdefault(key, results)
  except TypeError:  # a parameter of the equation is not hashable
    return results


def _called(equation, platform):
  """Returns the jaxpr that a call or `lax.platform_dependent` runs on the platform; None for other equations."""
  name, params = equation.primitive.name, equation.params
  if name in _CALLS:
    return params[_CALLS[name]]
  variants = params.get("branches_platforms") if name == "cond" else None
  matching = [index for index, names in enumerate(variants or ()) if names is None or platform in names]
  return params["branches"][matching[0]] if matching else None


def _jaxpr_of(program):
  """Returns the `Jaxpr` of a `ClosedJaxpr`, or a `Jaxpr` unchanged."""
  return getattr(program, "jaxpr", program)


def bytes_of(arrays: Iterable[Any]) -> int:
  """Returns the total size in bytes of arrays or abstract arrays."""
  return sum(array.size * array.dtype.itemsize for array in arrays)


def _dot(equation):
  """Returns the multiply-adds of a matrix product: the size of the result times the sizes of the summed axes."""
  (summed, _), _ = equation.params["dimension_numbers"]
  left, product = equation.invars[0].aval, equation.outvars[0].aval
  return product.size * math.prod(left.shape[axis] for axis in summed)


def _conv(equation):
  """Returns the multiply-adds of a convolution, except products with padding or with zeros inserted by dilation.

  With this count, a convolution, its transpose and the gradient with respect to its kernel have the same cost. XLA's
  cost analysis uses the same count.
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
  """Returns the contractions in the body of a scan or of `jax.checkpoint`, with their numbers of executions.

  The body of a scan is executed once per iteration.

  Equations of a checkpointed body are not merged with identical equations outside, because the backward pass recomputes
  the body.
  """
  body = contractions(equation.params["jaxpr"], platform)
  return [(equation.params.get("length", 1) * times, contraction) for times, contraction in body]


def _most_expensive_branch(equation, platform):
  return max((contractions(branch, platform) for branch in equation.params["branches"]), key=multiply_adds)


def _other(equation, platform):
  """Returns [] for elementwise primitives; raises NotImplementedError for primitives with uncounted contractions.

  A primitive has uncounted contractions if its name matches `_UNCOUNTED`, or if a jaxpr in its parameters contains
  contractions. An example is the body of `while_loop`, whose number of iterations is unknown.
  """
  name, leaves = equation.primitive.name, jax.tree.leaves(equation.params)
  programs = [leaf for leaf in leaves if isinstance(leaf, core.Jaxpr | core.ClosedJaxpr)]
  if _UNCOUNTED.fullmatch(name) or any(contractions(program, platform) for program in programs):
    raise NotImplementedError(
      f"ae_jax.models.cost cannot count the multiply-adds of the primitive {name!r}; use matrix products, "
      "convolutions, `lax.scan` or `lax.cond` instead"
    )
  return []


# Name of a primitive that only calls a jaxpr -> parameter that holds the jaxpr.
_CALLS = {
  "jit": "jaxpr",
  "closed_call": "call_jaxpr",
  "custom_jvp_call": "call_jaxpr",
  "custom_vjp_call": "call_jaxpr",
}

_COUNTS = {"dot_general": _dot, "conv_general_dilated": _conv}

# Name of a primitive -> function (equation, platform) that returns its contractions. `_other` handles all other
# primitives.
_PRIMITIVES = {
  **dict.fromkeys(_COUNTS, lambda equation, platform: [(1, equation)]),
  **dict.fromkeys(("scan", "remat2", "checkpoint"), _repeated),
  "cond": _most_expensive_branch,
}

# Names of other primitives that contain contractions: products, foreign function calls and linear algebra.
_UNCOUNTED = re.compile(
  ".*(dot|matmul|conv_|product|_call|solve).*|fft|cholesky.*|lu|qr|eigh?|svd|schur|hessenberg|tridiagonal"
)
