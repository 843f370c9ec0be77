"""PCA baselines with the budget of a latent code: the same number of components or, for a discrete code, of bits.

PCA is fitted to the training examples (`Dataset.train_sample`), or to their targets if the data have targets. Masked
elements are replaced by the mean of the training examples.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from ae_jax import data, models
from ae_jax.data import ranges
from ae_jax.ops import losses

_MAX_EXACT = 1000  # maximum size of examples for which the exact solver is used, because it is faster
_MAX_BITS = 8  # maximum number of bits of a component of quantised PCA
_FULL_RANK = 0.8  # fraction of the examples from which scikit-learn computes all components, not a random subspace
_BLOCK = 2**22  # maximum number of elements that `_fit_few` converts to float64 at once
_ROUNDING = 1e-6  # singular values below this fraction of the largest one are rounding errors of float32 examples


@dataclasses.dataclass(frozen=True, eq=False)
class CentredPCA:
  """PCA, fitted to examples minus `centre`; the methods expect examples that are not centred.

  For float32 examples, scikit-learn computes the covariance from products that are not centred. Its rounding errors
  make the components wrong if the mean is 1,000 and the standard deviation is 1.
  """

  centre: Float[np.ndarray, " elements"]
  residual_mean: Float[np.ndarray, " elements"]  # mean of the examples minus `centre`: the rounding error of `centre`
  components: Float[np.ndarray, "components elements"]
  variances: Float[np.ndarray, " components"]  # variance of each score
  noise_variance: float  # mean variance along the other principal directions

  def transform(self, x: Float[np.ndarray, "examples elements"]) -> Float[np.ndarray, "examples components"]:
    """Returns the scores of examples, i.e. their coordinates along the components."""
    return (x - self.centre) @ self.components.T - self.residual_mean @ self.components.T

  def inverse_transform(
    self, codes: Float[np.ndarray, "examples components"]
  ) -> Float[np.ndarray, "examples elements"]:
    """Returns the reconstructions from scores; `codes` may contain only the leading scores."""
    return codes @ self.components[: codes.shape[1]] + (self.residual_mean + self.centre)


@dataclasses.dataclass(frozen=True, eq=False)
class QuantisedPCA:
  """PCA with leading scores quantised to the centres of equal-width bins; has the methods of scikit-learn's PCA.

  The bins span the range of each score over the training examples.
  """

  fitted: CentredPCA
  low: Float64[np.ndarray, " kept"]
  width: Float64[np.ndarray, " kept"]  # width of the bins of each score
  levels: int  # number of bins of each score

  def transform(self, x: Float[np.ndarray, "examples elements"]) -> Float64[np.ndarray, "examples kept"]:
    """Returns the quantised scores of examples."""
    return self.quantise(self.fitted.transform(x)[:, : len(self.low)].astype(np.float64))

  def quantise(self, codes: Float64[np.ndarray, "examples kept"]) -> Float64[np.ndarray, "examples kept"]:
    """Returns scores rounded to the centres of their bins."""
    cells = np.clip(np.floor((codes - self.low) / self.width), 0, self.levels - 1)
    return self.low + (cells + 0.5) * self.width

  def inverse_transform(self, codes: Float[np.ndarray, "examples kept"]) -> Float64[np.ndarray, "examples elements"]:
    """Returns the reconstructions from scores."""
    return self.fitted.inverse_transform(codes)


def fit(train: Float[np.ndarray, "examples elements"], components: int, solver: str = "covariance_eigh") -> CentredPCA:
  """Returns a PCA with `components` components, or fewer if the examples do not have as many.

  For many large examples, a randomised solver is used, whose error is slightly above the minimum.

  Args:
    train: Training examples.
    components: Number of components.
    solver: Solver of scikit-learn for examples of at most `_MAX_EXACT` elements.
  """
  examples, elements = train.shape
  components = min(components, examples - 1, elements)  # N points span N - 1 directions around their mean
  centre = mean(train)
  centred = train - centre
  if _MAX_EXACT < elements > examples > 1 and components >= min(_FULL_RANK * examples, examples - 1):
    return _fit_few(centred, centre, components)
  from sklearn.decomposition import PCA  # seconds of imports

  with np.errstate(divide="ignore", invalid="ignore"):  # PCA divides by the total variance, which is 0 for equal images
    fitted = PCA(components, svd_solver=solver if elements <= _MAX_EXACT else "auto", random_state=0).fit(centred)
  return CentredPCA(centre, fitted.mean_, fitted.components_, fitted.explained_variance_, float(fitted.noise_variance_))


def _fit_few(
  centred: Float[np.ndarray, "examples elements"], centre: Float[np.ndarray, " elements"], components: int
) -> CentredPCA:
  """Computes `fit` from the Gram matrix of the examples, which is small if there are few examples.

  For 20 images of 512x512, this takes a third of the time of the singular value decomposition of scikit-learn. The
  products are float64, because the Gram matrix squares the singular values. Components without variance are zero.
  """
  examples, elements = centred.shape
  size = max(1, _BLOCK // examples)
  blocks = [slice(start, start + size) for start in range(0, elements, size)]
  residual_mean = centred.mean(0, dtype=np.float64)
  wide = lambda block: centred[:, block] - residual_mean[block]  # float64
  gram = np.zeros((examples, examples))
  for block in blocks:
    part = wide(block)
    gram += part @ part.T
  squares, vectors = np.linalg.eigh(gram)
  squares, vectors = np.maximum(squares[::-1], 0.0), vectors[:, ::-1]
  singular = np.sqrt(squares[:components])
  inverse = np.divide(1.0, singular, out=np.zeros_like(singular), where=singular > _ROUNDING * singular[0])
  coordinates = (vectors[:, :components] * inverse).T
  directions = np.empty((components, elements), centred.dtype)
  for block in blocks:
    directions[:, block] = coordinates @ wide(block)
  signs = np.sign(directions[np.arange(components), np.abs(directions).argmax(1)])  # as in scikit-learn
  directions *= np.where(signs == 0, 1, signs).astype(directions.dtype)[:, None]
  variances = squares / (examples - 1)
  noise = float(variances[components:].mean()) if components < examples else 0.0
  return CentredPCA(centre, residual_mean.astype(centred.dtype), directions, variances[:components], noise)


def fit_quantised(train: Float[np.ndarray, "examples elements"], bits: float) -> QuantisedPCA:
  """Returns the quantised PCA with the smallest training error among those with `bits` bits in total.

  The leading `bits` / b scores are kept, with b bits for each; b is chosen from 1 to 8. The components are orthonormal,
  so the error is the sum of the squared rounding errors of the scores that are kept, and of the squares of all other
  scores.
  """
  fitted = fit(train, int(min(bits, train.shape[1])))
  codes = fitted.transform(train).astype(np.float64)
  low, high = codes.min(0), codes.max(0)
  candidates = []
  for b in range(1, min(_MAX_BITS, int(bits)) + 1):
    kept = min(int(bits // b), len(low))
    width = np.where(high > low, (high - low) / 2**b, 1.0)[:kept]
    quantised = QuantisedPCA(fitted, low[:kept], width, 2**b)
    error = np.square(codes[:, :kept] - quantised.quantise(codes[:, :kept])).sum() + np.square(codes[:, kept:]).sum()
    candidates.append((error, quantised))
  return min(candidates, key=lambda candidate: candidate[0])[1]


def fit_baseline(train: Float[np.ndarray, "examples elements"], code: models.CodeSpec) -> CentredPCA | QuantisedPCA:
  """Returns the PCA with the budget of a latent code, quantised if the code is discrete."""
  return fit(train, code.size) if code.bits is None else fit_quantised(train, code.bits)


def name_of_baseline(code: models.CodeSpec) -> str:
  """Returns the name of `fit_baseline` in figures."""
  return "PCA of the same size" if code.bits is None else "PCA with as many bits"


def reconstruct(fitted: CentredPCA | QuantisedPCA, x: Float[np.ndarray, "examples ..."]) -> np.ndarray:
  """Returns the reconstructions float32 of examples with a PCA, in the shape of the examples."""
  return fitted.inverse_transform(fitted.transform(losses.flat(x))).reshape(x.shape).astype(np.float32, copy=False)


def squared_errors(
  dataset: data.Dataset, fit_to: Callable[[Float[np.ndarray, "examples elements"]], Any]
) -> Float64[np.ndarray, " examples"]:
  """Returns the squared error of a PCA for each test example.

  Args:
    dataset: Data set.
    fit_to: Function that maps training examples to a PCA, such as `fit_baseline` with a given latent code.
  """
  train = training_examples(dataset)
  test, target = (
    losses.flat(ranges.normalise(examples, dataset.value_range)) for examples in (dataset.test, dataset.test_targets)
  )
  mask = dataset.column("test", "mask")
  if mask is not None:
    test = np.where(losses.flat(mask), test, mean(train))
  fitted = fit_to(train)
  squares = np.square(target - fitted.inverse_transform(fitted.transform(test)), dtype=np.float64)
  return (squares if mask is None else squares * losses.flat(mask)).sum(1)


def training_examples(dataset: data.Dataset) -> Float[np.ndarray, "examples elements"]:
  """Returns the examples to which baselines are fitted: the training targets or, without targets, the examples.

  Masked elements are replaced by the mean of their observed values over the examples.
  """
  target, mask = dataset.train_sample_of("target"), dataset.train_sample_of("mask")
  train = losses.flat(ranges.normalise(dataset.train_sample if target is None else target, dataset.value_range))
  if mask is None:
    return train
  mask = losses.flat(mask)
  counts = mask.sum(0)
  means = np.where(mask, train, np.float32(0)).sum(0, dtype=np.float64) / np.maximum(counts, 1)
  return np.where(mask, train, np.where(counts > 0, means, train[0]).astype(np.float32))


def principal_components(dataset: data.Dataset, count: int) -> models.PrincipalComponents:
  """Returns the first `count` principal components of the training examples, as in `fit`."""
  train = training_examples(dataset)
  pca = fit(train, count)
  found = len(pca.components)
  directions = np.zeros((count, train.shape[1]), np.float32)
  directions[:found] = pca.components
  deviations = np.zeros(count, np.float32)
  deviations[:found] = np.sqrt(np.maximum(pca.variances, 0.0))
  element_deviation = float(np.sqrt((train - pca.centre).var(0).mean()))
  residual = max(0.0, pca.noise_variance * (min(train.shape) - found))  # summed over all other directions
  total = element_deviation**2 * train.shape[1]
  fraction = float(np.sqrt(residual / total)) if total else 1.0
  return models.PrincipalComponents(pca.centre, directions, deviations, pca.noise_variance, fraction, element_deviation)


def mean(train: Float[np.ndarray, "examples elements"]) -> Float[np.ndarray, " elements"]:
  """Returns the mean of training examples, rounded to float32.

  Due to the rounding, if all training examples are equal, the error of a test example that equals them is exactly 0.
  """
  return train.mean(0, dtype=np.float64).astype(np.float32)


def baseline_squared_errors(dataset: data.Dataset, code: models.CodeSpec) -> Float64[np.ndarray, " examples"]:
  """Returns the squared error of `fit_baseline` for each test example."""
  return squared_errors(dataset, functools.partial(fit_baseline, code=code))
