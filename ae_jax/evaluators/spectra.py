"""Along how many directions codes vary, from the eigenvalues of their covariance; how far a function stretches."""

import jax
import jax.numpy as jnp
import numpy as np

_ROUNDING = 1e-6  # of the largest code: what varies less than this is the noise of float32


def covariance_eigenvalues(codes):
  """Those of the covariance of codes [N, latent], largest first, float64 [min(N, latent)]; of rounding errors 0."""
  centred = codes - codes.mean(0, dtype=np.float64)
  rows, columns = codes.shape
  gram = centred.T @ centred if columns <= rows else centred @ centred.T
  found = np.linalg.eigvalsh(gram)[::-1] / rows
  return np.where(found > (_ROUNDING * np.abs(codes).max()) ** 2, found, 0.0)


def participation_ratio(eigenvalues):
  """(sum of eigenvalues)^2 / sum of their squares: k for k equal ones, 0 where nothing varies."""
  total = eigenvalues.sum()
  return float(1 / np.square(eigenvalues / total).sum()) if total > 0 else 0.0


def effective_rank(eigenvalues):
  """exp of the entropy of the singular values, as shares of their sum (Roy & Vetterli 2007); 0 where nothing varies.

  The singular values are those of the centred codes: roots of the eigenvalues of their covariance.
  """
  singular = np.sqrt(eigenvalues[eigenvalues > 0])
  shares = singular / singular.sum()
  return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0


def encoder_gram(encode, x):
  """J J^T [B, latent, latent] of the Jacobians of `encode` at examples x [B, ...], which it takes each by itself."""
  z, pull = jax.vjp(encode, x)
  return _gram(jax.lax.map(lambda unit: pull(jnp.broadcast_to(unit[None], z.shape))[0], jnp.eye(z.shape[1])))


def decoder_gram(decode, z):
  """J^T J [B, latent, latent] of the Jacobians of `decode` at codes z [B, latent], which it takes each by itself."""
  push = lambda unit: jax.jvp(decode, (z,), (jnp.broadcast_to(unit[None], z.shape),))[1]
  return _gram(jax.lax.map(push, jnp.eye(z.shape[1])))


def _gram(vectors):
  """[latent, B, ...] -> their inner products [B, latent, latent]."""
  vectors = vectors.reshape(*vectors.shape[:2], -1)
  return jnp.einsum("ibe,jbe->bij", vectors, vectors)


def largest_singular_values(gram):
  """Of the Jacobians with these Gram matrices [B, latent, latent]: float64 [B], NaN where one is not finite."""
  finite = np.isfinite(gram).all((1, 2))
  squares = np.linalg.eigvalsh(np.where(finite[:, None, None], gram, 0.0).astype(np.float64))[:, -1]
  return np.where(finite, np.sqrt(np.maximum(squares, 0.0)), np.nan)
