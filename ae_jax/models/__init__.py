"""Models: descriptions that are turned into pure functions of (params, arrays).

`encode` takes examples (images [B, H, W, C] or series [B, T, C]) to codes [B, latent], `decode` takes codes to *logits*
of the examples' shape, before the output activation, which belongs to the likelihood (`ae_jax.losses`).
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from ae_jax import errors
from ae_jax.models import convolutional, dense, sequence, transformer, unet

# Each builds the module (see `bottlenecks`) from the shape of an example and the options that config.model gives.
FAMILIES = {
  "attention": transformer.build,
  "cnn": convolutional.build,
  "dense": dense.build,
  "sequence": sequence.build,
  "unet": unet.build,
}

# The families that take examples of one kind only, by the axes of their shape.
AXES = {"attention": 3, "cnn": 3, "sequence": 2, "unet": 3}
_KINDS = {2: "series", 3: "images"}

# Rows whose intermediates a processor's cache holds, measured by experiments/throughput; a family that is not here is
# fastest with the whole batch at once.
ROWS_IN_CACHE = {"attention": 256, "cnn": 64}

# The families whose images lie with the batch as the last axis.
BATCH_LAST = {"cnn", "unet"}

# What the modules compute in: None is the type of their parameters. Parameters, losses and KL stay float32.
COMPUTE_DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Model:
  """A module as pure functions; frozen and hashable, so that it can be a static argument of compiled functions."""

  module: nn.Module
  shape: tuple[int, ...]  # of an example: (H, W, C) of an image, (T, C) of a series
  batch_last: bool  # its reconstructions are transposed from [..., B], for whom that matters
  compute_dtype: str = "float32"  # of COMPUTE_DTYPES
  units = 1.0  # which units of the code there are, [latent]: all

  def init(self, key):
    """Parameters: a nested dict of float32 arrays, a function of the key alone."""
    return self.module.init(key, jnp.zeros((1, *self.shape), jnp.float32))["params"]

  def abstract_params(self):
    """The shapes and types of what `init` gives; nothing is computed."""
    return _abstract_params(self)

  def encode(self, params, x):
    """Examples [B, *shape] in the data's range -> codes [B, latent]."""
    return self.apply("encode", params, x)

  def decode(self, params, z):
    """Codes [B, latent] -> logits [B, *shape]; of what else the decoder saw in training (skips) it gets zeros."""
    return self.apply("decode", params, z)

  def reconstruct(self, params, x):
    """Examples [B, *shape] -> logits [B, *shape] of their reconstructions."""
    return self.apply("__call__", params, x)

  def can(self, method):
    """Whether the module has a method beyond `encode` and `decode`: "posterior" for one."""
    return hasattr(self.module, method)

  def apply(self, method, params, *args):
    """A method of the module on arrays, computed in `compute_dtype`; what goes in and comes out keeps its type."""
    return self._apply(params, *args, method=method)

  def attention(self, params, x):
    """What the attention layers of the encoder look at: examples -> {path of the layer: [B, heads, queries, keys]}.

    Of layers that are stacked the path ends with the number of each.
    """
    _, collections = self._apply(params, x, method="encode", mutable=["attention"])
    found = jax.tree_util.tree_leaves_with_path(
      collections.get("attention", {}), is_leaf=lambda x: isinstance(x, tuple)
    )
    maps = {}
    for path, (weights,) in found:
      name = "/".join(key.key for key in path[:-1])
      maps |= {name: weights} if weights.ndim == 4 else {f"{name}/{i}": layer for i, layer in enumerate(weights)}
    return maps

  def parameter_count(self):
    """How many numbers `init` gives; nothing is computed."""
    return sum(leaf.size for leaf in jax.tree.leaves(self.abstract_params()))

  def _apply(self, params, *args, **options):
    dtype = COMPUTE_DTYPES[self.compute_dtype]
    if dtype is None:
      return self.module.apply({"params": params}, *args, **options)
    params, args = _cast((params, args), dtype)
    return _cast(self.module.apply({"params": params}, *args, **options), jnp.float32)


def build(name, shape, compute_dtype="float32", **options):
  """The `Model` that `config.model` describes, for examples of a shape; UserError for what cannot be built."""
  errors.choose(COMPUTE_DTYPES, compute_dtype, "compute_dtype")
  errors.choose(FAMILIES, name, "model.name")
  if AXES.get(name, len(shape)) != len(shape):
    raise errors.UserError(
      f"config.model.name={name!r} takes {_KINDS[AXES[name]]}; these data are {_KINDS[len(shape)]}"
    )
  module = errors.call(FAMILIES, "model", name, tuple(shape), **options)
  return Model(module, tuple(shape), name in BATCH_LAST, compute_dtype)


@functools.lru_cache(maxsize=256)
def _abstract_params(model):
  return jax.eval_shape(model.init, jax.random.key(0))


def _cast(tree, dtype):
  """The arrays of floating-point numbers of a tree as another type; all else as it is."""

  def cast(leaf):
    return leaf.astype(dtype) if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

  return jax.tree.map(cast, tree)
