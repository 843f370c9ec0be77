"""Models: frozen descriptions, whose methods are pure functions of (variables, arrays).

`encode` maps examples (images [B, H, W, C] or series [B, T, C]) to their `Encoding`, `decode` maps codes to *logits* of
the examples' shape, before the output activation, which belongs to the likelihood (`ae_jax.ops.losses`).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from ae_jax import errors
from ae_jax.models import convolutional, cvae, dense, sequence, transformer, unet, vqvae
from ae_jax.models.interface import AutoencoderModule, CodeSpec, Columns, Encoding, Gaussian, Variables
from ae_jax.system import compat

__all__ = ["AutoencoderModule", "CodeSpec", "Encoding", "Gaussian", "Model", "Variables", "build"]

compat.install()

# Each builds the module (see `bottlenecks`) from the shape of an example and the options that config.model gives.
FAMILIES = {
  "attention": transformer.build,
  "cnn": convolutional.build,
  "cvae": cvae.build,
  "dense": dense.build,
  "sequence": sequence.build,
  "unet": unet.build,
  "vqvae": vqvae.build,
}

# The families that take examples of one kind only, by the axes of their shape.
AXES = {"attention": 3, "cnn": 3, "sequence": 2, "unet": 3, "vqvae": 3}
_KINDS = {2: "series", 3: "images"}

# Rows whose intermediates a processor's cache holds, measured by experiments/throughput; a family that is not here is
# fastest with the whole batch at once.
ROWS_IN_CACHE = {"attention": 256, "cnn": 64, "vqvae": 64}

# The families that are conditioned on labels; their builders take the distinct labels after the shape.
LABELLED = {"cvae"}

# The families whose images lie with the batch as the last axis.
BATCH_LAST = {"cnn", "unet", "vqvae"}

# What the modules compute in: None is the type of their parameters. Parameters, losses and KL stay float32.
COMPUTE_DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


_STATE = "state"  # Flax's collection of `Variables.state`
_DROPOUT = 0xD0  # folded into an example's key, so that dropout is independent of the objective's noise


@dataclasses.dataclass(frozen=True)
class Model:
  """A module as pure functions; frozen and hashable, so that it can be a static argument of compiled functions.

  `given` is the batch that the examples belong to. Of its columns the model uses those that `columns` names, and
  `weight`, 0 for padding. `keys` holds a random key for each example; only `train` uses them, for dropout.
  """

  module: AutoencoderModule
  shape: tuple[int, ...]  # of an example: (H, W, C) of an image, (T, C) of a series
  batch_last: bool  # whether the module computes with the batch as the last axis
  compute_dtype: str = "float32"  # of COMPUTE_DTYPES
  latent_mask = 1.0  # mask [latent] of the latent units in use; 1.0: all

  @property
  def code(self) -> CodeSpec:
    """The shape and the kind of the latent code."""
    return self.module.code_spec

  @property
  def columns(self) -> tuple[str, ...]:
    """The columns of a batch that the model needs besides x."""
    return self.module.columns

  @property
  def labels(self) -> tuple[int, ...]:
    """The labels that the column "label" numbers, in this order; () for a model without labels."""
    return self.module.labels

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
    """True if the decoder of `reconstruct` also receives skip connections."""
    return self.module.has_skips

  def init(self, key: jax.Array) -> Variables:
    """Returns the variables before the first step, float32 arrays, as a function of the key alone."""
    given = {name: jnp.zeros((1,), jnp.int32) for name in self.columns} | {"weight": jnp.ones((1,), jnp.float32)}
    found = self.module.init(key, jnp.zeros((1, *self.shape), jnp.float32), given)
    return Variables(found.get("params", {}), found.get(_STATE, {}))

  def abstract_variables(self) -> Variables:
    """Returns the shapes and types of what `init` returns; nothing is computed."""
    return _abstract_variables(self)

  def encode(self, variables, x, given: Columns | None = None, *, keys=None, train=False) -> Encoding:
    """Returns the `Encoding` of examples [B, *shape] in the data's range."""
    return self.apply("encode", variables, x, given, _dropout(keys, train))

  def decode(self, variables, z, given: Columns | None = None, *, keys=None, train=False) -> jax.Array:
    """Returns the logits [B, *shape] of codes [B, *code shape]; a decoder with skips gets zeros for them."""
    return self.apply("decode", variables, z, given, _dropout(keys, train))

  def autoencode(self, variables, x, given: Columns | None = None, *, keys=None, train=False):
    """Returns the `Encoding` of examples [B, *shape] and the logits [B, *shape] of their reconstructions."""
    return self.apply("__call__", variables, x, given, _dropout(keys, train))

  def reconstruct(self, variables, x, given: Columns | None = None) -> jax.Array:
    """Returns the logits [B, *shape] of the reconstructions of examples [B, *shape]."""
    return self.autoencode(variables, x, given)[1]

  def nearest_codes(self, variables, z) -> jax.Array:
    """Returns the codes nearest to z, which are within the bounds of the code, that the encoder can output."""
    return self._apply(variables, z, method="nearest_codes", exact=True)

  def lookup(self, variables, indices) -> jax.Array:
    """Returns the code z [B, *code shape] of discrete latents int [B, *index_shape]."""
    return self._apply(variables, indices, method="lookup", exact=True)

  def log_prior(self, variables, z) -> jax.Array:
    """Returns the log density [B] of the prior at codes, in nats."""
    return self._apply(variables, z, method="log_prior", exact=True)

  def sample_prior(self, variables, key, count: int) -> jax.Array:
    """Returns `count` codes from the prior."""
    return self._apply(variables, key, count, method="sample_prior", exact=True)

  def kl_to_prior(self, variables, posterior: Gaussian, z) -> jax.Array:
    """Returns the KL divergence [B, ...] in nats of a posterior, of which z is a sample, from the prior."""
    return self._apply(variables, posterior, z, method="kl_to_prior", exact=True)

  def update_state(self, state, sums):
    """Returns the next state from the sums of `Encoding.statistics` over all examples of a step."""
    return self.module.update_state(state, sums)

  def project(self, params):
    """Returns the parameters after an update, projected onto the model's constraint set."""
    return self.module.project(params)

  def apply(self, method, variables, *args):
    """Calls a method of the module, computed in `compute_dtype`; inputs and results keep their types."""
    return self._apply(variables, *args, method=method)

  def attention(self, variables, x, given=None):
    """Returns the weights of the encoder's attention layers: {path of the layer: [B, heads, queries, keys]}.

    The path of a stacked layer ends with its number.
    """
    _, collections = self._apply(variables, x, given, method="encode", mutable=["attention"])
    found = jax.tree_util.tree_leaves_with_path(
      collections.get("attention", {}), is_leaf=lambda x: isinstance(x, tuple)
    )
    maps = {}
    for path, (weights,) in found:
      name = "/".join(key.key for key in path[:-1])
      maps |= {name: weights} if weights.ndim == 4 else {f"{name}/{i}": layer for i, layer in enumerate(weights)}
    return maps

  def parameter_count(self) -> int:
    """Returns how many numbers gradients train; nothing is computed."""
    return sum(leaf.size for leaf in jax.tree.leaves(self.abstract_variables().params))

  def _apply(self, variables, *args, exact=False, **options):
    """Calls a method of the module; `exact` computes in the type of the arrays, whatever `compute_dtype` is."""
    params, state = variables
    dtype = None if exact else COMPUTE_DTYPES[self.compute_dtype]
    if dtype is None:
      return self.module.apply({"params": params, _STATE: state}, *args, **options)
    params, args = _cast((params, args), dtype)
    return _cast(self.module.apply({"params": params, _STATE: state}, *args, **options), jnp.float32)


