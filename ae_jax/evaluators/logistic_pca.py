"""PCA for data in [0, 1]: what a model is held against whose outputs are sigmoids (Collins et al. 2002).

The logits of all examples are a matrix of rank `latent` and a bias, Z W + b; codes, weights and bias minimise the
cross-entropy, and so do the codes of test examples, given the weights. They are searched for, example by example, which
is more than an encoder may do that gives them in one pass.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ae_jax.evaluators import base, reconstruction
from ae_jax.evaluators.context import shown
from ae_jax.ops import losses

RIDGE = 0.01  # half of it times the squares of codes and weights is added to the cross-entropy of all examples
MOST_LATENT = 128
_MOST_NUMBERS = 2**23  # in the examples that it is fitted on, and in those that it is tested on
_MOST_SWEEPS = 100
_ENOUGH = 1e-5  # the share of the objective that a sweep must take off for another one
_CODE_STEPS = 50  # of Newton, at most, for the codes of test examples
_STARTING = 5000  # training examples whose principal directions the fit starts from
_STEEP = 4.0  # the length of these directions among the logits
_ROWS = 512  # whose systems of equations are solved at once


def analyze(context):
  """Generates its nats and squared error per test example, the model's error beside it, and how well it was fitted."""
  latent = context.run.model.code.numbers
  if latent > MOST_LATENT:
    yield "remark", f"logistic PCA is fitted for codes of up to {MOST_LATENT} numbers, and not of {latent}"
    return
  numbers = reconstruction.typical(np.arange(len(context.test)), context.dataset)
  most = max(2, _MOST_NUMBERS // context.test[0].size)
  numbers = numbers[shown(most, len(numbers))]
  train, test = context.train[shown(most, len(context.train))], context.test[numbers]
  train, test = (examples.reshape(len(examples), -1) for examples in (train, test))
  (_, weights), objectives = fit(train, latent, RIDGE)
  codes, gradients = codes_of(test, weights, RIDGE)
  logits = codes @ weights[:-1] + weights[-1]
  squared_error = float(losses.squared_error(jax.nn.sigmoid(logits), test).mean())
  yield "nats", float(losses.bernoulli_nats(logits, test).mean())
  yield "squared_error", squared_error
  yield "model_over_logistic_pca", reconstruction.ratio(float(context.squared_errors[numbers].mean()), squared_error)
  yield "training_examples", len(train)
  yield "test_examples", len(test)
  yield "sweeps", len(objectives)
  yield "largest_gradient_of_a_code", float(gradients.max())


def fit(x, latent, ridge, enough=_ENOUGH, most_sweeps=_MOST_SWEEPS):
  """Fits it to x [N, D] in [0, 1]: ((codes [N, latent], weights and below them the bias [latent + 1, D]), objectives).

  The objective, in nats per example, is that after each sweep: a Newton step of all codes and one of all weights, which
  are systems of `latent` equations for each example and each number. A sweep starts from where the last two point, and
  from the last one itself if that would raise the objective.
  """
  ahead = solution = _start(x, latent)
  objectives, momentum = [np.inf], 0.0
  for _ in range(most_sweeps):
    found, objective = _sweep(ahead, x, ridge)
    if objective > objectives[-1]:
      if not momentum:
        break
      ahead, momentum = solution, 0.0
      continue
    momentum = min(0.9, 0.5 + momentum)
    ahead = [new + momentum * (new - old) for new, old in zip(found, solution, strict=True)]
    solution = found
    objectives.append(objective)
    if objectives[-2] - objectives[-1] < enough * objectives[-1]:
      break
  return solution, objectives[1:]


def codes_of(x, weights, ridge):
  """The codes [N, latent] of examples x [N, D] that minimise the same objective, and its gradients' norms there [N]."""
  codes = np.zeros((len(x), len(weights) - 1), np.float32)
  ridges = np.full(codes.shape[1], ridge, np.float32)
  for _ in range(_CODE_STEPS):
    codes, _, gradients = _newton(codes, x, weights[:-1].T, weights[-1], ridges)
    if float(gradients.max()) < 1e-3:
      break
  return codes, gradients


def _start(x, latent):
  """Where the fit begins: PCA's directions of some examples, codes of deviation 1, and the logits of the mean."""
  mean = x.mean(0)
  directions = np.linalg.svd(x[:_STARTING] - mean, full_matrices=False)[2][:latent]  # fewer of few examples
  codes = (x - mean) @ directions.T
  deviations = codes.std(0)
  bias = np.log((mean + 1e-4) / (1.0 - mean + 1e-4))
  weights = np.concatenate([_STEEP * directions, bias[None]]).astype(np.float32)
  return (codes / np.where(deviations > 0.0, deviations, 1.0)).astype(np.float32), weights


def _sweep(solution, x, ridge):
  """A Newton step of all codes, one of all weights: the new solution and its objective in nats per example.

  Between them the mean code goes over into the bias, which changes no logit.
  """
  codes, weights = solution
  codes, _, _ = _newton(codes, x, weights[:-1].T, weights[-1], np.full(codes.shape[1], ridge, np.float32))
  mean = codes.mean(0)
  codes, weights = codes - mean, np.concatenate([weights[:-1], weights[-1:] + mean @ weights[:-1]])
  features = np.concatenate([codes, np.ones((len(x), 1), np.float32)], axis=1)
  ridges = np.append(np.full(codes.shape[1], ridge, np.float32), np.float32(0.0))  # the bias is free
  columns, objectives, _ = _newton(weights.T, x.T, features, np.zeros(len(x), np.float32), ridges)
  penalty = 0.5 * ridge * np.square(codes, dtype=np.float64).sum()
  return (codes, columns.T), (objectives.sum(dtype=np.float64) + penalty) / len(x)


def _newton(rows, targets, features, offset, ridges):
  """A Newton step of rows [R, m] for the logits rows @ features.T + offset of targets [R, C]; each row by itself.

  Takes features [C, m], offset [C] and ridges [m]. Returns rows [R, m], their objectives [R], and the norms [R] of the
  gradients before the step.
  """
  parts = -(-len(rows) // _ROWS)
  size = -(-len(rows) // parts)
  found = []
  for start in range(0, len(rows), size):
    numbers = np.minimum(np.arange(start, start + size), len(rows) - 1)
    done = _newton_of_some(rows[numbers], targets[numbers], features, offset, ridges)
    found.append([np.asarray(each)[: len(rows) - start] for each in done])
  return [np.concatenate(each) for each in zip(*found, strict=True)]


@jax.jit
def _newton_of_some(rows, targets, features, offset, ridges):
  """`_newton` of so few rows that their systems of equations fit in memory.

  Each row has a convex problem of its own. Its step is halved until its objective does not rise, but for rounding.
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
  # The largest ridge for all, so that steps stay short where nothing is curved; and something against rounding.
  shifts = ridges.max() + 1e-6 * jnp.trace(curvatures, axis1=1, axis2=2) / size
  curvatures = curvatures + shifts[:, None, None] * jnp.eye(size)[None]
  factors = jnp.linalg.cholesky(curvatures), True
  directions = -jax.scipy.linalg.cho_solve(factors, gradients[..., None])[..., 0]
  along = directions @ features.T
  most = objectives(logits, rows) * (1.0 + 1e-6)
  rise = lambda steps: objectives(logits + steps * along, rows + steps * directions) > most

  def halved(carry):
    steps, rising = carry
    steps = jnp.where(rising[:, None], 0.5 * steps, steps)
    return steps, rise(steps) & (steps[:, 0] > 1e-6)

  steps = jnp.ones((len(rows), 1))
  steps, _ = jax.lax.while_loop(lambda carry: carry[1].any(), halved, (steps, rise(steps)))
  steps = jnp.where(rise(steps)[:, None], 0.0, steps)
  rows = rows + steps * directions
  return rows, objectives(logits + steps * along, rows), jnp.linalg.norm(gradients, axis=1)


EVALUATOR = base.Evaluator(name="logistic_pca", analyses=(base.Analysis(analyze, needs=("unit_range",)),))
