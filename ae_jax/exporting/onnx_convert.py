"""Conversion of a JAX function to an ONNX file, through the primitives of its traced program.

`jax2onnx` is not used: it requires `orbax-checkpoint<0.11.37`, `jax>=0.8.1` and `flax>=0.12.1`, and this package needs
newer and older versions of them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ae_jax import errors
from ae_jax.exporting import onnx_graph, onnx_rules
from ae_jax.exporting.onnx_graph import Graph, Tensor, Value
from ae_jax.exporting.parts import Part


def convert(part: Part) -> bytes:
  """Returns the ONNX file of a part of a model; the size of its batch is free.

  Raises:
    UserError: A primitive of the part has no ONNX rule.
  """
  from jax import export

  (batch,) = export.symbolic_shape("batch")
  closed, result = jax.make_jaxpr(part.function, return_shape=True)(*part.abstract_inputs(batch))
  graph = Graph(batch)
  names = list(part.inputs)
  tensors = [Tensor(n, v.aval.shape, v.aval.dtype) for n, v in zip(names, closed.jaxpr.invars, strict=True)]
  graph.first_input = names[0]
  (value,) = _interpret(graph, closed.jaxpr, list(map(np.asarray, closed.consts)), tensors)
  graph.rename(value, part.output)
  output = {part.output: Tensor(part.output, result.shape, result.dtype)}
  return onnx_graph.as_bytes(graph, dict(zip(names, tensors, strict=True)), output, part.name)


def _interpret(graph: Graph, jaxpr: Any, constants: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
  """Adds the equations of a program to the graph and returns the results. Known values are computed at once."""
  known: dict[Any, Value] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))
  read = lambda variable: np.asarray(variable.val) if hasattr(variable, "val") else known[variable]
  for equation in jaxpr.eqns:
    results = _results(graph, equation, [read(each) for each in equation.invars])
    known.update(zip(equation.outvars, results, strict=True))
  return [read(each) for each in jaxpr.outvars]


def _results(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
  name, parameters = equation.primitive.name, equation.params
  outputs = [each.aval for each in equation.outvars]
  if name in _CALLS:
    return _CALLS[name](graph, inputs, parameters)
  if onnx_graph.is_known(inputs) and not any(graph.multiple(size) for each in outputs for size in each.shape):
    values = equation.primitive.bind(*inputs, **parameters)
    return [np.asarray(value) for value in (values if equation.primitive.multiple_results else [values])]
  if name not in onnx_rules.RULES:
    raise errors.UserError(f"onnx: cannot export the operation {name!r} of this model; use stablehlo")
  names = onnx_rules.RULES[name](graph, inputs, parameters, outputs)
  names = [names] if isinstance(names, str) else names
  return [Tensor(each, aval.shape, aval.dtype) for each, aval in zip(names, outputs, strict=True)]


def _closed(graph, closed, inputs):
  return _interpret(graph, closed.jaxpr, list(map(np.asarray, closed.consts)), inputs)


def _call(key: str) -> Callable[..., list[Value]]:
  """Returns the conversion of a primitive that calls the program in its parameter `key`."""
  return lambda graph, inputs, parameters: _closed(graph, parameters[key], inputs)


def _platform_index(graph, inputs, parameters):
  """Chooses the form of an operation that is not for a certain platform: XLA's convolution, not products."""
  del graph, inputs
  return [np.asarray(parameters["platforms"].index(None), np.int32)]


def _cond(graph, inputs, parameters):
  which, *others = inputs
  if not onnx_graph.is_known([which]):
    raise errors.UserError("onnx: cannot export a branch on a computed value; use stablehlo")
  return _closed(graph, parameters["branches"][int(which)], others)


def _scan(graph, inputs, parameters):
  """Unrolls a loop of known length; the stacked inputs are sliced."""
  constants, carried = parameters["num_consts"], parameters["num_carry"]
  fixed, carry, stacked = inputs[:constants], inputs[constants : constants + carried], inputs[constants + carried :]
  if not onnx_graph.is_known(stacked):
    raise errors.UserError("onnx: cannot export a loop over computed arrays; use stablehlo")
  steps = range(parameters["length"])
  for step in reversed(steps) if parameters["reverse"] else steps:
    results = _closed(graph, parameters["jaxpr"], [*fixed, *carry, *(np.asarray(each[step]) for each in stacked)])
    if len(results) > carried:
      raise errors.UserError("onnx: cannot export a loop whose results are stacked; use stablehlo")
    carry = results
  return carry


_CALLS = {
  "closed_call": _call("call_jaxpr"),
  "cond": _cond,
  "custom_jvp_call": _call("call_jaxpr"),
  "custom_vjp_call": _call("call_jaxpr"),
  "jit": _call("jaxpr"),
  "pjit": _call("jaxpr"),
  "platform_index": _platform_index,
  "remat": lambda graph, inputs, parameters: _interpret(graph, parameters["jaxpr"], [], inputs),
  "scan": _scan,
}
