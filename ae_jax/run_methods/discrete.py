"""Methods of `trained_run.Run` for models with a discrete latent code."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int32

from ae_jax import errors
from ae_jax.types import AnyArray


def encode_indices(run: Any, x: Any, **columns: Any) -> Int32[np.ndarray, "examples ..."]:
  """Returns the codebook indices of examples, for a model with a discrete latent code.

  Args:
    run: The run.
    x: Examples [N, *shape].
    **columns: Other inputs of a conditional model, such as `label`.

  Returns:
    Indices int32 [N, *index shape].

  Raises:
    UserError: The latent code is not discrete, or an argument is invalid.
  """
  if run.model.code.levels is None:
    raise errors.UserError(
      "encode_indices: the latent code of this run is continuous, not discrete; use encode, or train a model with a "
      "quantised latent code (configs/vqvae.py, or config.model.bottleneck='fsq5')"
    )
  return run.apply("indices", *run.inputs(x, columns))


def decode_indices(run: Any, indices: AnyArray, **columns: Any) -> Float[np.ndarray, "examples ..."]:
  """Decodes codebook indices to examples, for a model with a discrete latent code.

  Args:
    run: The run.
    indices: Integers [N, *index shape], as returned by `encode_indices`.
    **columns: Other inputs of a conditional model, such as `label`.

  Returns:
    Examples float32 [N, *shape] in the data range of the run.

  Raises:
    UserError: The latent code is not discrete, or an argument is invalid.
  """
  code, indices = run.model.code, np.asarray(indices)
  if code.levels is None:
    raise errors.UserError("decode_indices: the latent code of this run is continuous, not discrete; use decode")
  if indices.shape == code.index_shape:
    indices = indices[None]
  if indices.shape[1:] != code.index_shape or not np.issubdtype(indices.dtype, np.integer):
    wanted = ", ".join(map(str, code.index_shape))
    raise errors.UserError(
      f"indices: have dtype {indices.dtype} and shape {indices.shape}; must be integers of shape [N, {wanted}]"
    )
  if indices.size and not 0 <= indices.min() <= indices.max() < code.levels:
    raise errors.UserError(
      f"indices: range from {indices.min()} to {indices.max()}; must be from 0 to {code.levels - 1}"
    )
  return run.decode(run.apply("lookup", indices.astype(np.int32), {}), **columns)
