"""Models: descriptions that are turned into pure functions of (params, arrays).

`encode` takes examples (images [B, H, W, C] or series [B, T, C]) to codes [B, latent], `decode` takes codes to *logits*
of the examples' shape, before the output activation, which belongs to the likelihood (`ae_jax.losses`).
"""

import dataclasses

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
ROWS_IN_CACHE = {"cnn": 64}


@dataclasses.dataclass(frozen=True)
class Model:
  """A module as pure functions; frozen and hashable, so that it can be a static argument of compiled functions."""

  module: nn.Module
  shape: tuple[int, ...]  # of an example: (H, W, C) of an image, (T, C) of a series

  def init(self, key):
    """Parameters: a nested dict of float32 arrays, a function of the key alone."""
    return self.module.init(key, jnp.zeros((1, *self.shape), jnp.float32))["params"]

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
    """A method of the module on arrays."""
    return self.module.apply({"params": params}, *args, method=method)

  def attention(self, params, x):
    """What the attention layers of the encoder look at: examples -> {path of the layer: [B, heads, queries, keys]}."""
    _, collections = self.module.apply({"params": params}, x, method="encode", mutable=["attention"])
    found = jax.tree_util.tree_leaves_with_path(
      collections.get("attention", {}), is_leaf=lambda x: isinstance(x, tuple)
    )
    return {"/".join(key.key for key in path[:-1]): weights for path, (weights,) in found}

  def parameter_count(self):
    """How many numbers `init` gives; nothing is computed."""
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(self.init, jax.random.key(0))))


def build(name, shape, **options):
  """The `Model` that `config.model` describes, for examples of a shape; UserError for what cannot be built."""
  if AXES.get(name, len(shape)) != len(shape):
    raise errors.UserError(
      f"config.model.name={name!r} takes {_KINDS[AXES[name]]}; these data are {_KINDS[len(shape)]}"
    )
  return Model(errors.call(FAMILIES, "model", name, tuple(shape), **options), tuple(shape))
