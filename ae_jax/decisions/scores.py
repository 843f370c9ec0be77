"""Anomaly scores of examples: reconstruction errors, distances of latent codes, and the negative ELBO.

`KINDS` maps the name of each kind of score to its function. Scores are large for examples that differ from the training
data. Some kinds compare examples with a `Reference`, which is measured on training examples.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from ae_jax import errors, models, objectives
from ae_jax.models import inference
from ae_jax.objectives import bounds
from ae_jax.ops import losses
from ae_jax.types import Columns

NEIGHBOURS = 5  # the kNN score is the distance to the neighbour of this rank (Ramaswamy et al. 2000; Sun et al. 2022)
_RIDGE = 1e-6  # fraction of the mean variance that is added to the variance in every direction
_FLOOR = 1e-3  # fraction of the mean error that is added to the error of every element
_SAMPLES = 32  # number of posterior samples for the negative ELBO


class Inputs(NamedTuple):
  """Examples as the model receives them, and the targets with which their reconstructions are compared."""

  x: Float32[np.ndarray, "examples ..."]
  target: Float32[np.ndarray, "examples ..."]  # the same array as `x` if there are no targets
  mask: Bool[np.ndarray, "examples ..."] | None  # True for observed elements; None if all are observed
  columns: Columns  # other inputs of the model

  @property
  def has_target(self) -> bool:
    """True if the reconstructions are compared with targets instead of `x`."""
    return self.target is not self.x


class Reference(NamedTuple):
  """Errors and latent codes of training examples, which some kinds of scores need; stored in reference.npz."""

  element_errors: Float32[np.ndarray, "..."]  # squared error of each element, averaged over the training examples
  codes: Float32[np.ndarray, "train latents"]  # flattened latent codes

  @property
  def is_finite(self) -> bool:
    """True if all errors and latent codes are finite."""
    return bool(np.isfinite(self.element_errors).all() and np.isfinite(self.codes).all())


class Kind(NamedTuple):
  """A kind of anomaly score."""

  words: str  # description for the user
  function: Callable[[Any, Inputs, Reference | None], Float[np.ndarray, " examples"]]
  needs_reference: bool
  reads_target: bool


def of_kind(
  run: Any, inputs: Inputs, kind: str, reference: Callable[[], Reference]
) -> Float32[np.ndarray, " examples"]:
  """Computes the scores of examples.

  Args:
    run: A `trained_run.Run`.
    inputs: The examples.
    kind: A key of `KINDS`.
    reference: Function that returns the reference statistics of the run; it is called only if the kind needs them.

  Raises:
    UserError: The kind is unknown, or the model does not support it.
  """
  chosen = of_run(run, kind)
  return chosen.function(run, inputs, reference() if chosen.needs_reference else None).astype(np.float32)


def choose(kind: str) -> Kind:
  """Returns `KINDS[kind]`; raises UserError if the name is unknown."""
  if kind not in KINDS:
    raise errors.UserError(f"kind={kind!r}: is not a kind of score; {errors.list_known(kind, KINDS)}")
  return KINDS[kind]


def of_run(run: Any, kind: str) -> Kind:
  """Returns `KINDS[kind]`; raises UserError if the name is unknown or the model does not support this kind."""
  chosen = choose(kind)
  if chosen.function is _negative_elbo and not is_variational(run):
    raise errors.UserError(
      "kind='negative_elbo': this run is not variational; use another kind, or train model='vae' or 'cvae'"
    )
  return chosen


def check_target(kind: str, target: Any) -> None:
  """Raises UserError if there are targets, but this kind of score does not use targets."""
  if target is not None and not choose(kind).reads_target:
    raise errors.UserError(f"target=: kind={kind!r} reads no targets; remove target, or use kind='reconstruction'")


def make_reference(run: Any, parts: Iterable[Inputs]) -> Reference:
  """Computes the reference statistics from training examples; see `checked_reference` for a version with checks.

  An element that is never observed gets the mean error of the other elements. The reference is not finite if the
  outputs of the model are not finite.
  """
  sums, observed, codes = np.zeros(run.model.shape), np.zeros(run.model.shape), []
  for inputs in parts:
    sums += squares(run, inputs).sum(0, dtype=np.float64)
    observed += len(inputs.x) if inputs.mask is None else inputs.mask.sum(0)
    codes.append(_codes(run, inputs))
  means, known = sums / np.maximum(observed, 1), observed > 0
  others = means[known].mean() if known.any() else 0.0
  return Reference(np.where(known, means, others).astype(np.float32), np.concatenate(codes))


def checked_reference(run: Any, parts: Iterable[Inputs]) -> Reference:
  """Computes the reference statistics from training examples and checks them; see `make_reference`.

  Raises:
    UserError: There are fewer than 2 examples, or the outputs of the model are not finite.
  """
  found = make_reference(run, parts)
  if len(found.codes) < 2:
    raise errors.UserError("the scores are compared with training examples and need at least 2 of them; pass more")
  if not found.is_finite:
    raise errors.UserError(
      "the scores are compared with training examples, for which the outputs of this model are not finite; train again "
      "with a smaller config.optimizer.learning_rate"
    )
  return found


def squares(run: Any, inputs: Inputs) -> Float32[np.ndarray, "examples ..."]:
  """Returns the squared reconstruction error of each element; 0 for elements that were not observed."""
  found = np.square(run.apply("reconstruct", inputs.x, inputs.columns) - inputs.target)
  return found if inputs.mask is None else found * inputs.mask


def normalised_squares(run: Any, inputs: Inputs, reference: Reference) -> Float64[np.ndarray, "examples ..."]:
  """Returns the squared error of each element, divided by the mean squared error of this element in training examples.

  The divisor is increased by 0.001 times the mean training error over all elements, because the training error of an
  element can be 0.
  """
  scale = reference.element_errors.astype(np.float64)
  return squares(run, inputs) / (scale + (_FLOOR * scale.mean() or 1.0))


class Moments(NamedTuple):
  """Mean and covariance of latent codes."""

  mean: Float64[np.ndarray, " latents"]
  covariance: Float64[np.ndarray, "latents latents"]


def moments(train_codes: Float[np.ndarray, "train latents"]) -> Moments:
  """Returns the mean and the covariance of training codes.

  A millionth of the mean variance is added to the diagonal of the covariance. Otherwise a direction in which the
  training latents do not vary would dominate the Mahalanobis distance.
  """
  mean = train_codes.mean(0, dtype=np.float64)
  centred = train_codes - mean
  covariance = centred.T @ centred / max(1, len(centred) - 1)
  size = len(covariance)
  covariance += (_RIDGE * np.trace(covariance) / size or 1.0) * np.eye(size)
  return Moments(mean, covariance)


def distances(codes: Float[np.ndarray, "examples latents"], of_training: Moments) -> Float64[np.ndarray, " examples"]:
  """Returns the Mahalanobis distances of latent codes to the mean of the training codes."""
  offsets = codes - of_training.mean
  return np.sqrt(np.einsum("nk,nk->n", offsets, np.linalg.solve(of_training.covariance, offsets.T).T))


def mahalanobis(
  codes: Float[np.ndarray, "examples latents"], train_codes: Float[np.ndarray, "train latents"]
) -> Float64[np.ndarray, " examples"]:
  """Returns the Mahalanobis distances of latent codes to the mean of the training latents; see `moments`."""
  return distances(codes, moments(train_codes))


def neighbour_distances(
  codes: Float[np.ndarray, "examples latents"], train_codes: Float[np.ndarray, "train latents"]
) -> Float[np.ndarray, " examples"]:
  """Returns the Euclidean distance of each latent code to its k-th nearest training code, with k = `NEIGHBOURS`.

  The distance is NaN for a code that is not finite.
  """
  from sklearn.neighbors import NearestNeighbors

  if not len(codes):
    return np.zeros(0)
  distances, valid = np.full(len(codes), np.nan), np.isfinite(codes).all(1)
  if valid.any():
    search = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(train_codes))).fit(train_codes)
    distances[valid] = search.kneighbors(codes[valid])[0][:, -1]
  return distances


def _reconstruction(run: Any, inputs: Inputs, reference: Reference | None) -> Float[np.ndarray, " examples"]:
  found = run.apply("reconstruct", inputs.x, inputs.columns)
  factors = () if inputs.mask is None else (inputs.mask.astype(np.float32),)
  return np.asarray(losses.squared_error(found, inputs.target, *factors))


def _normalised(run: Any, inputs: Inputs, reference: Reference | None) -> Float[np.ndarray, " examples"]:
  assert reference is not None  # ensured by `Kind.needs_reference`
  found = normalised_squares(run, inputs, reference)
  return found.sum(tuple(range(1, found.ndim)))


def _mahalanobis(run: Any, inputs: Inputs, reference: Reference | None) -> Float[np.ndarray, " examples"]:
  assert reference is not None
  return mahalanobis(_codes(run, inputs), reference.codes)


def _knn(run: Any, inputs: Inputs, reference: Reference | None) -> Float[np.ndarray, " examples"]:
  assert reference is not None
  return neighbour_distances(_codes(run, inputs), reference.codes)


def _codes(run: Any, inputs: Inputs) -> Float32[np.ndarray, "examples latents"]:
  """Returns the flattened latent codes of examples."""
  return run.apply("encode", inputs.x, inputs.columns).reshape(len(inputs.x), run.model.code.size)


def _negative_elbo(run: Any, inputs: Inputs, reference: Reference | None) -> Float[np.ndarray, " examples"]:
  """Returns the negative ELBO in nats (Kingma and Welling 2014, equation 2); the KL divergence has weight 1."""
  if inputs.mask is not None or inputs.has_target:
    raise errors.UserError(
      "kind='negative_elbo': does not support a mask, targets or missing values; use kind='reconstruction'"
    )
  objective = run.config.objective
  options = {"likelihood": objective.likelihood, "noise": objective.noise}
  function = functools.partial(_elbo_of_batch, model=run.model, value_range=run.config.data.range, **options)
  size = inference.batch_size(run.model.shape)
  return -inference.in_batches(function, run.variables, inputs.x, inputs.columns, size)


@functools.partial(jax.jit, static_argnames=("model", "value_range", "likelihood", "noise"))
def _elbo_of_batch(
  variables: models.Variables,
  x: jax.Array,
  columns: Columns,
  *,
  model: models.Model,
  value_range: str,
  likelihood: str,
  noise: float,
) -> jax.Array:
  """Returns the ELBO of each example.

  All examples use the same random key, so the score of an example does not depend on the other examples.
  """
  keys = jax.numpy.broadcast_to(jax.random.key(0), len(x))
  log_p = functools.partial(bounds.log_likelihood, model, value_range=value_range, likelihood=likelihood, noise=noise)
  weigh = functools.partial(bounds.log_weights, model, log_likelihood=log_p, samples=_SAMPLES)
  return weigh(variables, x, columns, keys).mean(-1)


def is_variational(run: Any) -> bool:
  """Returns whether the run is variational: the model has a posterior, and its objective samples from it."""
  return run.model.has_posterior and objectives.OBJECTIVES[run.config.objective.name].samples_posterior


KINDS = {
  "reconstruction": Kind("squared reconstruction error", _reconstruction, False, True),
  "normalised": Kind("squared error relative to the training error of each element", _normalised, True, True),
  "mahalanobis": Kind("Mahalanobis distance of the latent code", _mahalanobis, True, False),
  "knn": Kind(f"distance to the nearest training code number {NEIGHBOURS}", _knn, True, False),
  "negative_elbo": Kind("negative ELBO in nats", _negative_elbo, False, False),
}
