"""Spectra of the covariance of latent codes, and of the Jacobians of the encoder and decoder."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from ae_jax.types import AnyArray

_ROUNDING = 1e-6  # standard deviations below this fraction of the largest latent are float32 rounding errors


def covariance_eigenvalues(codes: Float[np.ndarray, "examples latent"]) -> Float64[np.ndarray, " directions"]:
  """Returns the min(examples, latent) largest eigenvalues of the covariance of latent codes, in descending order.

  Eigenvalues that differ from 0 only by rounding errors are returned as 0.
  """
  centred = codes - codes.mean(0, dtype=np.float64)
  rows, columns = codes.shape
  gram = centred.T @ centred if columns <= rows else centred @ centred.T
  eigenvalues = np.linalg.eigvalsh(gram)[::-1] / rows
  return np.where(eigenvalues > (_ROUNDING * np.abs(codes).max()) ** 2, eigenvalues, 0.0)


def participation_ratio(eigenvalues: Float64[np.ndarray, " directions"]) -> float:
  """Returns the participation ratio, (sum of eigenvalues)^2 / (sum of squared eigenvalues).

  It is k if k eigenvalues are equal and all others are 0. It is 0 if all eigenvalues are 0.
  """
  total = eigenvalues.sum()
  return float(1 / np.square(eigenvalues / total).sum()) if total > 0 else 0.0


def effective_rank(eigenvalues: Float64[np.ndarray, " directions"]) -> float:
  """Returns the effective rank, exp(entropy of the normalised singular values) (Roy & Vetterli 2007).

  The singular values of the centred latents are proportional to the square roots of the eigenvalues of their
  covariance. The effective rank is 0 if all eigenvalues are 0.
  """
  singular = np.sqrt(eigenvalues[eigenvalues > 0])
  shares = singular / singular.sum()
  return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0


def encoder_gram(encode: Callable, x: Float[AnyArray, "batch ..."]) -> Float[Array, "batch latent latent"]:
  """Returns J J^T for the Jacobian J of `encode` at each example.

  `encode` must process examples independently.
  """
  z, pull = jax.vjp(encode, x)
  return _gram(jax.lax.map(lambda unit: pull(jnp.broadcast_to(unit[None], z.shape))[0], jnp.eye(z.shape[1])))


def decoder_gram(decode: Callable, z: Float[AnyArray, "batch latent"]) -> Float[Array, "batch latent latent"]:
  """Returns J^T J for the Jacobian J of `decode` at each latent code.

  `decode` must not mix the latent codes of a batch.
  """
  push = lambda unit: jax.jvp(decode, (z,), (jnp.broadcast_to(unit[None], z.shape),))[1]
  return _gram(jax.lax.map(push, jnp.eye(z.shape[1])))


def _gram(vectors: Float[Array, "latent batch ..."]) -> Float[Array, "batch latent latent"]:
  """Returns the matrix of the inner products of each example's vectors."""
  vectors = vectors.reshape(*vectors.shape[:2], -1)
  return jnp.einsum("ibe,jbe->bij", vectors, vectors)


def largest_singular_values(gram: Float[np.ndarray, "batch latent latent"]) -> Float64[np.ndarray, " batch"]:
  """Returns the largest singular value of the Jacobian of each example; NaN if the Gram matrix is not finite.

  `gram` is the result of `encoder_gram` or `decoder_gram`.
  """
  finite = np.isfinite(gram).all((1, 2))
  squares = np.linalg.eigvalsh(np.where(finite[:, None, None], gram, 0.0).astype(np.float64))[:, -1]
  return np.where(finite, np.sqrt(np.maximum(squares, 0.0)), np.nan)
