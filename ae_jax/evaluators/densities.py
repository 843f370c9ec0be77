"""Densities over codes, to draw new ones from, and ways from one code to another."""

import dataclasses
import warnings

import numpy as np

COMPONENTS = 10  # of a mixture at most (Ghosh et al. 2020)
_MIXED = 64  # leading directions of the codes that a mixture is fitted in, at most
_EXAMPLES = 10  # for each number of a component, so that fewer examples get fewer components
_ROUNDING = 1e-6  # of the codes' largest number: what varies less than this is the noise of float32
_RIDGE = 1e-6  # of the largest variance is added to each
_TOLERANCE = 1e-2  # nats per code: less is not worth another step of EM
_MOST_STEPS = 50  # of EM
_PARALLEL = 1e-6  # radians by which directions must differ, and miss being opposite, for an arc between them


@dataclasses.dataclass(frozen=True)
class Mixture:
  """A density fitted on codes after training, "ex post": a mixture of gaussians with full covariances.

  It is in the leading directions of the codes; along the others, of which only very large codes have any, they are
  gaussian. Along directions in which the codes do not vary there is nothing but their mean.
  """

  mean: np.ndarray  # [latent]
  directions: np.ndarray  # [D, latent], of length 1, those along which the codes vary most first
  deviations: np.ndarray  # [D], along them
  gaussians: object | None  # sklearn's, in the leading ones divided by the first deviation; None where nothing varies

  @property
  def components(self):
    """How many gaussians it is a mixture of."""
    return 0 if self.gaussians is None else len(self.gaussians.weights_)

  def draw(self, count, generator):
    """Codes float32 [count, latent]."""
    along = generator.normal(size=(count, len(self.deviations))) * self.deviations
    if self.gaussians is not None:
      picked = generator.choice(self.components, count, p=self.gaussians.weights_ / self.gaussians.weights_.sum())
      mixed = self.gaussians.means_.shape[1]
      roots = np.linalg.cholesky(self.gaussians.covariances_)  # [components, mixed, mixed]
      normal = generator.normal(size=(count, mixed))
      steps = self.gaussians.means_[picked] + np.einsum("nij,nj->ni", roots[picked], normal)
      along[:, :mixed] = steps * self.deviations[0]
    return (self.mean + along @ self.directions).astype(np.float32)


def fit(codes):
  """The `Mixture` of codes [N, latent], by scikit-learn's EM (Ghosh et al. 2020, section 4); they may be degenerate."""
  mean = codes.mean(0, dtype=np.float64)
  directions, deviations = principal_directions(codes)
  if not len(deviations):
    return Mixture(mean, directions, deviations, None)
  mixed = min(_MIXED, len(deviations))
  along = (codes - mean) @ directions[:mixed].T / deviations[0]
  components = max(1, min(COMPONENTS, len(codes) // (_EXAMPLES * mixed)))
  return Mixture(mean, directions, deviations, _gaussians(along, components))


def _gaussians(points, components):
  """Scikit-learn's mixture of so many gaussians, fitted on points [N, D]."""
  from sklearn.exceptions import ConvergenceWarning  # a second of imports
  from sklearn.mixture import GaussianMixture
  from threadpoolctl import threadpool_limits

  options = {"reg_covar": _RIDGE, "tol": _TOLERANCE, "max_iter": _MOST_STEPS, "random_state": 0}
  with threadpool_limits(1, "blas"), warnings.catch_warnings():  # many small products, for which threads only wait
    warnings.simplefilter("ignore", ConvergenceWarning)  # of equal points, or of steps: nearly there is good enough
    return GaussianMixture(components, **options).fit(points)


def principal_directions(codes):
  """Directions [D, latent] along which codes [N, latent] vary, the most first, and by what deviation, float64 [D]."""
  centred = codes - codes.mean(0, dtype=np.float64)
  scale = float(np.abs(codes).max())
  variances, vectors = np.linalg.eigh(centred.T @ centred / len(codes))
  deviations = np.sqrt(np.maximum(variances[::-1], 0.0))
  vary = deviations > _ROUNDING * scale
  vectors = vectors.T[::-1][vary]
  signs = np.sign(vectors[np.arange(len(vectors)), np.abs(vectors).argmax(1)])  # which is not left to the solver
  return vectors * signs[:, None], deviations[vary]


def straight(start, end, shares):
  """Codes [steps, latent] on the line from `start` to `end` [latent], at `shares` [steps] of the way."""
  return start + shares[:, None] * (end - start)


def arc(start, end, shares, centre):
  """Codes [steps, latent] from `start` to `end` [latent] around `centre`, "slerp" (White 2016, section 2.1).

  Between codes equally far from the centre it goes by equal angles, at that distance. Where there is no one arc,
  between directions that are the same or opposite, it is the straight line.
  """
  a, b = start - centre, end - centre
  lengths = np.linalg.norm(a), np.linalg.norm(b)
  if min(lengths) == 0.0:
    return straight(start, end, shares)
  cosine = np.clip(np.dot(a / lengths[0], b / lengths[1]), -1.0, 1.0)
  angle = np.arccos(cosine)
  if not _PARALLEL < angle < np.pi - _PARALLEL:
    return straight(start, end, shares)
  weights = np.sin(np.stack([1.0 - shares, shares], 1) * angle) / np.sin(angle)  # [steps, 2]
  return centre + weights @ np.stack([a, b])