def _dropout(keys, train):
  return jax.vmap(jax.random.fold_in, (0, None))(keys, _DROPOUT) if train else None


def build(name, shape, compute_dtype="float32", labels=(), **options):
  """Returns the `Model` that `config.model` describes; UserError for what cannot be built.

  Args:
    name: a key of FAMILIES.
    shape: of an example.
    compute_dtype: a key of COMPUTE_DTYPES.
    labels: the distinct labels of the training examples, for a family of LABELLED.
    **options: those of the family.
  """
  errors.choose(COMPUTE_DTYPES, compute_dtype, "compute_dtype")
  errors.choose(FAMILIES, name, "model.name")
  if AXES.get(name, len(shape)) != len(shape):
    raise errors.UserError(
      f"config.model.name={name!r} takes {_KINDS[AXES[name]]}; these data are {_KINDS[len(shape)]}"
    )
  arguments = (tuple(shape), tuple(labels)) if name in LABELLED else (tuple(shape),)
  module = errors.call(FAMILIES, "model", name, *arguments, **options)
  return Model(module, tuple(shape), name in BATCH_LAST, compute_dtype)


@functools.lru_cache(maxsize=256)
def _abstract_variables(model):
  return jax.eval_shape(model.init, jax.random.key(0))


def _cast(tree, dtype):
  """The arrays of floating-point numbers of a tree as another type; all else as it is."""

  def cast(leaf):
    is_array = isinstance(leaf, jax.Array | np.ndarray)
    return leaf.astype(dtype) if is_array and jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

  return jax.tree.map(cast, tree)
