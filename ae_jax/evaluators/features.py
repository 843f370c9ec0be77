"""Similarity of two sets of examples: in a feature space that is fitted to the training data, and in pixel space."""

import warnings
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Integer

from ae_jax.evaluators import pca
from ae_jax.evaluators.context import spaced
from ae_jax.ops import losses

NEIGHBOURS = 3  # k in precision and recall (Kynkaanniemi et al. 2019)
WIDTH = 64  # number of features
_HIDDEN = 128  # width of the classifier's first hidden layer; the second one computes the features
_EPOCHS = 6  # number of training epochs of the classifier
_MOST_CLASSES = 1_000  # maximum number of classes for which a classifier is trained
_MOST_NUMBERS = 2**26  # maximum number of elements in the classifier's training examples; larger sets are subsampled
_CANDIDATES = 4  # `nearest` computes the exact distances of the 4 examples with the smallest rounded distances
_BLOCK = 512  # rows of the distance matrix per matrix product
_PART = 2**18  # maximum number of elements whose exact squared errors are computed at once, if examples are not larger
_ROUNDING = 1e-10  # squared distances are equal if they differ by less than this fraction of the largest squared norm

Function = Callable[[np.ndarray], np.ndarray]  # maps examples [N, ...] to an array [N, ...]


def feature_function(context: Any) -> Generator[tuple[str, Any], None, Function]:
  """Yields report entries that describe the features, and returns the function that computes features [N, at most 64].

  The entries are a note and, if a classifier is trained and there are test labels, its accuracy.

  The features are a hidden layer of a classifier trained on the training examples, or principal components if the
  labels are not suitable for a classifier. `context` is an `EvalContext`.
  """
  labels, test_labels = context.train_labels, context.test_labels
  if not has_classes(labels):
    reason = (
      "no labels" if context.dataset.train_labels is None else "no integer labels with a suitable number of classes"
    )
    yield (
      "features",
      (
        f"precision, recall and the Fréchet distance use {_components(context.train)} of the training examples, "
        f"because there are {reason} to train a classifier"
      ),
    )
    return component_features(context.train)
  to_features, to_classes = classifier_features(context.train, labels)
  if test_labels is not None:
    yield "classifier_accuracy", float((to_classes(context.test) == test_labels).mean())
  yield (
    "features",
    (
      f"precision, recall and the Fréchet distance use {WIDTH} features of a small classifier trained on these data: "
      "compare them only between models of the same data, and not with a published FID"
    ),
  )
  return to_features


def _components(examples: Float[np.ndarray, "examples ..."]) -> str:
  """Returns the number of principal components in words, and the reason if there are fewer than `WIDTH`."""
  count, elements = len(examples), examples[0].size
  used, fewest = min(WIDTH, count, elements), "training examples" if count <= elements else "elements in an example"
  reason = f" (there are only {used:,} {fewest})" if used < WIDTH else ""
  return f"{used} leading principal components{reason}"


