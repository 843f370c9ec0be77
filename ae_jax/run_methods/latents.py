"""Methods of `trained_run.Run` for latent codes: posteriors, samples, interpolations and nearest examples."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from ae_jax import errors
from ae_jax.decisions import scores


def posterior(
  run: Any, x: Any, **columns: Any
) -> tuple[Float[np.ndarray, "examples ..."], Float[np.ndarray, "examples ..."]]:
  """Returns the mean and the variance of the posterior of each latent, both float32 [N, *code shape].

  Args:
    run: The run.
    x: Examples [N, *shape].
    **columns: Other inputs of the model; see `encode`.

  Raises:
    UserError: The model has no posterior, or an argument is invalid.
  """
  if not run.model.has_posterior:
    raise errors.UserError(
      "posterior: the latent code of this run is not Gaussian; use encode, or train model='vae' or 'cvae'"
    )
  moments = run.apply("posterior", *run.inputs(x, columns))
  return moments[:, 0], moments[:, 1]


def sample(
  run: Any, n: int, label: Any = None, temperature: float = 1.0, *, seed: int = 0, like: Any = None
) -> Float[np.ndarray, "n ..."]:
  """Decodes random latent codes to examples.

  Args:
    run: The run.
    n: Number of examples.
    label: Labels of a conditional model: one label for all examples, or an array [n].
    temperature: Factor by which the deviations of the latents from their mean are multiplied.
    seed: Seed of the random codes.
    like: Examples. The latents are drawn from a Gaussian mixture that is fitted to the latents of these examples (Ghosh
      et al. 2020); cannot be combined with `label`. None: the latents are drawn from the prior, which only variational
      models have.

  Returns:
    Examples float32 [n, *shape] in the data range of the run.

  Raises:
    UserError: The model has no prior and `like` is None, or an argument is invalid.
  """
  for name, value, fits in (("n", n, isinstance(n, int) and n >= 0), ("temperature", temperature, temperature >= 0)):
    if not fits:
      kind = "an integer" if name == "n" else "a number"
      raise errors.UserError(f"sample: {name}={errors.format_value(value)}: must be {kind} of at least 0")
  if like is not None:
    if label is not None:
      raise errors.UserError("sample: label= and like= cannot be combined; pass only one of the two arguments")
    return run.decode(_from_mixture(run, like, n, temperature, seed))
  columns = {} if label is None else {"label": label}
  if not scores.is_variational(run):
    raise errors.UserError(
      "sample: this run has no prior, because it is not variational; pass examples, such as the training data, as "
      "like=x, or train model='vae'"
    )
  codes = run.model.sample_prior(run.variables, jax.random.key(seed), n)
  return run.decode(np.float32(temperature) * np.asarray(codes), **columns)


def _from_mixture(run: Any, like: Any, n: int, temperature: float, seed: int) -> Float[np.ndarray, "n ..."]:
  """Draws latents from a Gaussian mixture that is fitted to the latents of the examples `like`; see `sample`."""
  from ae_jax.evaluators import densities  # imports scikit-learn

  codes = run.encode(like)
  if len(codes) < 2:
    raise errors.UserError("sample: like= has fewer than 2 examples; pass more, such as the training data")
  mixture = densities.fit(codes.reshape(len(codes), -1))
  drawn = mixture.draw(n, np.random.default_rng(seed))
  drawn = mixture.mean + temperature * (drawn - mixture.mean)
  return nearest_codes(run, drawn.reshape(n, *codes.shape[1:]))


def nearest_codes(run: Any, codes: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n ..."]:
  """Replaces each code [N, *code shape] by the nearest latent code that the encoder can output, float32."""
  limits = run.model.code
  return run.apply("nearest", np.clip(codes, limits.low, limits.high).astype(np.float32), {})


def interpolate(
  run: Any, start: Any, end: Any, steps: int = 8, **columns: Any
) -> Float[np.ndarray, "examples steps ..."]:
  """Interpolates linearly between the latent codes of pairs of examples, and decodes the interpolated codes.

  Args:
    run: The run.
    start: Examples [N, *shape], or one example.
    end: The other example of each pair, [N, *shape], or one example.
    steps: Number of latent codes per pair, including the latent codes of `start` and `end`.
    **columns: Other inputs of a conditional model, such as `label`, used for both `start` and `end`.

  Returns:
    Examples float32 [N, steps, *shape] in the data range of the run.

  Raises:
    UserError: `start` and `end` have different numbers of examples, or an argument is invalid.
  """
  if not isinstance(steps, int) or steps < 2:
    raise errors.UserError(f"interpolate: steps={errors.format_value(steps)}: must be an integer of at least 2")
  first, last = run.encode(start, **columns), run.encode(end, **columns)
  if len(first) != len(last):
    raise errors.UserError(f"interpolate: got {len(first)} start and {len(last)} end examples; pass equal numbers")
  fractions = np.linspace(0.0, 1.0, steps, dtype=np.float32).reshape(1, -1, *[1] * (first.ndim - 1))
  codes = first[:, None] * (1 - fractions) + last[:, None] * fractions
  codes = nearest_codes(run, codes.reshape(-1, *first.shape[1:]))
  given = {
    name: np.asarray(value) for name, value in columns.items() if name != "mask"
  }  # only the encoder reads a mask
  repeated = {name: value if value.ndim == 0 else np.repeat(value, steps, 0) for name, value in given.items()}
  return run.decode(codes, **repeated).reshape(len(first), steps, *run.model.shape)


def nearest(
  run: Any, x: Any, among: Any, count: int = 5, **columns: Any
) -> tuple[Int[np.ndarray, "examples count"], Float[np.ndarray, "examples count"]]:
  """Finds, for each example in `x`, the examples in `among` with the nearest latent codes.

  Args:
    run: The run.
    x: Examples [N, *shape].
    among: Examples [M, *shape] to search, such as the training data.
    count: Number of neighbours per example.
    **columns: Other inputs of the model that are the same for all examples, such as one `label`.

  Returns:
    Indices into `among` and Euclidean distances between the latent codes, both [N, count], nearest first.

  Raises:
    UserError: There are fewer than `count` examples in `among`, or an argument is invalid.
  """
  from sklearn.neighbors import NearestNeighbors

  codes, candidates = run.encode(x, **columns), run.encode(among, **columns)
  if not 1 <= count <= len(candidates):
    raise errors.UserError(
      f"nearest: count={count}: must be from 1 to {len(candidates)}, the number of examples in `among`"
    )
  if not len(codes):
    return np.zeros((0, count), np.int64), np.zeros((0, count), np.float32)
  search = NearestNeighbors(n_neighbors=count).fit(candidates.reshape(len(candidates), -1))
  distances, positions = search.kneighbors(codes.reshape(len(codes), -1))
  return positions, distances.astype(np.float32)
