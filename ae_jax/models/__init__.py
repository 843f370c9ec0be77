"""Autoencoder models: frozen, hashable dataclasses whose methods are pure functions of variables and arrays.

`encode` maps examples (images [B, H, W, C] or series [B, T, C]) to their `Encoding`. `decode` maps latents to *logits*
with the shape of the examples, and `outputs` maps logits to reconstructions.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from ae_jax import errors
from ae_jax.models import linear_paths
from ae_jax.models.compute_dtypes import COMPUTE_DTYPES, cast
from ae_jax.models.families import BATCH_LAST, FAMILIES, LABELLED, MASKED, check_kind, completed, rows_in_cache
from ae_jax.models.interface import (
  AutoencoderModule,
  CodeSpec,
  Encoding,
  Examples,
  Gaussian,
  Latents,
  Logits,
  Variables,
)
from ae_jax.models.linear_paths import PrincipalComponents
from ae_jax.ops import losses
from ae_jax.system import compat
from ae_jax.types import AnyArray, Columns, Keys, Params

__all__ = [
  "COMPUTE_DTYPES",
  "FAMILIES",
  "LABELLED",
  "AutoencoderModule",
  "CodeSpec",
  "Encoding",
  "Gaussian",
  "Model",
  "PrincipalComponents",
  "Variables",
  "build",
  "completed",
  "rows_in_cache",
]

compat.install()

_STATE = "state"  # name of the Flax collection of `Variables.state`
_DROPOUT = 0xD0  # folded into an example's key, so that dropout is independent of the objective's noise


@dataclasses.dataclass(frozen=True)
class Model:
  """Pure functions of an autoencoder module. A model is hashable, so it can be a static argument of compiled functions.

  In all methods, `batch` holds the columns of the examples, {name: array [B, ...]}. The model reads only the columns
  listed in `columns`, and `weight`, which is 0 for padding examples. `keys` holds one random key per example; the keys
  are used for dropout if `train` is True.
  """

  module: AutoencoderModule
  shape: tuple[int, ...]  # shape of an example: (H, W, C) of an image, (T, C) of a series
  batch_last: bool  # whether the module computes with the batch as the last axis
  compute_dtype: str = "float32"  # a key of COMPUTE_DTYPES
  groups: losses.Groups = ()  # elements of the categories and booleans of a table; only for the likelihood "mixed"
  latent_mask = 1.0  # array [latent], 1 for latent units in use and 0 for the rest; 1.0 if all units are in use

  @property
  def code(self) -> CodeSpec:
    """The shape, bounds and kind (real or discrete) of the latent code."""
    return self.module.code_spec

  @property
  def columns(self) -> tuple[str, ...]:
    """The names of the columns that the model reads besides "x", e.g. ("label",)."""
    return self.module.columns

  @property
  def labels(self) -> tuple[int, ...]:
    """The distinct labels, () for a model without labels. The column "label" holds indices into this tuple."""
    return self.module.labels

  @property
  def masked(self) -> bool:
    """True if the model reads the mask of the observed elements."""
    return "mask" in self.columns

  @property
  def has_posterior(self) -> bool:
    """True if `encode` returns a posterior."""
    return self.module.has_posterior

  @property
  def has_projection(self) -> bool:
    """True if `project` changes the parameters."""
    return self.module.has_projection

  @property
  def has_skips(self) -> bool:
    """True if `reconstruct` passes skip connections from the encoder to the decoder."""
    return self.module.has_skips

  def init(self, key: Key[Array, ""]) -> Variables:
    """Returns the initial variables, float32 arrays that depend only on the key."""
    batch = {name: jnp.zeros(column.shape, column.dtype) for name, column in self.abstract_columns(1).items()}
    batch |= {"weight": jnp.ones((1,), jnp.float32)}
    collections = self.module.init(key, jnp.zeros((1, *self.shape), jnp.float32), batch)
    return Variables(collections.get("params", {}), collections.get(_STATE, {}))

  def abstract_columns(self, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes and dtypes of the columns in `columns` for `rows` examples."""
    forms = {"label": ((rows,), jnp.int32), "mask": ((rows, *self.shape), jnp.float32)}
    return {name: jax.ShapeDtypeStruct(*forms[name]) for name in self.columns}

  def abstract_variables(self) -> Variables:
    """Returns the shapes and dtypes of the variables without computing the variables."""
    return _abstract_variables(self)

  def encode(
    self,
    variables: Variables,
    x: Examples,
    batch: Columns | None = None,
    *,
    keys: Keys | None = None,
    train: bool = False,
  ) -> Encoding:
    """Returns the `Encoding` of examples, which must be scaled to the range `config.data.range`."""
    return self.apply("encode", variables, x, batch, _dropout(keys, train))

  def decode(
    self,
    variables: Variables,
    z: Latents,
    batch: Columns | None = None,
    *,
    keys: Keys | None = None,
    train: bool = False,
  ) -> Logits:
    """Returns the logits decoded from latents. If the decoder takes skip connections, they are zero."""
    return self.apply("decode", variables, z, batch, _dropout(keys, train))

  def autoencode(
    self,
    variables: Variables,
    x: Examples,
    batch: Columns | None = None,
    *,
    keys: Keys | None = None,
    train: bool = False,
  ) -> tuple[Encoding, Logits]:
    """Returns the `Encoding` of examples and the logits of their reconstructions."""
    return self.apply("__call__", variables, x, batch, _dropout(keys, train))

  def reconstruct(self, variables: Variables, x: Examples, batch: Columns | None = None) -> Logits:
    """Returns the logits of the reconstructions of examples."""
    return self.autoencode(variables, x, batch)[1]

  def outputs(self, logits: Logits, value_range: str) -> Examples:
    """Applies the output activation to logits and returns the reconstructions.

    `value_range` is a key of `losses.OUTPUT_ACTIVATIONS`. For a table with `groups`, the activation is a softmax over
    the elements of each category and a sigmoid for booleans.
    """
    activation = losses.OUTPUT_ACTIVATIONS[value_range]
    return losses.grouped_outputs(logits, activation, self.groups) if self.groups else activation(logits)

  def nearest_codes(self, variables: Variables, z: Latents) -> Latents:
    """Rounds z to the nearest latent codes that the encoder can output; z must be within the bounds of `code`."""
    return self._apply(variables, z, method="nearest_codes", exact=True)

  def lookup(self, variables: Variables, indices: Int[AnyArray, " batch *index_shape"]) -> Latents:
    """Returns the codebook vectors z for the given codebook indices."""
    return self._apply(variables, indices, method="lookup", exact=True)

  def log_prior(self, variables: Variables, z: Latents) -> Float[Array, " batch"]:
    """Returns the log density of the prior at z, in nats."""
    return self._apply(variables, z, method="log_prior", exact=True)

  def sample_prior(self, variables: Variables, key: Key[Array, ""], count: int) -> Float[Array, " count *latent"]:
    """Returns `count` latent codes drawn from the prior."""
    return self._apply(variables, key, count, method="sample_prior", exact=True)

  def kl_to_prior(self, variables: Variables, posterior: Gaussian, z: Latents) -> Float[Array, "batch ..."]:
    """Returns KL(posterior || prior) in nats; z is a sample of the posterior. See `AutoencoderModule.kl_to_prior`."""
    return self._apply(variables, posterior, z, method="kl_to_prior", exact=True)

  @property
  def principal_components(self) -> int:
    """Number of principal components that `fit_state` needs; 0 if `fit_state` does not change the state."""
    return self.module.principal_components

  def fit_state(self, state: PyTree, principal: PrincipalComponents) -> PyTree:
    """Returns the initial model state, computed from the principal components of the training examples."""
    return self.module.fit_state(state, principal)

  def update_state(self, state: PyTree, sums: PyTree) -> PyTree:
    """Returns the model state after a training step.

    `sums` is `Encoding.statistics` summed over all examples of the step.
    """
    return self.module.update_state(state, sums)

  def project(self, params: Params) -> Params:
    """Projects updated parameters onto the model's constraint set."""
    return self.module.project(params)

  def apply(self, method: str, variables: Variables, *args: Any) -> Any:
    """Calls a method of the module in `compute_dtype` arithmetic; floating-point inputs and results are float32."""
    return self._apply(variables, *args, method=method)

  def attention(
    self, variables: Variables, x: Examples, batch: Columns | None = None
  ) -> dict[str, Float[Array, "batch heads queries keys"]]:
    """Returns the weights of the encoder's attention layers as {path of the layer in the module: weights}.

    If layers have stacked parameters (`nn.scan`), their paths end with the index of the layer.
    """
    _, collections = self._apply(variables, x, batch, method="encode", mutable=["attention"])
    leaves = jax.tree_util.tree_leaves_with_path(
      collections.get("attention", {}), is_leaf=lambda x: isinstance(x, tuple)
    )
    maps = {}
    for path, (weights,) in leaves:
      name = "/".join(key.key for key in path[:-1])
      maps |= {name: weights} if weights.ndim == 4 else {f"{name}/{i}": layer for i, layer in enumerate(weights)}
    return maps

  def parameter_count(self) -> int:
    """Returns the number of trained parameters without computing the parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(self.abstract_variables().params))

  def _apply(self, variables, *args, exact=False, **options):
    """Calls a method of the module; if `exact`, arithmetic uses the dtypes of the arrays and not `compute_dtype`."""
    params, state = variables
    dtype = None if exact else COMPUTE_DTYPES[self.compute_dtype]
    if dtype is None:
      return self.module.apply({"params": params, _STATE: state}, *args, **options)
    params, args = cast((params, args), dtype)
    return cast(self.module.apply({"params": params, _STATE: state}, *args, **options), jnp.float32)


def _dropout(keys, train):
  return jax.vmap(jax.random.fold_in, (0, None))(keys, _DROPOUT) if train else None


def build(
  name: Any,
  shape: Sequence[int],
  compute_dtype: Any = "float32",
  *,
  labels: Sequence[int] = (),
  groups: Sequence[Sequence[Any]] = (),
  masked: bool = False,
  value_range: str = "unit",
  **options: Any,
) -> Model:
  """Builds the `Model` described by `config.model`.

  Args:
    name: Name of the model family, a key of FAMILIES.
    shape: Shape of an example.
    compute_dtype: A key of COMPUTE_DTYPES.
    labels: Distinct labels of the training examples; used only by the families in LABELLED.
    groups: Elements of the categories and booleans of a table, (kind, start, stop); see `losses.Groups`.
    masked: Whether the data have a mask of the observed elements; used only by the families in MASKED and by a linear
      path.
    value_range: Range of the examples, a key of `losses.OUTPUT_ACTIVATIONS`; used only by a linear path.
    **options: Options of the family, which are the other keys of `config.model`.

  Raises:
    UserError: An argument is invalid, or the family does not accept examples of this shape.
  """
  errors.choose(COMPUTE_DTYPES, compute_dtype, "compute_dtype")
  errors.choose(FAMILIES, name, "model.name")
  check_kind(name, tuple(shape))
  arguments = [tuple(labels)] if name in LABELLED else [masked] if name in MASKED else []
  options = linear_paths.resolved(options, not groups)
  module = errors.call(FAMILIES, "model", name, tuple(shape), *arguments, **options)
  batch_last = name in BATCH_LAST
  if linear_paths.LINEAR_PATHS[options.get("linear_path", "none")]:
    form = {"value_range": value_range, "masked": masked, "groups": groups, "batch_last": batch_last}
    module = linear_paths.beside(module, tuple(shape), **form)
  return Model(module, tuple(shape), batch_last, compute_dtype, tuple(tuple(group) for group in groups))


@functools.lru_cache(maxsize=256)
def _abstract_variables(model):
  return jax.eval_shape(model.init, jax.random.key(0))
