"""Rules that convert JAX primitives to ONNX operators: `RULES` is {name of the primitive: rule}.

A rule is called with (graph, inputs, parameters, outputs) and returns the name of its result, or a list of names.
`inputs` are `onnx_graph.Value`s, `parameters` those of the primitive, `outputs` the shapes and dtypes of the results.
"""

import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ae_jax.exporting.onnx_graph import Graph, Value, is_known, shape_of, unsupported

Rule = Callable[[Graph, Sequence[Value], dict[str, Any], Sequence[Any]], Any]

# Elementwise primitive -> the equivalent ONNX operator. ONNX broadcasts like NumPy.
_ELEMENTWISE = {
  "abs": "Abs",
  "add": "Add",
  "and": "And",
  "ceil": "Ceil",
  "copy": "Identity",
  "div": "Div",
  "eq": "Equal",
  "erf": "Erf",
  "exp": "Exp",
  "floor": "Floor",
  "ge": "GreaterOrEqual",
  "gt": "Greater",
  "le": "LessOrEqual",
  "log": "Log",
  "logistic": "Sigmoid",
  "lt": "Less",
  "max": "Max",
  "min": "Min",
  "mul": "Mul",
  "neg": "Neg",
  "not": "Not",
  "or": "Or",
  "pow": "Pow",
  "sign": "Sign",
  "sqrt": "Sqrt",
  "stop_gradient": "Identity",
  "sub": "Sub",
  "tanh": "Tanh",
}
_REDUCTIONS = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}


def _elementwise(operator: str) -> Rule:
  return lambda graph, inputs, parameters, outputs: graph.add(operator, *inputs)


def _reduction(operator: str) -> Rule:
  return lambda graph, inputs, parameters, outputs: graph.add(
    operator, inputs[0], np.array(parameters["axes"], np.int64), keepdims=0
  )


def _logical_reduction(operator: str) -> Rule:
  def rule(graph, inputs, parameters, outputs):
    axes = np.array(parameters["axes"], np.int64)
    return _cast(graph, graph.add(operator, _cast(graph, inputs[0], np.int32), axes, keepdims=0), np.bool_)

  return rule


def _arg(operator: str) -> Rule:
  def rule(graph, inputs, parameters, outputs):
    (axis,) = parameters["axes"]
    return _cast(graph, graph.add(operator, inputs[0], axis=axis, keepdims=0), outputs[0].dtype)

  return rule