def has_classes(labels: Integer[np.ndarray, " examples"] | None) -> bool:
  """Returns whether a classifier can be trained on the labels.

  A classifier requires 2 to 1,000 classes, and at least two examples per class on average.
  """
  return labels is not None and 2 <= len(np.unique(labels)) <= min(_MOST_CLASSES, len(labels) // 2)


def classifier_features(
  examples: Float[np.ndarray, "examples ..."], labels: Integer[np.ndarray, " examples"]
) -> tuple[Function, Function]:
  """Trains a small classifier and returns two functions: one maps examples to features, the other to predicted classes.

  The features are the last hidden layer of the classifier, float64 [N, 64]. The seed of the classifier is fixed, so all
  runs on the same data are measured with the same features.
  """
  from sklearn.exceptions import ConvergenceWarning  # a second of imports
  from sklearn.neural_network import MLPClassifier
  from threadpoolctl import threadpool_limits

  chosen = spaced(max(2, _MOST_NUMBERS // examples[0].size), len(examples))
  examples, labels = examples[chosen], labels[chosen]
  flat = lambda x: x.reshape(len(x), -1)
  centre, scale = examples.mean(dtype=np.float64), examples.std(dtype=np.float64) or 1.0
  scaled = lambda x: ((flat(x) - centre) / scale).astype(np.float32)
  network = MLPClassifier((_HIDDEN, WIDTH), learning_rate_init=2e-3, max_iter=_EPOCHS, random_state=0)
  with threadpool_limits(1, "blas"), warnings.catch_warnings():  # threads slow down many small matrix products
    warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is fixed
    network.fit(scaled(examples), labels)

  def features(x):
    h = scaled(x)
    for weights, bias in zip(network.coefs_[:-1], network.intercepts_[:-1], strict=True):
      h = np.maximum(h @ weights + bias, 0.0)
    return h.astype(np.float64)

  return features, lambda x: network.predict(scaled(x))


def component_features(examples: Float[np.ndarray, "examples ..."]) -> Function:
  """Fits PCA to examples; returns the function that maps examples to PCA scores, float64 [N, at most 64]."""
  fitted = pca.fit(losses.flat(examples), WIDTH, solver="auto")
  return lambda x: fitted.transform(losses.flat(x)).astype(np.float64)


def frechet_distance(a: Float[np.ndarray, "n features"], b: Float[np.ndarray, "m features"]) -> float:
  """Returns the Fréchet distance of two sets of points: |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)).

  A and B are the covariances of the sets. The result is the squared Wasserstein distance between the Gaussians with
  these means and covariances (Dowson & Landau 1982).
  """
  between_means = np.square(a.mean(0) - b.mean(0)).sum()
  a, b = (_covariance(points) for points in (a, b))
  root = square_root(a)
  cross = np.linalg.eigvalsh(root @ b @ root)  # the eigenvalues of A B
  return float(max(between_means + np.trace(a) + np.trace(b) - 2 * np.sqrt(np.maximum(cross, 0.0)).sum(), 0.0))


def _covariance(points):
  centred = points - points.mean(0)
  return centred.T @ centred / len(points)


def square_root(matrix: Float[np.ndarray, "features features"]) -> Float[np.ndarray, "features features"]:
  """Returns the symmetric square root of a positive semidefinite matrix."""
  values, vectors = np.linalg.eigh(matrix)
  return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def precision_recall(
  real: Float[np.ndarray, "n features"], generated: Float[np.ndarray, "m features"], neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
  """Returns the precision and recall of generated points (Kynkaanniemi et al. 2019).

  Precision is the fraction of generated points in the manifold of the real points. Recall is the fraction of real
  points in the manifold of the generated points. The manifold of a set consists of balls around its points.
  The radius of a ball is the distance from its centre to the k-th nearest other point of the set, where k is
  `neighbours`.
  """
  centre = real.mean(0)
  real, generated = real - centre, generated - centre
  slack = _ROUNDING * max(np.square(real).sum(1).max(), np.square(generated).sum(1).max())
  real_radii, generated_radii = (_squared_radii(points, neighbours) + slack for points in (real, generated))
  realistic, covered = np.zeros(len(generated), bool), np.zeros(len(real), bool)
  for block, distances in _squared_distances(generated, real):
    realistic[block] = (distances <= real_radii).any(1)
    covered |= (distances <= generated_radii[block, None]).any(0)
  return float(realistic.mean()), float(covered.mean())


def _squared_radii(points: Float[np.ndarray, "n features"], neighbours: int) -> Float[np.ndarray, " n"]:
  """Returns the squared distance of each point to its k-th nearest neighbour among the other points."""
  blocks = _squared_distances(points, points)
  # Index 0 of the sorted distances is the point itself.
  return np.concatenate([np.partition(distances, neighbours, 1)[:, neighbours] for _, distances in blocks])


def _squared_distances(
  a: Float[np.ndarray, "n features"], b: Float[np.ndarray, "m features"]
) -> Iterator[tuple[slice, Float[np.ndarray, "block m"]]]:
  """Yields (slice, squared distances between the points a[slice] and all points of `b`, with rounding errors)."""
  squares = np.square(b).sum(1)
  for start in range(0, len(a), _BLOCK):
    block = slice(start, start + _BLOCK)
    distances = a[block] @ (-2.0 * b.T)
    distances += squares
    distances += np.square(a[block]).sum(1)[:, None]
    yield block, distances


def nearest(
  examples: Float[np.ndarray, "examples ..."], others: Float[np.ndarray, "others ..."]
) -> tuple[Int[np.ndarray, " examples"], Float[np.ndarray, " examples"]]:
  """Finds the nearest neighbour of each example in pixel space.

  Distances from float32 matrix products select a few candidates. The distances of the candidates are then computed
  exactly.

  Returns:
    The indices of the nearest neighbours in `others`, and the distances to them, float64.
  """
  examples, others = (images.reshape(len(images), -1) for images in (examples, others))
  centre, candidates = others.mean(0), min(_CANDIDATES, len(others))
  positions, distances = [], []
  for block, rounded in _squared_distances(examples - centre, others - centre):
    near = np.argpartition(rounded, candidates - 1, 1)[:, :candidates]
    exact = np.stack([_squared_errors(examples[block], others, column) for column in near.T], 1)
    best = exact.argmin(1)[:, None]
    positions.append(np.take_along_axis(near, best, 1)[:, 0])
    distances.append(np.sqrt(np.take_along_axis(exact, best, 1)[:, 0]))
  return np.concatenate(positions), np.concatenate(distances)


def _squared_errors(a, b, chosen):
  """Returns the squared distance of each row of `a` to the row of `b` at `chosen`, float64.

  The rows are processed in parts, because temporary arrays that fit in the cache make this several times faster.
  """
  size = max(1, _PART // a.shape[1])
  parts = (slice(start, start + size) for start in range(0, len(a), size))
  return np.concatenate([np.square(a[part] - b[chosen[part]], dtype=np.float64).sum(1) for part in parts])
