"""Logistic PCA: a baseline for models with sigmoid outputs on data in [0, 1] (Collins et al. 2002).

The logits of all examples form the matrix Z W + b, where Z has `latent` columns. The latents Z, weights W and bias b
minimise the cross-entropy of the training examples plus a small ridge penalty. The latents of test examples minimise
the same objective for fixed W and b. This optimisation for each example is an advantage over an encoder, which computes
the latents in one pass.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from ae_jax.evaluators import base, reconstruction
from ae_jax.evaluators.context import EvalContext, spaced
from ae_jax.ops import losses

RIDGE = 0.01  # penalty: RIDGE / 2 times the sum of all squared latents and weights is added to the cross-entropy
MAX_LATENT = 128  # maximum latent size
_MAX_ELEMENTS = 2**23  # maximum number of elements in the training examples, and in the test examples
_MAX_SWEEPS = 100  # maximum number of updates of all latents and weights
_TOLERANCE = 1e-5  # the fit stops if a sweep lowers the objective by a smaller fraction
_MAX_CODE_STEPS = 50  # maximum number of Newton steps for the latents of test examples
_INITIAL_EXAMPLES = 5000  # number of training examples whose principal directions initialise the rows of the weights
_INITIAL_SCALE = 4.0  # length of each row of the initial weights
_ROWS = 512  # maximum number of rows whose systems of equations are solved at once


def analyze(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields the nats and squared error of logistic PCA, the model's error relative to it, and statistics of the fit."""
  latent = context.run.model.code.size
  if latent > MAX_LATENT:
    yield (
      "remark",
      f"logistic PCA is not fitted: the latent size of this model is {latent}, and the limit is {MAX_LATENT}",
    )
    return
  indices = reconstruction.trained_class_only(np.arange(len(context.test)), context.dataset)
  count = max(2, _MAX_ELEMENTS // context.test[0].size)
  indices = indices[spaced(count, len(indices))]
  train, test = context.train[spaced(count, len(context.train))], context.test[indices]
  train, test = (examples.reshape(len(examples), -1) for examples in (train, test))
  (_, weights), objectives = fit(train, latent, RIDGE)
  codes, gradients = codes_of(test, weights, RIDGE)
  logits = codes @ weights[:-1] + weights[-1]
  squared_error = float(losses.squared_error(jax.nn.sigmoid(logits), test).mean())
  yield "nats", float(losses.bernoulli_nats(logits, test).mean())
  yield "squared_error", squared_error
  yield "model_over_logistic_pca", reconstruction.ratio(float(context.squared_errors[indices].mean()), squared_error)
  yield "training_examples", len(train)
  yield "test_examples", len(test)
  yield "sweeps", len(objectives)
  yield "largest_gradient_of_a_code", float(gradients.max())


def fit(
  x: Float32[np.ndarray, "examples elements"],
  latent: int,
  ridge: float,
  tolerance: float = _TOLERANCE,
  max_sweeps: int = _MAX_SWEEPS,
) -> tuple[tuple[Float32[np.ndarray, "examples units"], Float32[np.ndarray, "rows elements"]], list[float]]:
  """Fits logistic PCA to examples in [0, 1].

  A sweep is a Newton step of all latents, then a Newton step of all weights. Each step solves linear systems of about
  `latent` equations. A sweep starts from an extrapolation of the last two solutions, or from the last solution if the
  extrapolation would raise the objective.

  Args:
    x: Examples.
    latent: Latent size. If there are few examples, the fit has fewer units.
    ridge: Weight of the penalty; see `RIDGE`.
    tolerance: The fit stops if a sweep lowers the objective by less than this fraction.
    max_sweeps: Maximum number of sweeps.

  Returns:
    ((latents, weights), objectives). The weights are [units + 1, elements], and the last row is the bias. `objectives`
    holds the value of the objective, in nats per example, after each sweep that lowered it.
  """
  start = solution = _initial(x, latent)
  objectives, momentum = [np.inf], 0.0
  for _ in range(max_sweeps):
    candidate, objective = _sweep(start, x, ridge)
    if objective > objectives[-1]:
      if not momentum:
        break
      start, momentum = solution, 0.0
      continue
    momentum = min(0.9, 0.5 + momentum)
    start = tuple(new + momentum * (new - old) for new, old in zip(candidate, solution, strict=True))
    solution = candidate
    objectives.append(objective)
    if objectives[-2] - objectives[-1] < tolerance * objectives[-1]:
      break
  return solution, objectives[1:]


def codes_of(
  x: Float[np.ndarray, "examples elements"], weights: Float32[np.ndarray, "rows elements"], ridge: float
) -> tuple[Float32[np.ndarray, "examples units"], Float32[np.ndarray, " examples"]]:
  """Returns the latents that minimise the objective for fixed weights, and the gradient norm of each example."""
  codes = np.zeros((len(x), len(weights) - 1), np.float32)
  ridges = np.full(codes.shape[1], ridge, np.float32)
  for _ in range(_MAX_CODE_STEPS):
    codes, _, gradients = _newton(codes, x, weights[:-1].T, weights[-1], ridges)
    if float(gradients.max()) < 1e-3:
      break
  return codes, gradients


def _initial(
  x: Float32[np.ndarray, "examples elements"], latent: int
) -> tuple[Float32[np.ndarray, "examples units"], Float32[np.ndarray, "rows elements"]]:
  """Initialises the latents and the weights by PCA.

  Returns:
    The latents, which are whitened principal component scores, and the weights. The last row of the
    weights, the bias, holds the logits of the mean example. The other rows are principal directions of length
    _INITIAL_SCALE.
  """
  mean = x.mean(0)
  # If there are few examples, there are fewer directions than `latent`.
  directions = np.linalg.svd(x[:_INITIAL_EXAMPLES] - mean, full_matrices=False)[2][:latent]
  codes = (x - mean) @ directions.T
  deviations = codes.std(0)
  bias = np.log((mean + 1e-4) / (1.0 - mean + 1e-4))
  weights = np.concatenate([_INITIAL_SCALE * directions, bias[None]]).astype(np.float32)
  return (codes / np.where(deviations > 0.0, deviations, 1.0)).astype(np.float32), weights


def _sweep(solution, x, ridge):
  """Returns the solution after one Newton step of all latents and one of all weights, and its objective per example.

  Between the two steps, the mean code is moved into the bias. This does not change the logits.
  """
  codes, weights = solution
  codes, _, _ = _newton(codes, x, weights[:-1].T, weights[-1], np.full(codes.shape[1], ridge, np.float32))
  mean = codes.mean(0)
  codes, weights = codes - mean, np.concatenate([weights[:-1], weights[-1:] + mean @ weights[:-1]])
  features = np.concatenate([codes, np.ones((len(x), 1), np.float32)], axis=1)
  ridges = np.append(np.full(codes.shape[1], ridge, np.float32), np.float32(0.0))  # the bias has no penalty
  columns, objectives, _ = _newton(weights.T, x.T, features, np.zeros(len(x), np.float32), ridges)
  penalty = 0.5 * ridge * np.square(codes, dtype=np.float64).sum()
  return (codes, columns.T), float((objectives.sum(dtype=np.float64) + penalty) / len(x))


def _newton(
  rows: Float[np.ndarray, "rows units"],
  targets: Float[np.ndarray, "rows columns"],
  features: Float[np.ndarray, "columns units"],
  offset: Float[np.ndarray, " columns"],
  ridges: Float[np.ndarray, " units"],
) -> tuple[Float[np.ndarray, "rows units"], Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
  """Takes an independent Newton step for each row, for the logits rows @ features.T + offset.

  Returns:
    The rows after the step, their objectives, and the norms of their gradients before the step.
  """
  blocks = -(-len(rows) // _ROWS)
  size = -(-len(rows) // blocks)
  results = []
  for start in range(0, len(rows), size):
    indices = np.minimum(np.arange(start, start + size), len(rows) - 1)
    arrays = _newton_block(rows[indices], targets[indices], features, offset, ridges)
    results.append([np.asarray(array)[: len(rows) - start] for array in arrays])
  return tuple(np.concatenate(arrays) for arrays in zip(*results, strict=True))


@jax.jit
def _newton_block(
  rows: Float[Array, "rows units"],
  targets: Float[Array, "rows columns"],
  features: Float[Array, "columns units"],
  offset: Float[Array, " columns"],
  ridges: Float[Array, " units"],
) -> tuple[Array, Array, Array]:
  """Computes `_newton` for at most `_ROWS` rows, so that their systems of equations fit in memory.

  The objective of each row is convex and independent of the other rows. The step of a row is halved until its objective
  does not rise by more than rounding errors.
  """
  size = features.shape[1]
  upper = np.triu_indices(size)
  where = np.zeros((size, size), int)
  where[upper] = where.T[upper] = np.arange(len(upper[0]))

  def objectives(logits, rows):
    cross_entropy = losses.binary_cross_entropy_with_logits(logits, targets).sum(1)
    return cross_entropy + 0.5 * (ridges[None] * jnp.square(rows)).sum(1)  # [R]

  logits = rows @ features.T + offset[None]
  p = jax.nn.sigmoid(logits)
  gradients = (p - targets) @ features + ridges[None] * rows
  curvatures = ((p * (1.0 - p)) @ (features[:, upper[0]] * features[:, upper[1]]))[:, where]  # [R, m, m]
  # The largest ridge bounds the steps where the curvature vanishes; the trace guards against rounding errors.
  shifts = ridges.max() + 1e-6 * jnp.trace(curvatures, axis1=1, axis2=2) / size
  curvatures = curvatures + shifts[:, None, None] * jnp.eye(size)[None]
  factors = jnp.linalg.cholesky(curvatures), True
  directions = -jax.scipy.linalg.cho_solve(factors, gradients[..., None])[..., 0]
  along = directions @ features.T
  bound = objectives(logits, rows) * (1.0 + 1e-6)
  rises = lambda steps: objectives(logits + steps * along, rows + steps * directions) > bound

  def halve(carry):
    steps, rising = carry
    steps = jnp.where(rising[:, None], 0.5 * steps, steps)
    return steps, rises(steps) & (steps[:, 0] > 1e-6)

  steps = jnp.ones((len(rows), 1))
  steps, _ = jax.lax.while_loop(lambda carry: carry[1].any(), halve, (steps, rises(steps)))
  steps = jnp.where(rises(steps)[:, None], 0.0, steps)
  rows = rows + steps * directions
  return rows, objectives(logits + steps * along, rows), jnp.linalg.norm(gradients, axis=1)


EVALUATOR = base.Evaluator(
  name="logistic_pca",
  skipped_without=("complete", "no_targets"),
  analyses=(base.Analysis(analyze, needs=("unit_range",)),),
)
