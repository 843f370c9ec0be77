"""Converts a JAX function to an ONNX file by translating each primitive of its jaxpr.

`jax2onnx` is not used: it requires `orbax-checkpoint<0.11.37`, `jax>=0.8.1` and `flax>=0.12.1`, but this package needs
a newer version of the first and supports older versions of the others.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ae_jax.exporting import onnx_graph, onnx_rules
from ae_jax.exporting.onnx_graph import Graph, Tensor, Value
from ae_jax.exporting.parts import Part


def convert(part: Part) -> bytes:
  """Converts a part of a model to an ONNX file, which accepts any batch size.

  Raises:
    UserError: The part contains a primitive, or a use of one, that cannot be converted to ONNX.
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
  return onnx_graph.as_bytes(graph, dict(zip(names, tensors, strict=True)), output, part.name, part.meanings)


def _interpret(graph: Graph, jaxpr: Any, constants: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
  """Adds the equations of a jaxpr to the graph and returns the results.

  Operations whose inputs are all constants are evaluated immediately (constant folding).
  """
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
    raise onnx_graph.unsupported(f"the operation {name!r} of this model")
  names = onnx_rules.RULES[name](graph, inputs, parameters, outputs)
  names = [names] if isinstance(names, str) else names
  return [Tensor(each, aval.shape, aval.dtype) for each, aval in zip(names, outputs, strict=True)]


def _closed(graph, closed, inputs):
  return _interpret(graph, closed.jaxpr, list(map(np.asarray, closed.consts)), inputs)


def _call(key: str) -> Callable[..., list[Value]]:
  """Returns the conversion of a primitive that calls a jaxpr; `key` is the parameter that contains the jaxpr."""
  return lambda graph, inputs, parameters: _closed(graph, parameters[key], inputs)


def _platform_index(graph, inputs, parameters):
  """Selects the default branch of `lax.platform_dependent`, such as XLA's convolution (not the products for CPU)."""
  del graph, inputs
  return [np.asarray(parameters["platforms"].index(None), np.int32)]


def _cond(graph, inputs, parameters):
  which, *others = inputs
  if not onnx_graph.is_known([which]):
    raise onnx_graph.unsupported("a branch on a computed value")
  return _closed(graph, parameters["branches"][int(which)], others)


def _scan(graph, inputs, parameters):
  """Unrolls a `lax.scan`; the arrays over which it loops must be constants."""
  constants, carried = parameters["num_consts"], parameters["num_carry"]
  fixed, carry, stacked = inputs[:constants], inputs[constants : constants + carried], inputs[constants + carried :]
  if not onnx_graph.is_known(stacked):
    raise onnx_graph.unsupported("a loop over computed arrays")
  steps = range(parameters["length"])
  for step in reversed(steps) if parameters["reverse"] else steps:
    results = _closed(graph, parameters["jaxpr"], [*fixed, *carry, *(np.asarray(each[step]) for each in stacked)])
    if len(results) > carried:
      raise onnx_graph.unsupported("a loop whose results are stacked")
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
