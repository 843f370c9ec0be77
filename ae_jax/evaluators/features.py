"""How alike two sets of examples are: in features that mean something for the data, and in their pixels."""

import warnings

import numpy as np

from ae_jax.evaluators.context import shown

NEIGHBOURS = 3  # k (Kynkaanniemi et al. 2019)
WIDTH = 64  # features
_HIDDEN = 128  # of the classifier, before them
_EPOCHS = 6
_MOST_CLASSES = 1_000
_MOST_NUMBERS = 2**26  # in the examples that it is trained on, so that fewer of large ones are taken
_CANDIDATES = 4  # for the nearest, among which rounding does not decide
_BLOCK = 512  # rows of distances that are computed at once
_ROUNDING = 1e-10  # of the largest squared distance: what is no longer by more is not longer


def of(context):
  """A function from examples to features [N, D at most 64]; generates (name, value) of what these are."""
  labels, test_labels = context.train_labels, context.test_labels
  if not labelled(labels):
    yield (
      "features",
      (
        "there are no labels of several classes to train a classifier on: precision, recall and the Frechet distance are "
        f"in the {WIDTH} leading principal components of the training examples"
      ),
    )
    return of_components(context.train)
  to_features, to_classes = of_classifier(context.train, labels)
  if test_labels is not None:
    yield "classifier_accuracy", float((to_classes(context.test) == test_labels).mean())
  yield (
    "features",
    (
      f"precision, recall and the Frechet distance are in the {WIDTH} features of a small classifier that is trained "
      "here: they compare models of the same data, and with no published FID"
    ),
  )
  return to_features


def labelled(labels):
  """Whether a classifier can be trained on labels, integers [N] or None."""
  return labels is not None and 2 <= len(np.unique(labels)) <= min(_MOST_CLASSES, len(labels) // 2)


def of_classifier(examples, labels):
  """A small classifier trained on examples [N, ...] and their labels: (to features, to classes), functions of examples.

  Features are float64 [N, 64], its last hidden layer. Its seed is the same in all runs, which are measured alike on
  the same data.
  """
  from sklearn.exceptions import ConvergenceWarning  # a second of imports
  from sklearn.neural_network import MLPClassifier
  from threadpoolctl import threadpool_limits

  some = shown(max(2, _MOST_NUMBERS // examples[0].size), len(examples))
  examples, labels = examples[some], labels[some]
  flat = lambda x: x.reshape(len(x), -1)
  centre, scale = examples.mean(dtype=np.float64), examples.std(dtype=np.float64) or 1.0
  scaled = lambda x: ((flat(x) - centre) / scale).astype(np.float32)
  network = MLPClassifier((_HIDDEN, WIDTH), learning_rate_init=2e-3, max_iter=_EPOCHS, random_state=0)
  with threadpool_limits(1, "blas"), warnings.catch_warnings():  # many small products, for which threads only wait
    warnings.simplefilter("ignore", ConvergenceWarning)  # so many epochs and no more
    network.fit(scaled(examples), labels)

  def features(x):
    h = scaled(x)
    for weights, bias in zip(network.coefs_[:-1], network.intercepts_[:-1], strict=True):
      h = np.maximum(h @ weights + bias, 0.0)
    return h.astype(np.float64)

  return features, lambda x: network.predict(scaled(x))


def of_components(examples):
  """A function from examples [N, ...] to their leading principal components, float64 [N, 64 at most]."""
  from sklearn.decomposition import PCA  # a second of imports

  flat = examples.reshape(len(examples), -1)
  with np.errstate(divide="ignore", invalid="ignore"):  # shares of a variance that is 0
    fitted = PCA(min(WIDTH, *flat.shape), random_state=0).fit(flat)
  return lambda x: fitted.transform(x.reshape(len(x), -1)).astype(np.float64)


def frechet_distance(a, b):
  """|difference of means|^2 + tr(A + B - 2 (A B)^(1/2)) of the gaussians of points [N, D] and [M, D].

  It is the squared Wasserstein distance of these (Dowson & Landau 1982).
  """
  between_means = np.square(a.mean(0) - b.mean(0)).sum()
  a, b = (_covariance(points) for points in (a, b))
  root = square_root(a)
  cross = np.linalg.eigvalsh(root @ b @ root)  # those of A B
  return float(max(between_means + np.trace(a) + np.trace(b) - 2 * np.sqrt(np.maximum(cross, 0.0)).sum(), 0.0))


def _covariance(points):
  centred = points - points.mean(0)
  return centred.T @ centred / len(points)


def square_root(matrix):
  """The symmetric square root of a symmetric matrix [D, D] without negative eigenvalues."""
  values, vectors = np.linalg.eigh(matrix)
  return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def precision_recall(real, made, neighbours=NEIGHBOURS):
  """Shares of `made` points [M, D] in the manifold of `real` ones [N, D], and of these in that of the made ones.

  A point is in the manifold of a set if it is no further from one of its points than that one's k-th neighbour
  (Kynkaanniemi et al. 2019).
  """
  centre = real.mean(0)
  real, made = real - centre, made - centre
  slack = _ROUNDING * max(np.square(real).sum(1).max(), np.square(made).sum(1).max())
  reach_of_real, reach_of_made = (_squared_reach(points, neighbours) + slack for points in (real, made))
  looks_real, covered = np.zeros(len(made), bool), np.zeros(len(real), bool)
  for block, distances in _squared_distances(made, real):
    looks_real[block] = (distances <= reach_of_real).any(1)
    covered |= (distances <= reach_of_made[block, None]).any(0)
  return float(looks_real.mean()), float(covered.mean())


def _squared_reach(points, neighbours):
  """The squared distance of each point [N, D] to its k-th neighbour among the others: [N]."""
  blocks = _squared_distances(points, points)
  return np.concatenate([np.partition(distances, neighbours, 1)[:, neighbours] for _, distances in blocks])  # 0: itself


def _squared_distances(a, b):
  """Generates (rows of a, their squared distances to all points of b [rows, M]), to rounding."""
  squares = np.square(b).sum(1)
  for start in range(0, len(a), _BLOCK):
    block = slice(start, start + _BLOCK)
    distances = a[block] @ (-2.0 * b.T)
    distances += squares
    distances += np.square(a[block]).sum(1)[:, None]
    yield block, distances


def nearest(examples, others):
  """Which of others [M, ...] is nearest to each of examples [N, ...], pixel by pixel, and how far: [N], float64 [N].

  Products in float32 find a few that are near, and of these it is exact.
  """
  examples, others = (each.reshape(len(each), -1) for each in (examples, others))
  centre, few = others.mean(0), min(_CANDIDATES, len(others))
  which, distances = [], []
  for block, rounded in _squared_distances(examples - centre, others - centre):
    near = np.argpartition(rounded, few - 1, 1)[:, :few]
    exact = np.stack([_squared_errors(examples[block], others[column]) for column in near.T], 1)
    best = exact.argmin(1)[:, None]
    which.append(np.take_along_axis(near, best, 1)[:, 0])
    distances.append(np.sqrt(np.take_along_axis(exact, best, 1)[:, 0]))
  return np.concatenate(which), np.concatenate(distances)


def _squared_errors(a, b):
  return np.square(a - b, dtype=np.float64).sum(1)
