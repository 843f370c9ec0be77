"""What a training step costs, predicted from its traced program: multiply-adds, parameters and bytes.

Nothing is compiled or computed. Counted are contractions (matrix products and convolutions), those that compute the
same once, as XLA does; elementwise work is not, and so a prediction is a little below XLA's own count of flops.
"""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from ae_jax.models.interface import Variables


@dataclasses.dataclass(frozen=True)
class Cost:
  """One training step, in numbers that belong to the model and not to a device; a multiply-add is two flops."""

  parameters: int  # numbers
  forward: float  # multiply-adds of a reconstruction, per example
  training: float  # multiply-adds of the objective and its gradient, per example; the optimizer is elementwise
  state_bytes: int  # parameters and optimizer state
  gradient_bytes: int  # what devices that share the batch add up each step
  activation_bytes: float  # per example, what the backward pass needs of the forward pass: see `kept_bytes`
  traffic_bytes: int  # per step: operands and results of each contraction, as if nothing stayed in a cache


def of(model, objective, optimizer, batch_size, *, platform=None):
  """The `Cost` of a step on `batch_size` examples, of a model, an objective and an Optax transform.

  Of what is written once for a platform and once for all others, `platform` ("cpu", "cuda", "tpu") chooses the variant;
  None is that for all others, here the textbook's. Raises NotImplementedError for what cannot be counted.
  """
  variables = model.abstract_variables()
  params = variables.params
  batch, keys = abstract_batch(model, batch_size)
  loss = training_loss(model, objective)
  reconstruction = contractions(jax.make_jaxpr(model.reconstruct)(variables, batch["x"], batch), platform)
  step = contractions(jax.make_jaxpr(jax.value_and_grad(loss, has_aux=True))(*variables, batch, keys), platform)
  leaves, opt_leaves = jax.tree.leaves(params), jax.tree.leaves(jax.eval_shape(optimizer.init, params))
  return Cost(
    parameters=sum(leaf.size for leaf in leaves),
    forward=multiply_adds(reconstruction) / batch_size,
    training=multiply_adds(step) / batch_size,
    state_bytes=bytes_of(leaves) + bytes_of(opt_leaves),
    gradient_bytes=bytes_of(leaves),
    activation_bytes=kept_bytes(lambda *args: loss(*args)[0], *variables, batch, keys, platform=platform) / batch_size,
    traffic_bytes=sum(times * bytes_of(var.aval for var in (*each.invars, *each.outvars)) for times, each in step),
  )


def abstract_batch(model, rows):
  """Returns the shapes and types of a batch of a model, with all columns that it needs, and of its keys."""
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))
  batch = {name: jax.ShapeDtypeStruct((rows,), jnp.int32) for name in model.columns}
  batch |= {"x": jax.ShapeDtypeStruct((rows, *model.shape), jnp.float32)}
  return batch | {"weight": jax.ShapeDtypeStruct((rows,), jnp.float32)}, keys


def training_loss(model, objective):
  """Returns the objective in training as a function (params, model state, batch, keys) -> (loss, aux)."""
  return lambda params, state, *args: objective(model, Variables(params, state), *args, train=True)


def contractions(program, platform=None):
  """The contractions of a jaxpr and how often each is computed, [(times, equation)]; of a `cond` the dearest branch."""
  equations, _ = _flat(program, [_Array(var.aval, True) for var in _open(program).invars], platform)
  return [found for e in equations for found in _PRIMITIVES.get(e.primitive.name, _other)(e, platform)]


def multiply_adds(found):
  """Their number in what `contractions` found."""
  return sum(times * _COUNTS[equation.primitive.name](equation) for times, equation in found)


def kept_bytes(function, params, *args, platform=None):
  """Bytes of the arrays that depend on `args` and that the gradient of `function(params, *args)` needs, each once.

  They are what `jax.vjp` hands from the forward to the backward pass; XLA keeps less where it fuses or recomputes.
  """
  residuals = lambda params, *args: jax.tree.leaves(jax.vjp(lambda params: function(params, *args), params)[1])
  program = jax.make_jaxpr(residuals)(params, *args)
  first = len(jax.tree.leaves(params))
  inputs = [_Array(var.aval, place >= first) for place, var in enumerate(program.jaxpr.invars)]
  return bytes_of(array.aval for array in set(_flat(program, inputs, platform)[1]) if array.varies)


@dataclasses.dataclass(frozen=True, eq=False)
class _Array:
  """An input, a constant or a result in a flat program, equal to itself alone."""

  aval: jax.core.ShapedArray
  varies: bool  # depends on those inputs that do


