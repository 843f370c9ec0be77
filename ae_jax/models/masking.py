"""A model with a wider code than it uses, so that codes of several sizes share one compiled program.

The parameters of the smaller model lie at the beginning of the larger one's, with zeros behind them (`pad`). What is
computed is the same: a unit of the code that is not there has no weight on either side, its noise falls on rows of
zeros, and no gradient reaches any of them.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from ae_jax.models import Model, Variables


@dataclasses.dataclass(frozen=True, eq=False)
class MaskedModel(Model):
  """A `Model` of which only some units of the code, and the parameters that belong to them, are used.

  `mask` is 1 where the parameters are used and 0 where not, a list beside their leaves: None where all are.
  """

  latent_mask: Any = None  # float32 [latent]: 1 where there is a unit, 0 where not
  mask: Any = ()

  def encode(self, variables, x, given=None, *, keys=None, train=False):
    """Returns the `Encoding` of examples, whose code is 0 where there is no unit."""
    found = super().encode(variables, x, given, keys=keys, train=train)
    return found._replace(z=self.latent_mask[None] * found.z)

  def autoencode(self, variables, x, given=None, *, keys=None, train=False):
    """Returns the `Encoding`, whose code is 0 where there is no unit, and the logits of the reconstructions."""
    found, logits = super().autoencode(variables, x, given, keys=keys, train=train)
    return found._replace(z=self.latent_mask[None] * found.z), logits

  def _apply(self, variables, *args, **options):
    leaves, tree = jax.tree.flatten(variables.params)
    used = [leaf if mask is None else mask * leaf for leaf, mask in zip(leaves, self.mask, strict=True)]
    return super()._apply(Variables(tree.unflatten(used), variables.state), *args, **options)


def mask_model(model, latent_mask, mask):
  """The model with only these units of its code; see `MaskedModel`."""
  fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(Model)}
  return MaskedModel(**fields, latent_mask=latent_mask, mask=mask)


def pad(tree, like, latent):
  """A tree of NumPy arrays as the wider model's, whose shapes `like` has: zeros for the units that are not there.

  An axis on which the two differ holds so many groups (means, then log variances) of `latent` units each.
  """
  return jax.tree.map(lambda leaf, wider: _resized(leaf, wider.shape, latent), tree, like)


def unpad(tree, like, latent):
  """The inverse of `pad`: of each array the units that are there; `like` has the smaller model's shapes."""
  return jax.tree.map(lambda leaf, smaller: _resized(leaf, smaller.shape, latent), tree, like)


def _resized(leaf, shape, latent):
  for axis, (size, wanted) in enumerate(zip(leaf.shape, shape, strict=True)):
    if size != wanted:
      groups = min(size, wanted) // latent
      before, after = leaf.shape[:axis], leaf.shape[axis + 1 :]
      resized = np.zeros((*before, groups, wanted // groups, *after), leaf.dtype)
      kept = (slice(None),) * (axis + 1) + (slice(latent),)
      resized[kept] = leaf.reshape(*before, groups, size // groups, *after)[kept]
      leaf = resized.reshape(*before, wanted, *after)
  return leaf