def _cast(graph, value, dtype):
  from onnx import helper

  return graph.add("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _scalar(number, outputs):
  return np.array(number, outputs[0].dtype)


def _not_equal(graph, inputs, parameters, outputs):
  return graph.add("Not", graph.add("Equal", *inputs))


def _square(graph, inputs, parameters, outputs):
  return graph.add("Mul", inputs[0], inputs[0])


def _integer_pow(graph, inputs, parameters, outputs):
  return graph.add("Pow", inputs[0], _scalar(parameters["y"], outputs))


def _rsqrt(graph, inputs, parameters, outputs):
  return graph.add("Reciprocal", graph.add("Sqrt", inputs[0]))


def _log1p(graph, inputs, parameters, outputs):
  return graph.add("Log", graph.add("Add", inputs[0], _scalar(1, outputs)))


def _expm1(graph, inputs, parameters, outputs):
  return graph.add("Sub", graph.add("Exp", inputs[0]), _scalar(1, outputs))


def _select(graph, inputs, parameters, outputs):
  which, *cases = inputs
  if len(cases) != 2:
    raise unsupported("a selection from more than two arrays")
  return graph.add("Where", which, cases[1], cases[0])


def _clamp(graph, inputs, parameters, outputs):
  low, x, high = inputs
  return graph.add("Min", graph.add("Max", x, low), high)


def _convert(graph, inputs, parameters, outputs):
  return _cast(graph, inputs[0], parameters["new_dtype"])


def _reshape(graph, inputs, parameters, outputs):
  return graph.reshape(inputs[0], outputs[0].shape)


def _broadcast(graph, inputs, parameters, outputs):
  shape = outputs[0].shape
  sizes = [1] * len(shape)
  for axis, size in zip(parameters["broadcast_dimensions"], shape_of(inputs[0]), strict=True):
    sizes[axis] = size
  reshaped = inputs[0] if tuple(sizes) == shape_of(inputs[0]) else graph.reshape(inputs[0], sizes)
  return graph.name_of(reshaped) if tuple(sizes) == shape else graph.add("Expand", reshaped, graph.shape_vector(shape))


def _transpose(graph, inputs, parameters, outputs):
  return graph.add("Transpose", inputs[0], perm=parameters["permutation"])


def _concatenate(graph, inputs, parameters, outputs):
  return graph.add("Concat", *inputs, axis=parameters["dimension"])


def _stack(graph, inputs, parameters, outputs):
  axis = np.array([parameters["axis"]], np.int64)
  return graph.add("Concat", *(graph.add("Unsqueeze", each, axis) for each in inputs), axis=parameters["axis"])


def _split(graph, inputs, parameters, outputs):
  sizes = np.array(parameters["sizes"], np.int64)
  return graph.add_many("Split", len(outputs), inputs[0], sizes, axis=parameters["axis"])


def _slice(graph, inputs, parameters, outputs):
  stops = [
    None if graph.multiple(stop) else stop for stop in parameters["limit_indices"]
  ]  # a slice along the batch axis extends to its end
  steps = parameters["strides"] or (1,) * len(stops)
  axes = [a for a, step in enumerate(steps) if step > 1]
  sliced = graph.slice(inputs[0], range(len(stops)), parameters["start_indices"], stops)
  return (
    graph.add("Slice", sliced, *_steps(axes, [steps[a] for a in axes], 0, np.iinfo(np.int64).max)) if axes else sliced
  )


def _steps(axes, steps, start, stop):
  return [np.array(each, np.int64) for each in ([start] * len(axes), [stop] * len(axes), axes, steps)]


def _reverse(graph, inputs, parameters, outputs):
  axes = list(parameters["dimensions"])
  return graph.add("Slice", inputs[0], *_steps(axes, [-1] * len(axes), -1, np.iinfo(np.int64).min))


def _pad(graph, inputs, parameters, outputs):
  low, high, interior = zip(*parameters["padding_config"], strict=True)
  if any(interior) or min(low + high) < 0:
    raise unsupported("negative padding or padding between elements")
  return graph.add("Pad", inputs[0], np.array([*low, *high], np.int64), inputs[1])


def _iota(graph, inputs, parameters, outputs):
  shape, axis = outputs[0].shape, parameters["dimension"]
  if graph.multiple(shape[axis]):
    raise unsupported("indices along the batch axis")
  numbers = np.arange(shape[axis], dtype=outputs[0].dtype).reshape([-1 if a == axis else 1 for a in range(len(shape))])
  return graph.add("Expand", numbers, graph.shape_vector(shape))


def _gather(graph, inputs, parameters, outputs):
  """Converts slices at constant positions, and rows of an array at computed indices, such as codebook entries."""
  operand, indices = inputs
  numbers, sizes = parameters["dimension_numbers"], parameters["slice_sizes"]
  axes, dropped = list(numbers.start_index_map), list(numbers.collapsed_slice_dims)
  if is_known([indices]) and indices.ndim == 1:
    starts = [int(start) for start in indices]
    stops = [None if graph.multiple(sizes[a]) else start + sizes[a] for a, start in zip(axes, starts, strict=True)]
    sliced = graph.slice(operand, axes, starts, stops)
    return graph.add("Squeeze", sliced, np.array(dropped, np.int64)) if dropped else sliced
  whole = all(
    size == full for a, (size, full) in enumerate(zip(sizes, shape_of(operand), strict=True)) if a not in axes
  )
  if len(axes) != 1 or dropped != axes or not whole or numbers.operand_batching_dims:
    raise unsupported("this gather with dynamic indices, which has no export rule")
  rows = graph.add("Gather", operand, graph.reshape(indices, shape_of(indices)[:-1]), axis=axes[0])
  rank, offsets = len(outputs[0].shape), list(numbers.offset_dims)
  batch = [a for a in range(rank) if a not in offsets]
  order = offsets[: axes[0]] + batch + offsets[axes[0] :]  # axes of JAX's output in the order of ONNX's output
  return rows if order == list(range(rank)) else graph.add("Transpose", rows, perm=list(np.argsort(order)))


def _dot(graph, inputs, parameters, outputs):
  (left_axes, right_axes), (left_batch, right_batch) = parameters["dimension_numbers"]
  left, right = inputs
  if not left_batch and len(left_axes) == 1 and len(shape_of(right)) == 2:
    if left_axes[0] != len(shape_of(left)) - 1:
      order = [a for a in range(len(shape_of(left))) if a != left_axes[0]]
      left = graph.add("Transpose", left, perm=[*order, left_axes[0]])
    if right_axes[0] != 0:
      right = right.T if is_known([right]) else graph.add("Transpose", right, perm=[1, 0])
    return graph.add("MatMul", left, right)
  letters = iter(string.ascii_letters)
  names = [[next(letters) for _ in shape_of(each)] for each in inputs]
  for a, b in [*zip(left_axes, right_axes, strict=True), *zip(left_batch, right_batch, strict=True)]:
    names[1][b] = names[0][a]
  free = [
    [name for a, name in enumerate(each) if a not in {*axes, *batch}]
    for each, axes, batch in zip(names, (left_axes, right_axes), (left_batch, right_batch), strict=True)
  ]
  result = [*(names[0][a] for a in left_batch), *free[0], *free[1]]
  return graph.add("Einsum", left, right, equation=f"{''.join(names[0])},{''.join(names[1])}->{''.join(result)}")


def _conv(graph, inputs, parameters, outputs):
  """Converts a convolution, or a transposed one if `lhs_dilation` > 1; images are transposed to [B, C, H, W]."""
  x, kernel = inputs
  numbers = parameters["dimension_numbers"]
  axes = len(numbers.lhs_spec) - 2
  dilation, padding = parameters["lhs_dilation"], parameters["padding"]
  if not is_known([kernel]) or parameters["batch_group_count"] > 1:
    raise unsupported("a convolution with a computed kernel or batch groups")
  x = graph.add("Transpose", x, perm=numbers.lhs_spec)
  kernel = kernel.transpose(numbers.rhs_spec)  # [C_out, C_in, H, W]
  options = {"dilations": parameters["rhs_dilation"], "group": parameters["feature_group_count"]}
  if max(dilation) > 1:
    strides, group, dilations = parameters["window_strides"], options["group"], options["dilations"]
    sizes = {"window strides": max(strides), "groups": group, "kernel dilations": max(dilations)}
    if above := [name for name, size in sizes.items() if size > 1]:
      raise unsupported(f"a transposed convolution with {' and '.join(above)} above 1")
    pads = [
      k - 1 - p for side in (0, 1) for k, p in zip(kernel.shape[2:], [each[side] for each in padding], strict=True)
    ]
    kernel = np.flip(kernel, tuple(range(2, axes + 2))).swapaxes(0, 1)
    y = graph.add("ConvTranspose", x, kernel, pads=pads, strides=dilation)
  else:
    pads = [each[side] for side in (0, 1) for each in padding]
    y = graph.add("Conv", x, kernel, pads=pads, strides=parameters["window_strides"], **options)
  return graph.add("Transpose", y, perm=list(np.argsort(numbers.out_spec)))


def _squeeze(graph, inputs, parameters, outputs):
  return graph.add("Squeeze", inputs[0], np.array(parameters["dimensions"], np.int64))


RULES: dict[str, Rule] = {
  **{name: _elementwise(operator) for name, operator in _ELEMENTWISE.items()},
  **{name: _reduction(operator) for name, operator in _REDUCTIONS.items()},
  "argmax": _arg("ArgMax"),
  "argmin": _arg("ArgMin"),
  "broadcast_in_dim": _broadcast,
  "clamp": _clamp,
  "concatenate": _concatenate,
  "conv_general_dilated": _conv,
  "convert_element_type": _convert,
  "dot_general": _dot,
  "expm1": _expm1,
  "gather": _gather,
  "integer_pow": _integer_pow,
  "iota": _iota,
  "log1p": _log1p,
  "ne": _not_equal,
  "pad": _pad,
  "reduce_and": _logical_reduction("ReduceMin"),
  "reduce_or": _logical_reduction("ReduceMax"),
  "reshape": _reshape,
  "rev": _reverse,
  "round": _elementwise("Round"),
  "rsqrt": _rsqrt,
  "select_n": _select,
  "slice": _slice,
  "split": _split,
  "square": _square,
  "squeeze": _squeeze,
  "stack": _stack,
  "transpose": _transpose,
}
