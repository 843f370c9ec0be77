"""Models with masked latent units, so that models of several latent sizes share one compiled program.

`pad` places the parameters of the smaller model at the beginning of the larger model's, followed by zeros. The result
is the same: a masked unit has zero weights on both sides, its noise is multiplied by zero weights, and it receives no
gradient.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PyTree

from ae_jax.models import Model, Variables
from ae_jax.models.interface import Encoding, Examples, Logits
from ae_jax.types import AnyArray, Columns, Keys


@dataclasses.dataclass(frozen=True, eq=False)
class MaskedModel(Model):
  """A `Model` that uses only some of its latent units and the parameters that belong to them.

  `mask` lists one mask per leaf of the parameters, 1 where the parameter is used and 0 where not; None if all are used.
  """

  latent_mask: Any = None  # float32 [latent]: 1 for units in use, 0 for the others
  mask: Sequence[AnyArray | None] = ()

  def encode(
    self,
    variables: Variables,
    x: Examples,
    batch: Columns | None = None,
    *,
    keys: Keys | None = None,
    train: bool = False,
  ) -> Encoding:
    """Returns the `Encoding` of examples, in which masked latents are 0."""
    encoding = super().encode(variables, x, batch, keys=keys, train=train)
    return encoding._replace(z=self.latent_mask[None] * encoding.z)

  def autoencode(
    self,
    variables: Variables,
    x: Examples,
    batch: Columns | None = None,
    *,
    keys: Keys | None = None,
    train: bool = False,
  ) -> tuple[Encoding, Logits]:
    """Returns the `Encoding`, in which masked latents are 0, and the logits of the reconstructions."""
    encoding, logits = super().autoencode(variables, x, batch, keys=keys, train=train)
    return encoding._replace(z=self.latent_mask[None] * encoding.z), logits

  def _apply(self, variables, *args, **options):
    leaves, tree = jax.tree.flatten(variables.params)
    used = [leaf if mask is None else mask * leaf for leaf, mask in zip(leaves, self.mask, strict=True)]
    return super()._apply(Variables(tree.unflatten(used), variables.state), *args, **options)


def mask_model(model: Model, latent_mask: Float[AnyArray, " latent"], mask: Sequence[AnyArray | None]) -> MaskedModel:
  """Returns the model restricted to some latent units and parameters; see `MaskedModel`."""
  fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(Model)}
  return MaskedModel(**fields, latent_mask=latent_mask, mask=mask)


def pad(tree: PyTree, like: PyTree, latent: int) -> PyTree:
  """Pads NumPy arrays with zeros to the shapes of the larger model.

  Args:
    tree: arrays of the smaller model, such as its parameters.
    like: the same tree of the larger model, arrays or their shapes.
    latent: latent size of the smaller model. An axis whose size differs between the trees holds one or more groups of
      `latent` units, such as the means and the log variances.
  """
  return jax.tree.map(lambda leaf, larger: _resize(leaf, larger.shape, latent), tree, like)


def unpad(tree: PyTree, like: PyTree, latent: int) -> PyTree:
  """Inverts `pad`: cuts the arrays to the shapes of the smaller model, given by `like`."""
  return jax.tree.map(lambda leaf, smaller: _resize(leaf, smaller.shape, latent), tree, like)


def _resize(leaf, shape, latent):
  for axis, (size, new_size) in enumerate(zip(leaf.shape, shape, strict=True)):
    if size != new_size:
      groups = min(size, new_size) // latent
      before, after = leaf.shape[:axis], leaf.shape[axis + 1 :]
      resized = np.zeros((*before, groups, new_size // groups, *after), leaf.dtype)
      units = (slice(None),) * (axis + 1) + (slice(latent),)
      resized[units] = leaf.reshape(*before, groups, size // groups, *after)[units]
      leaf = resized.reshape(*before, new_size, *after)
  return leaf
