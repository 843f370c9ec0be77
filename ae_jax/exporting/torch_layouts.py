"""Converts weights of dense and convolutional autoencoders to the layouts of PyTorch, and back.

The weight of PyTorch's `Linear` is [out, in], of `Conv2d` [out, in, kh, kw], of `Conv1d` [out, in, k], and of
`ConvTranspose2d` [in, out, kh, kw]. PyTorch does not flip the kernel of a transposed convolution; `ops.convolutions`
does. PyTorch's examples have the channels first, so the rows of a dense layer over flattened examples are permuted.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from ae_jax import errors, models
from ae_jax.data import in_memory
from ae_jax.types import AnyArray

Weight = Float[AnyArray, "..."]
Order = Int[np.ndarray, " elements"] | None


@dataclasses.dataclass(frozen=True)
class Layer:
  """A layer with a kernel and a bias."""

  name: str  # name in the state_dict, such as "encoder.0"
  path: tuple[str, ...]  # keys that lead to the layer in the nested parameters
  inputs: Order = None  # permutation of the inputs to PyTorch's channels-first order, if they are flattened examples
  outputs: Order = None  # the same for the outputs

  @property
  def is_transposed(self) -> bool:
    """Returns whether the layer is a transposed convolution."""
    return self.path[-1].startswith("ConvTranspose")

  def kernel_to_torch(self, kernel: Weight, axes: int) -> Weight:
    """Converts a kernel to a weight of PyTorch; `axes` is the number of axes of an example."""
    if kernel.ndim == 2:
      return _ordered(_ordered(kernel, self.inputs, 0), self.outputs, 1).T
    weight = kernel[::-1, ::-1].transpose(2, 3, 0, 1) if self.is_transposed else kernel.transpose(3, 2, 0, 1)
    return weight[..., 0] if axes == 2 else weight

  def kernel_from_torch(self, weight: Weight, axes: int) -> Weight:
    """Inverts `kernel_to_torch`."""
    if weight.ndim == 2:
      return _ordered(_ordered(weight.T, _inverse(self.inputs), 0), _inverse(self.outputs), 1)
    weight = weight[..., None] if axes == 2 else weight
    return weight.transpose(2, 3, 0, 1)[::-1, ::-1] if self.is_transposed else weight.transpose(2, 3, 1, 0)


def to_torch(run: Any) -> dict[str, Float[np.ndarray, "..."]]:
  """Returns the weights in the layouts of PyTorch, {"encoder.0.weight": float32 array, "encoder.0.bias": ..., ...}.

  The layers are numbered in the order in which they are applied. The documentation ("PyTorch") shows modules that load
  the weights. These modules expect examples [N, C, H, W] or [N, C, T] in the range and scaling of the model's input.

  Example:
    >>> state_dict = {name: torch.from_numpy(array) for name, array in run.to_torch().items()}

  Raises:
    UserError: The model is not dense or convolutional, or it has labels, tied weights, a linear path or a model state.
  """
  params, result = run.variables.params, {}
  for layer in _layers(run.model, run.config.model.name):
    kernel, bias = (np.asarray(_at(params, (*layer.path, name))) for name in ("kernel", "bias"))
    weight = layer.kernel_to_torch(kernel, len(run.model.shape))
    result[f"{layer.name}.weight"] = np.ascontiguousarray(weight, np.float32)
    result[f"{layer.name}.bias"] = np.ascontiguousarray(_ordered(bias, layer.outputs, 0), np.float32)
  return result


def to_variables(model: models.Model, family: str, weights: Mapping[str, Any]) -> models.Variables:
  """Converts the weights of a PyTorch module to the variables of a model; arrays are matched by order, not by name.

  Args:
    model: A dense or convolutional autoencoder.
    family: `config.model.name` of this model.
    weights: A `state_dict`: the weight and the bias of the first layer, then of the second, and so on.

  Raises:
    UserError: The number of arrays or a shape is not compatible with the model, or the model is not supported (see
      `to_torch`).
  """
  layers, given = (
    list(_layers(model, family)),
    [(name, in_memory.as_array(each, name)) for name, each in weights.items()],
  )
  if len(given) != 2 * len(layers):
    raise errors.UserError(
      f"weights: there are {len(given)} arrays, and the model has {len(layers)} layers with a weight and a bias each; "
      "change the config, or pass only the weights and biases of the autoencoder"
    )
  axes, abstract = len(model.shape), model.abstract_variables().params
  params: dict[str, Any] = {}
  for layer, (weight_name, weight), (bias_name, bias) in zip(layers, given[::2], given[1::2], strict=True):
    shapes = [_at(abstract, (*layer.path, name)).shape for name in ("kernel", "bias")]
    wanted = layer.kernel_to_torch(np.empty(shapes[0], np.float32), axes).shape
    _check(weight_name, weight, wanted, layer)
    _check(bias_name, bias, shapes[1], layer)
    section = params
    for part in layer.path:
      section = section.setdefault(part, {})
    section["kernel"] = np.ascontiguousarray(layer.kernel_from_torch(weight, axes), np.float32)
    section["bias"] = np.ascontiguousarray(_ordered(bias, _inverse(layer.outputs), 0), np.float32)
  return models.Variables(jax.tree.map(jax.numpy.asarray, params))


def _check(name: str, array: Weight, shape: tuple[int, ...], layer: Layer) -> None:
  if array.shape != shape:
    raise errors.UserError(
      f"weights[{name!r}]: has the shape {array.shape}, but layer {layer.name} of the model needs {shape}; change the "
      "config, or the order of the arrays"
    )


def _layers(model: models.Model, family: str) -> Iterator[Layer]:
  """Yields the layers in the order in which they are applied.

  Raises:
    UserError: The model is not dense or convolutional, or it has labels, tied weights, a linear path or a model state.
  """
  abstract = model.abstract_variables()
  params, pattern = abstract.params, _LAYERS.get(family)
  known = pattern and not model.labels and {*params} == {"encoder", "decoder"} and not jax.tree.leaves(abstract.state)
  if not known or not all(pattern.fullmatch(name) for part in params.values() for name in part):
    raise errors.UserError(
      "to_torch: only dense and convolutional autoencoders without tied weights and without a linear path "
      "(config.model.linear_path='none') have PyTorch layouts; use run.export"
    )
  layers = {part: sorted(params[part], key=_position) for part in ("encoder", "decoder")}
  order = _channels_first(model.shape)
  last = layers["decoder"][-1]
  for part, names in layers.items():
    for number, name in enumerate(names):
      inputs = (
        order if part == "encoder" and number == 0 and len(_at(params, (part, name, "kernel")).shape) == 2 else None
      )
      outputs = order if part == "decoder" and name == last == "logits" else None
      yield Layer(f"{part}.{number}", (part, name), inputs, outputs)


# config.model.name -> pattern of the names of the layers in the parameters
_LAYERS = {
  "cnn": re.compile(r"(Conv|ConvTranspose|ResizeConv|SubpixelConv|Dense)_\d+|code"),
  "dense": re.compile(r"hidden_\d+|code|logits"),
}


def _position(name: str) -> tuple[int, str, int]:
  """Returns a key that sorts the layers of an encoder or decoder in the order in which they are applied."""
  kind, _, number = name.partition("_")
  return {"Dense": 0, "code": 2, "logits": 2}.get(kind, 1), kind, int(number or 0)


def _channels_first(shape: tuple[int, ...]) -> Int[np.ndarray, " elements"]:
  """Returns the permutation that converts a flattened channels-last example to PyTorch's channels-first order."""
  return np.moveaxis(np.arange(np.prod(shape)).reshape(shape), -1, 0).ravel()


def _ordered(array: Weight, order: Order, axis: int) -> Weight:
  return array if order is None else np.take(array, order, axis)


def _inverse(order: Order) -> Order:
  return None if order is None else np.argsort(order)


def _at(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
  for part in path:
    tree = tree[part]
  return tree