def _flat(program, inputs, platform):
  """The equations of a jaxpr and of all that it calls, those that compute the same once, and its results."""
  equations, known = [], {}

  def inline(program, inputs):
    jaxpr = _open(program)
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
        new = [_Array(var.aval, any(each.varies for each in arguments)) for var in equation.outvars]
        results = _remember(known, (equation.primitive, *sorted(equation.params.items()), *arguments), new)
        if results is new:
          equations.append(equation)
      else:
        results = inline(called, arguments[len(arguments) - len(_open(called).invars) :])  # a branch gets no index
      arrays.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]

  results = inline(program, inputs)
  return equations, results


def _remember(known, key, results):
  try:
    return known.setdefault(key, results)
  except TypeError:  # a parameter without a hash
    return results


def _called(equation, platform):
  """The program that a call stands for, or `lax.platform_dependent` on a platform; None if it is neither."""
  name, params = equation.primitive.name, equation.params
  if name in _CALLS:
    return params[_CALLS[name]]
  variants = params.get("branches_platforms") if name == "cond" else None
  fitting = [place for place, names in enumerate(variants or ()) if names is None or platform in names]
  return params["branches"][fitting[0]] if fitting else None


def _open(program):
  return getattr(program, "jaxpr", program)


def bytes_of(arrays):
  """The bytes of (abstract) arrays together."""
  return sum(array.size * array.dtype.itemsize for array in arrays)


def _dot(equation):
  """Numbers in the product, times the summands of each."""
  (summed, _), _ = equation.params["dimension_numbers"]
  left, product = equation.invars[0].aval, equation.outvars[0].aval
  return product.size * math.prod(left.shape[axis] for axis in summed)


def _conv(equation):
  """Triples of an output, a kernel's and an input number that meet: not in the padding, nor in holes of dilation.

  So a convolution, its transpose and its kernel's gradient cost the same; XLA's cost analysis counts alike.
  """
  image, kernel, out = (atom.aval.shape for atom in (*equation.invars, *equation.outvars))
  params = equation.params
  of_image, of_kernel, of_out = params["dimension_numbers"]
  total = out[of_out[0]] * out[of_out[1]] * kernel[of_kernel[1]]
  for axis, (low, _) in enumerate(params["padding"]):
    side, taps, outputs = (shape[of[2 + axis]] for shape, of in ((image, of_image), (kernel, of_kernel), (out, of_out)))
    stride, hole, spread = (params[key][axis] for key in ("window_strides", "lhs_dilation", "rhs_dilation"))
    place = stride * np.arange(outputs)[:, None] + spread * np.arange(taps) - low  # in the dilated image
    total *= int(((place >= 0) & (place <= hole * (side - 1)) & (place % hole == 0)).sum())
  return total


def _repeated(equation, platform):
  """A scan; and what `jax.checkpoint` computes again in the backward pass, which equals nothing outside of it."""
  inside = contractions(equation.params["jaxpr"], platform)
  return [(equation.params.get("length", 1) * times, each) for times, each in inside]


def _dearest(equation, platform):
  return max((contractions(branch, platform) for branch in equation.params["branches"]), key=multiply_adds)


def _other(equation, platform):
  """Elementwise, unless its name says no, or what it runs contracts: `while_loop` does so nobody knows how often."""
  name, leaves = equation.primitive.name, jax.tree.leaves(equation.params)
  programs = [leaf for leaf in leaves if isinstance(leaf, core.Jaxpr | core.ClosedJaxpr)]
  if _UNCOUNTED.fullmatch(name) or any(contractions(each, platform) for each in programs):
    raise NotImplementedError(f"ae_jax.models.cost cannot count the multiply-adds of the primitive {name!r}")
  return []


# The primitives that only call a program, and the parameter that holds it.
_CALLS = {
  "jit": "jaxpr",
  "closed_call": "call_jaxpr",
  "custom_jvp_call": "call_jaxpr",
  "custom_vjp_call": "call_jaxpr",
}

_COUNTS = {"dot_general": _dot, "conv_general_dilated": _conv}

# The primitive's name -> (equation, platform) -> [(times, equation)]; what is not here is `_other`.
_PRIMITIVES = {
  **dict.fromkeys(_COUNTS, lambda equation, platform: [(1, equation)]),
  **dict.fromkeys(("scan", "remat2", "checkpoint"), _repeated),
  "cond": _dearest,
}

# Products by another name, foreign code, and linear algebra.
_UNCOUNTED = re.compile(
  ".*(dot|matmul|conv_|product|_call|solve).*|fft|cholesky.*|lu|qr|eigh?|svd|schur|hessenberg|tridiagonal"
)
