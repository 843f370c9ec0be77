"""Chooses values for keys of the config `dense` for data of any kind. experiments/defaults measured the choices."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from ae_jax import errors
from ae_jax.data import lazy_arrays

_LEAST_STEPS, _MOST_STEPS = 300, 2000
_OPERATIONS = 3e12  # multiply-adds of a training: about two minutes on two cores
_TIMES = 3  # cost of a training step in forward passes: one forward, two backward (for parameters and for inputs)
_UPDATE = 100  # multiply-adds that take as long as the update of one parameter, whose speed is limited by the memory
_BATCH, _WIDTH = 64, 256
_EVALUATIONS = 20  # approximate number of evaluations of a training
# Maximum number of training examples -> dropout rate, weight decay and learning rate. With few examples, the correction
# to PCA overfits unless it is strongly regularised.
_STRENGTHS = {2500: (0.3, 0.3, 1e-3), 10_000: (0.1, 0.1, 2e-3), math.inf: (0.0, 0.0, 2e-3)}
# With a smaller `nonlinear_gain` and fewer examples per element, such as of patches of photographs, the correction
# learns little but noise. With more examples it does no harm, and the gain underestimates: on a ring, the residuals of
# PCA have either sign for each score.
_LEAST_GAIN, _PER_ELEMENT = 0.04, 20
_LINEAR = (0.5, 0.3, 3e-4)  # dropout rate, weight decay and learning rate for such data
_PROBED, _PROBED_ELEMENTS = 1024, 4096  # number of examples and of elements from which the gain is estimated
_GAMMAS, _ALPHAS = (0.1, 1.0), (0.1, 1.0, 10.0)  # inverse squared widths of the kernel, and penalties


def choose(
  train: lazy_arrays.MaybeLazy, latent: int | None = None, epochs: int | None = None, batch_size: int | None = None
) -> dict[str, Any]:
  """Returns {dotted config key: value} for training examples [N, ...]; see `changes`.

  The latent size, the number of epochs and the batch size are None, unless the user sets them.

  Raises:
    UserError: The latent size is not a positive integer.
  """
  shape = train.shape[1:]
  latent = _latent_size(shape) if latent is None else latent
  errors.check_positive("model.latent", latent)
  gain = nonlinear_gain(train, latent)
  return changes(shape, len(train), gain, epochs, batch_size)


def _latent_size(shape: tuple[int, ...]) -> int:
  return min(32, max(1, math.prod(shape) // 3))


def changes(
  shape: tuple[int, ...], count: int, gain: float, epochs: int | None = None, batch_size: int | None = None
) -> dict[str, Any]:
  """Returns {dotted config key: value}, which replace the defaults of the config `dense`.

  Args:
    shape: Shape of an example.
    count: Number of training examples.
    gain: Result of `nonlinear_gain` for the training examples.
    epochs: Number of epochs set by the user; None: the number is chosen.
    batch_size: Batch size set by the user; None: the size is chosen.
  """
  elements = math.prod(shape)
  batch = batch_size or min(_BATCH, max(8, count // 8), count)
  multiply_adds = (_TIMES * batch + _UPDATE) * 2 * _WIDTH * elements
  steps = min(_MOST_STEPS, max(_LEAST_STEPS, round(_OPERATIONS / multiply_adds)))
  shorten = epochs is None
  if epochs is None:
    epochs = max(2, math.ceil(steps * min(batch, count) / count))
  every = max(1, epochs // _EVALUATIONS)
  by_count = next(strength for most, strength in _STRENGTHS.items() if count <= most)
  is_linear = gain < _LEAST_GAIN and count < _PER_ELEMENT * elements
  dropout, decay, learning_rate = _LINEAR if is_linear else by_count
  return {
    "model.latent": _latent_size(shape),
    "model.widths": (_WIDTH,),
    "model.linear_path": "auto",
    "model.dropout": dropout,
    "optimizer.weight_decay": decay,
    "optimizer.learning_rate": learning_rate,
    "batch_size": batch,
    "on_nan": "halve",
    "shorten": shorten,
    "epochs": epochs,
    "eval_every_epochs": every,
    "checkpoint_every_epochs": 5 * every,
  }


def analyses(anomalous: Bool[np.ndarray, " test"] | None, evaluators: Sequence[str]) -> dict[str, Any]:
  """Returns {config key: value} that adds the evaluator of anomalies if the test set has them, as well as normal ones.

  Args:
    anomalous: Mask of the test examples that are anomalies; None without `config.data.one_class`.
    evaluators: Names of the evaluators of the config.
  """
  is_mixed = anomalous is not None and anomalous.any() and not anomalous.all()
  return {"evaluators": (*evaluators, "anomaly")} if is_mixed else {}


def nonlinear_gain(train: lazy_arrays.MaybeLazy, latent: int) -> float:
  """Returns the fraction of PCA's squared error that a nonlinear decoder removes on held-out examples.

  The decoder predicts the residuals of PCA from its scores by kernel ridge regression with a Gaussian kernel. At most
  `_PROBED` training examples with `_PROBED_ELEMENTS` elements are drawn with a fixed seed. A quarter of the examples is
  held out. The gain is the largest one over a grid of kernel widths and penalties, and at least 0.

  Args:
    train: Training examples [N, ...].
    latent: Number of components of PCA.
  """
  from sklearn.decomposition import PCA  # scikit-learn takes half a second to import
  from sklearn.metrics.pairwise import rbf_kernel

  x = _drawn(train)
  is_fitted = np.random.default_rng(1).permutation(len(x)) < len(x) * 3 // 4
  if is_fitted.sum() < 2 or not np.ptp(x[is_fitted], 0).any():
    return 0.0
  pca = PCA(min(latent, is_fitted.sum(), x.shape[1]), random_state=0).fit(x[is_fitted])
  scores = pca.transform(x)
  residuals = x - pca.inverse_transform(scores)
  scores /= np.sqrt(len(pca.components_) * np.maximum(pca.explained_variance_, np.finfo(np.float64).tiny))
  error = np.square(residuals[~is_fitted]).sum()
  if not error > 0:
    return 0.0
  gains = [0.0]
  for gamma in _GAMMAS:
    kernel = rbf_kernel(scores, scores[is_fitted], gamma)
    values, vectors = np.linalg.eigh(kernel[is_fitted])  # one decomposition for all penalties
    products, targets = kernel[~is_fitted] @ vectors, vectors.T @ residuals[is_fitted]
    for alpha in _ALPHAS:
      left = residuals[~is_fitted] - products / (values + alpha) @ targets
      gains.append(float(1 - np.square(left).sum() / error))
  return max(gains)


def _drawn(train: lazy_arrays.MaybeLazy) -> Float64[np.ndarray, "examples elements"]:
  """Returns the examples and elements from which the gain is estimated."""
  generator = np.random.default_rng(0)
  examples = np.sort(generator.permutation(len(train))[:_PROBED])
  elements = np.sort(generator.permutation(math.prod(train.shape[1:]))[:_PROBED_ELEMENTS])
  parts = lazy_arrays.parts(train, examples)
  return np.concatenate([part.reshape(len(part), -1)[:, elements] for part in parts]).astype(np.float64)
