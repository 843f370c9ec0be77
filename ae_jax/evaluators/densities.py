"""Densities of latent codes, for sampling, and paths between two latent codes."""

import dataclasses
import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

COMPONENTS = 10  # of a mixture at most (Ghosh et al. 2020)
_MIXED = 64  # leading directions in which a mixture is fitted, at most
_EXAMPLES = 10  # per dimension of a component, so that fewer examples get fewer components
_ROUNDING = 1e-6  # share of the largest number of the codes below which a deviation is float32 noise
_RIDGE = 1e-6  # share of the largest variance that is added to each variance
_TOLERANCE = 1e-2  # nats per code: EM stops at a smaller gain
_MOST_STEPS = 50  # of EM
_PARALLEL = 1e-6  # radians: at smaller angles to parallel or opposite directions the arc is undefined


@dataclasses.dataclass(frozen=True)
class Mixture:
  """A density fitted to latent codes after training ("ex post"): a mixture of gaussians with full covariances.

  The mixture covers the leading directions of the codes; in the other directions, which only very large codes have, it
  is one gaussian. In directions in which the codes do not vary, samples have the mean of the codes.
  """

  mean: Float[np.ndarray, " latents"]
  directions: Float[np.ndarray, "directions latents"]  # unit vectors, by decreasing variance
  deviations: Float[np.ndarray, " directions"]  # standard deviations along them
  gaussians: Any  # scikit-learn's mixture in the leading directions, in units of the first deviation; None if constant

  @property
  def components(self) -> int:
    """Number of gaussians in the mixture; 0 if the codes do not vary."""
    return 0 if self.gaussians is None else len(self.gaussians.weights_)

  def draw(self, count: int, generator: np.random.Generator) -> Float[np.ndarray, "count latents"]:
    """Returns `count` latent codes, float32."""
    along = generator.normal(size=(count, len(self.deviations))) * self.deviations
    if self.gaussians is not None:
      picked = generator.choice(self.components, count, p=self.gaussians.weights_ / self.gaussians.weights_.sum())
      mixed = self.gaussians.means_.shape[1]
      roots = np.linalg.cholesky(self.gaussians.covariances_)  # [components, mixed, mixed]
      normal = generator.normal(size=(count, mixed))
      steps = self.gaussians.means_[picked] + np.einsum("nij,nj->ni", roots[picked], normal)
      along[:, :mixed] = steps * self.deviations[0]
    return (self.mean + along @ self.directions).astype(np.float32)


def fit(codes: Float[np.ndarray, "examples latents"]) -> Mixture:
  """Returns the `Mixture` of latent codes, fitted by scikit-learn's EM (Ghosh et al. 2020, section 4).

  The codes may be constant or lie in a subspace.
  """
  mean = codes.mean(0, dtype=np.float64)
  directions, deviations = principal_directions(codes)
  if not len(deviations):
    return Mixture(mean, directions, deviations, None)
  mixed = min(_MIXED, len(deviations))
  along = (codes - mean) @ directions[:mixed].T / deviations[0]
  components = max(1, min(COMPONENTS, len(codes) // (_EXAMPLES * mixed)))
  return Mixture(mean, directions, deviations, _gaussians(along, components))


def _gaussians(points: Float[np.ndarray, "examples directions"], components: int) -> Any:
  """Returns scikit-learn's mixture with this number of components, fitted to points."""
  from sklearn.exceptions import ConvergenceWarning  # a second of imports
  from sklearn.mixture import GaussianMixture
  from threadpoolctl import threadpool_limits

  options = {"reg_covar": _RIDGE, "tol": _TOLERANCE, "max_iter": _MOST_STEPS, "random_state": 0}
  with threadpool_limits(1, "blas"), warnings.catch_warnings():  # many small products, where threads only wait
    warnings.simplefilter("ignore", ConvergenceWarning)  # equal points, or _MOST_STEPS reached: the fit is good enough
    return GaussianMixture(components, **options).fit(points)


def principal_directions(
  codes: Float[np.ndarray, "examples latents"],
) -> tuple[Float[np.ndarray, "directions latents"], Float[np.ndarray, " directions"]]:
  """Returns the directions in which latent codes vary, by decreasing variance, and the deviations, float64."""
  centred = codes - codes.mean(0, dtype=np.float64)
  scale = float(np.abs(codes).max())
  variances, vectors = np.linalg.eigh(centred.T @ centred / len(codes))
  deviations = np.sqrt(np.maximum(variances[::-1], 0.0))
  varies = deviations > _ROUNDING * scale
  vectors = vectors.T[::-1][varies]
  signs = np.sign(vectors[np.arange(len(vectors)), np.abs(vectors).argmax(1)])  # the solver's signs are arbitrary
  return vectors * signs[:, None], deviations[varies]


def line(
  start: Float[np.ndarray, " latents"], end: Float[np.ndarray, " latents"], shares: Float[np.ndarray, " steps"]
) -> Float[np.ndarray, "steps latents"]:
  """Returns the latent codes on the line from `start` to `end`, at `shares` of its length."""
  return start + shares[:, None] * (end - start)


def arc(
  start: Float[np.ndarray, " latents"],
  end: Float[np.ndarray, " latents"],
  shares: Float[np.ndarray, " steps"],
  centre: float | Float[np.ndarray, " latents"],
) -> Float[np.ndarray, "steps latents"]:
  """Returns latent codes from `start` to `end` around `centre` by spherical interpolation (White 2016, section 2.1).

  Between codes at the same distance from the centre, the steps have equal angles and keep that distance. If the
  directions from the centre are equal or opposite, the arc is undefined and the codes lie on the straight line.
  """
  a, b = start - centre, end - centre
  lengths = np.linalg.norm(a), np.linalg.norm(b)
  if min(lengths) == 0.0:
    return line(start, end, shares)
  cosine = np.clip(np.dot(a / lengths[0], b / lengths[1]), -1.0, 1.0)
  angle = np.arccos(cosine)
  if not _PARALLEL < angle < np.pi - _PARALLEL:
    return line(start, end, shares)
  weights = np.sin(np.stack([1.0 - shares, shares], 1) * angle) / np.sin(angle)  # [steps, 2]
  return centre + weights @ np.stack([a, b])
