"""Builds an ONNX graph from nodes and constants, and serialises it with the package `onnx`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from ae_jax import errors

OPSET = 18
IR_VERSION = 9  # the version of ONNX 1.14, so that older runtimes can load the file
_TO_THE_END = np.iinfo(np.int64).max


class Tensor(NamedTuple):
  """A value that is computed when the graph runs: an input, or the output of a node."""

  name: str
  shape: tuple[Any, ...]  # the batch size is symbolic
  dtype: np.dtype


Value = Tensor | np.ndarray  # an ndarray is a constant, known when the graph is built


def unsupported(what: str) -> errors.UserError:
  """Returns the error to raise if a model contains `what`, which cannot be converted."""
  return errors.UserError(f"onnx: cannot export {what}; export with the 'stablehlo' format instead")


class Graph:
  """Nodes and constants in the order in which they were added."""

  def __init__(self, batch: Any) -> None:
    self.batch = batch  # the symbolic batch size
    self.nodes: list[Any] = []
    self.constants: dict[str, Any] = {}
    # {(contents, shape, dtype): name of a constant} and {("batch", k): name of the vector [k * batch size]}
    self._names: dict[tuple[Any, ...], str] = {}

  def add(self, operator: str, *inputs: Value | str, **attributes: Any) -> str:
    """Adds a node and returns the name of its output."""
    return self.add_many(operator, 1, *inputs, **attributes)[0]

  def add_many(self, operator: str, count: int, *inputs: Value | str, **attributes: Any) -> list[str]:
    """Adds a node with `count` outputs and returns their names."""
    from onnx import helper

    outputs = [f"{operator.lower()}_{len(self.nodes)}" + (f"_{i}" if i else "") for i in range(count)]
    self.nodes.append(helper.make_node(operator, [self.name_of(each) for each in inputs], outputs, **attributes))
    return outputs

  def name_of(self, value: Value | str) -> str:
    """Returns the name of a value; an ndarray is added to the graph as a constant."""
    if isinstance(value, str):
      return value
    if isinstance(value, Tensor):
      return value.name
    from onnx import numpy_helper

    value = np.ascontiguousarray(value).reshape(np.shape(value))
    key = (value.tobytes(), value.shape, str(value.dtype))
    if key not in self._names:
      self._names[key] = f"constant_{len(self.constants)}"
      self.constants[self._names[key]] = numpy_helper.from_array(value, self._names[key])
    return self._names[key]

  def rename(self, value: Value, name: str) -> None:
    """Adds a node that copies a value to the graph output `name`."""
    from onnx import helper

    self.nodes.append(helper.make_node("Identity", [self.name_of(value)], [name]))

  def multiple(self, size: Any) -> int:
    """Returns k if a size is k * batch size, or 0 if the size does not depend on the batch size.

    Raises:
      UserError: The size is another function of the batch size.
    """
    if isinstance(size, int | np.integer):
      return 0
    factor = size // self.batch
    if isinstance(factor, int) and factor * self.batch == size:
      return factor
    raise unsupported(f"an array of size {size}")

  def reshape(self, value: Value | str, shape: Sequence[Any]) -> str:
    """Reshapes a value; at most one size may be symbolic."""
    sizes = [-1 if self.multiple(size) else size for size in shape]
    if sizes.count(-1) > 1:
      raise unsupported(f"a shape with several symbolic sizes, {tuple(shape)}")
    return self.add("Reshape", value, np.array(sizes, np.int64))

  def shape_vector(self, shape: Sequence[Any]) -> Value | str:
    """Returns a shape as an int64 vector: a constant, or the name of a computed value if a size is symbolic."""
    if not any(self.multiple(size) for size in shape):
      return np.array(shape, np.int64)
    sizes = [self._symbolic(self.multiple(size)) if self.multiple(size) else np.array([size]) for size in shape]
    return self.add("Concat", *sizes, axis=0) if len(sizes) > 1 else sizes[0]

  def slice(self, value: Value | str, axes: Iterable[int], starts: Iterable[int], stops: Iterable[int | None]) -> str:
    """Slices a value along `axes`; a stop of None means the end of the axis."""
    ends = [_TO_THE_END if stop is None else stop for stop in stops]
    return self.add("Slice", value, *(np.array(list(each), np.int64) for each in (starts, ends, axes)))

  def _symbolic(self, factor: int) -> str:
    key = ("batch", factor)
    if key not in self._names:
      batch = self.add("Shape", self.first_input, start=0, end=1) if factor == 1 else self._symbolic(1)
      self._names[key] = batch if factor == 1 else self.add("Mul", batch, np.array([factor], np.int64))
    return self._names[key]

  first_input: str = ""  # name of an input whose first axis is the batch, from which the batch size is read


def as_bytes(
  graph: Graph,
  inputs: dict[str, Tensor],
  outputs: dict[str, Tensor],
  name: str,
  meanings: Mapping[str, Mapping[str, Any]],
) -> bytes:
  """Serialises a finished graph with these inputs and outputs as an ONNX file.

  `meanings` are descriptions of the inputs and outputs by name; they become the metadata of the file, as JSON.
  """
  import onnx
  from onnx import helper

  def info(name, tensor):
    sizes = ["batch" if graph.multiple(size) else int(size) for size in tensor.shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype)), sizes)

  taken, given = ([info(key, tensor) for key, tensor in each.items()] for each in (inputs, outputs))
  proto = helper.make_graph(graph.nodes, name, taken, given, initializer=list(graph.constants.values()))
  opsets = [helper.make_opsetid("", OPSET)]
  model = helper.make_model(proto, opset_imports=opsets, ir_version=IR_VERSION, producer_name="ae_jax")
  helper.set_model_props(model, {key: json.dumps(meaning) for key, meaning in meanings.items()})
  onnx.checker.check_model(model, full_check=True)
  return model.SerializeToString()


def is_known(values: Iterable[Value]) -> bool:
  """Returns whether all values are constants."""
  return all(isinstance(value, np.ndarray) for value in values)


def shape_of(value: Shaped[np.ndarray, "..."] | Tensor) -> tuple[Any, ...]:
  """Returns the shape of a value."""
  return tuple(value.shape)
