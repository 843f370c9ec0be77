"""Densities of latent codes, from which samples are drawn, and paths between two latent codes."""

import dataclasses
import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

COMPONENTS = 10  # maximum number of Gaussians in a mixture (Ghosh et al. 2020)
_MIXED = 64  # maximum number of leading principal directions in which a mixture is fitted
_EXAMPLES = 10  # minimum number of examples per component and direction; limits the number of components
_ROUNDING = 1e-6  # standard deviations below this fraction of the largest latent are float32 rounding errors
_RIDGE = 1e-6  # fraction of the largest variance that is added to each variance
_TOLERANCE = 1e-2  # EM stops if a step gains less than this, in nats per code
_MOST_STEPS = 50  # maximum number of EM steps
_PARALLEL = 1e-6  # radians; an arc is undefined if its angle is this close to 0 or pi


@dataclasses.dataclass(frozen=True)
class Mixture:
  """A mixture of Gaussians with full covariances, fitted to latent codes after training ("ex post").

  The mixture covers at most 64 leading principal directions of the codes. A single Gaussian covers the other
  directions. Samples do not vary in directions in which the latents do not vary.
  """

  mean: Float[np.ndarray, " latents"]
  directions: Float[np.ndarray, "directions latents"]  # principal directions: unit vectors, by decreasing variance
  deviations: Float[np.ndarray, " directions"]  # standard deviations of the latents along `directions`
  # A scikit-learn GaussianMixture in the leading directions, in units of the first deviation; None if the latents are
  # constant.
  gaussians: Any

  @property
  def components(self) -> int:
    """Number of Gaussians in the mixture; 0 if the latents do not vary."""
    return 0 if self.gaussians is None else len(self.gaussians.weights_)

  def draw(self, count: int, generator: np.random.Generator) -> Float[np.ndarray, "count latents"]:
    """Returns `count` latent codes drawn from the density, float32."""
    coordinates = generator.normal(size=(count, len(self.deviations))) * self.deviations
    if self.gaussians is not None:
      picked = generator.choice(self.components, count, p=self.gaussians.weights_ / self.gaussians.weights_.sum())
      leading = self.gaussians.means_.shape[1]
      roots = np.linalg.cholesky(self.gaussians.covariances_)  # [components, leading, leading]
      normal = generator.normal(size=(count, leading))
      draws = self.gaussians.means_[picked] + np.einsum("nij,nj->ni", roots[picked], normal)
      coordinates[:, :leading] = draws * self.deviations[0]
    return (self.mean + coordinates @ self.directions).astype(np.float32)


def fit(codes: Float[np.ndarray, "examples latents"]) -> Mixture:
  """Fits a `Mixture` to latent codes with the EM algorithm of scikit-learn (Ghosh et al. 2020, section 4).

  The latents may be constant or lie in a subspace.
  """
  mean = codes.mean(0, dtype=np.float64)
  directions, deviations = principal_directions(codes)
  if not len(deviations):
    return Mixture(mean, directions, deviations, None)
  leading = min(_MIXED, len(deviations))
  coordinates = (codes - mean) @ directions[:leading].T / deviations[0]
  components = max(1, min(COMPONENTS, len(codes) // (_EXAMPLES * leading)))
  return Mixture(mean, directions, deviations, _gaussians(coordinates, components))


def _gaussians(points: Float[np.ndarray, "examples directions"], components: int) -> Any:
  """Returns a scikit-learn GaussianMixture with `components` components, fitted to points."""
  from sklearn.exceptions import ConvergenceWarning  # a second of imports
  from sklearn.mixture import GaussianMixture
  from threadpoolctl import threadpool_limits

  options = {"reg_covar": _RIDGE, "tol": _TOLERANCE, "max_iter": _MOST_STEPS, "random_state": 0}
  with threadpool_limits(1, "blas"), warnings.catch_warnings():  # threads slow down many small matrix products
    warnings.simplefilter("ignore", ConvergenceWarning)  # equal points, or _MOST_STEPS reached: the fit is good enough
    return GaussianMixture(components, **options).fit(points)


def principal_directions(
  codes: Float[np.ndarray, "examples latents"],
) -> tuple[Float[np.ndarray, "directions latents"], Float[np.ndarray, " directions"]]:
  """Returns the principal directions of latent codes and the standard deviations along the directions, float64.

  The directions are in order of decreasing variance. Directions in which the latents do not vary are omitted.
  """
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
  """Returns the latent codes on the line from `start` to `end`, at the fractions `shares` of its length."""
  return start + shares[:, None] * (end - start)


def arc(
  start: Float[np.ndarray, " latents"],
  end: Float[np.ndarray, " latents"],
  shares: Float[np.ndarray, " steps"],
  centre: float | Float[np.ndarray, " latents"],
) -> Float[np.ndarray, "steps latents"]:
  """Returns latent codes from `start` to `end` around `centre` by spherical interpolation (White 2016, section 2.1).

  `shares` are fractions of the angle between the two latent codes, seen from the centre. If both have the same distance
  from the centre, all returned latent codes have this distance. If their directions from the centre are equal or
  opposite, or one of them equals the centre, the arc is undefined; the returned codes lie on a straight line.
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
