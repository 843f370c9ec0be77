"""Models with masked latent units, so that models of several latent sizes share one compiled program.

`pad` copies the parameters of a smaller model into arrays with the shapes of a larger model and sets all other elements
to zero. The padded model gives the same results as the smaller model. A masked unit has zero input and output weights,
so its noise has no effect, and it receives no gradient.
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
  """A `Model` that uses only some of its latent units, without the parameters of the other units.

  `mask` holds one array for each leaf of the parameters: 1 for parameters in use and 0 for the rest. None means that
  the whole leaf is in use.
  """

  latent_mask: Any = None  # float32 [latent]: 1 for units in use, 0 for the rest
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
    """Returns the `Encoding` of examples, with masked latents set to 0."""
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
    """Returns the `Encoding`, with masked latents set to 0, and the logits of the reconstructions."""
    encoding, logits = super().autoencode(variables, x, batch, keys=keys, train=train)
    return encoding._replace(z=self.latent_mask[None] * encoding.z), logits

  def _apply(self, variables, *args, **options):
    leaves, tree = jax.tree.flatten(variables.params)
    used = [leaf if mask is None else mask * leaf for leaf, mask in zip(leaves, self.mask, strict=True)]
    return super()._apply(Variables(jax.tree.unflatten(tree, used), variables.state), *args, **options)


def mask_model(model: Model, latent_mask: Float[AnyArray, " latent"], mask: Sequence[AnyArray | None]) -> MaskedModel:
  """Returns the model with the given masks of latent units and parameters; see `MaskedModel`."""
  fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(Model)}
  return MaskedModel(**fields, latent_mask=latent_mask, mask=mask)


def pad(tree: PyTree, like: PyTree, latent: int) -> PyTree:
  """Pads the NumPy arrays of a smaller model with zeros to the shapes of a larger model.

  Args:
    tree: Arrays of the smaller model, e.g. its parameters.
    like: The same tree for the larger model, with arrays or abstract arrays as leaves.
    latent: Latent size of the smaller model. An axis whose size differs between the trees holds one or more groups of
      `latent` units, e.g. the means and the log variances; each group is padded.
  """
  return jax.tree.map(lambda leaf, larger: _resize(leaf, larger.shape, latent), tree, like)


def unpad(tree: PyTree, like: PyTree, latent: int) -> PyTree:
  """Inverts `pad`: crops arrays of the larger model to the shapes in `like`, the same tree for the smaller model."""
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
