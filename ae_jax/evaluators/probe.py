"""What a simple reader gets from the code: labels by a linear and a nearest-neighbour classifier, classes by k-means.

Readers learn from at most 10,000 training examples, standardised, and are tested on at most 2,500 test examples, at
even distances. Beside the code ("code") they are given as many principal components ("pca") and the bare numbers of the
examples ("pixels").
"""

import warnings

import numpy as np

from ae_jax.evaluators import base, figures, reconstruction
from ae_jax.evaluators.context import shown
from ae_jax.ops import losses

FEW = 10  # labels of each class
TESTED = 2_500  # test examples at most: the nearest neighbours of more pixels take longest of all
MAPPED = 1000  # test examples in the map, at even distances
MOST_PIXELS = 4096  # numbers of an example up to which readers are given them bare; of more it takes minutes
_DRAWS = 5  # of those few labels
_MOST_CLASSES = 100
_NEIGHBOURS = 5
_ITERATIONS = 200  # of the logistic regression, at most: MNIST's pixels take 50
_STARTS = 2  # of k-means, the best of which counts
_MAP_ITERATIONS = 500  # of t-SNE: after twice as many the map of MNIST is the same
_WORDS = {"code": "code", "pca": "PCA", "pixels": "pixels"}


def analyze(context):
  """Generates accuracies with all and with few labels, and how clusters agree with classes.

  Their names are MEASURE/FEATURES. Of few labels, 10 of each class drawn 5 times, there is the mean of the accuracies,
  the lowest and the highest.
  """
  missing = _missing(context)
  if missing:
    yield "remark", missing
    return
  generator = context.generator()
  draws = [few(context.train_labels, generator) for _ in range(_DRAWS)]
  yield from _remarks(context, draws[0])
  from threadpoolctl import threadpool_limits

  found = {}
  with threadpool_limits(1):  # where others are at work too, threads that wait for each other cost four times as much
    for name, (train, test) in _features(context).items():
      for measure, value in _read(train, test, context, draws):
        found[measure, name] = value
  yield from ((f"{measure}/{name}", value) for (measure, name), value in found.items())
  readings = [(reader, name) for reader in READERS for name in _WORDS if (reader, name) in found]
  bars = {f"{reader} of {_WORDS[name]}": found[reader, name] for reader, name in readings}
  title = "what a linear and a nearest-neighbour classifier get right, given all labels"
  yield "accuracy", figures.Bars(title, tuple(bars), np.array(list(bars.values())), "reader", "test accuracy")


def _missing(context):
  """Why nothing can be read, "" if it can."""
  classes = len(np.unique(context.train_labels))
  if classes < 2:
    return "the training examples have one label: there is nothing that a classifier could tell apart"
  if classes > _MOST_CLASSES:
    return f"the training examples have {classes} labels, and readers are given {_MOST_CLASSES} at most"
  return ""


def _remarks(context, drawn):
  """Generates what is left out, and why."""
  counts = np.unique(context.train_labels, return_counts=True)[1]
  small = int((counts < FEW).sum())
  if small:
    outcome = "readers with few labels never say them" if len(drawn) else "there are no readers with few labels"
    yield "few", f"of {len(counts)} classes {small} have less than {FEW} training examples: {outcome}"
  if len(np.unique(context.test_labels)) < 2:
    yield "kmeans", "the test examples have one label: there are no classes that clusters could agree with"
  elements = context.test[0].size
  if elements > MOST_PIXELS:
    yield "pixels", f"examples of {elements:,} numbers are not read bare, which those of up to {MOST_PIXELS:,} are"


def _features(context):
  """What the readers are given: {name: (training examples [N, features], test examples)}."""
  tested = _tested(context)
  train, test = (losses.flat(x) for x in (context.train, context.test[tested]))
  transform = reconstruction.fitted_pca(train, context.run.model.code.numbers).transform
  found = {"code": (context.train_codes, context.test_codes[tested]), "pca": (transform(train), transform(test))}
  return found | ({"pixels": (train, test)} if train.shape[1] <= MOST_PIXELS else {})


def _tested(context):
  """Numbers of the test examples that readers are tested on."""
  return shown(TESTED, len(context.test))


def _read(train, test, context, draws):
  """Generates (name, value) of what all readers make of some features."""
  from sklearn.preprocessing import StandardScaler  # a second of imports

  train_labels, test_labels = context.train_labels, context.test_labels[_tested(context)]
  scaler = StandardScaler().fit(train)
  train, test = scaler.transform(train), scaler.transform(test)
  for reader, classifier in READERS.items():
    yield reader, accuracy(classifier(len(train)), train, train_labels, test, test_labels)
  for reader, classifier in READERS.items():
    found = [
      accuracy(classifier(len(draw)), train[draw], train_labels[draw], test, test_labels) for draw in draws if len(draw)
    ]
    if found:
      yield f"{reader}_few", float(np.mean(found))
      yield f"{reader}_few_low", min(found)
      yield f"{reader}_few_high", max(found)
  if len(np.unique(test_labels)) > 1:
    nmi, ari = agreement(train, test, test_labels)
    yield "kmeans_nmi", nmi
    yield "kmeans_ari", ari


def _linear(examples):
  from sklearn.linear_model import LogisticRegression

  del examples
  return LogisticRegression(max_iter=_ITERATIONS, tol=1e-3)


def _knn(examples):
  from sklearn.neighbors import KNeighborsClassifier

  return KNeighborsClassifier(min(_NEIGHBOURS, examples))


READERS = {"linear": _linear, "knn": _knn}  # name -> function (how many examples there are) -> classifier


def accuracy(classifier, train, train_labels, test, test_labels):
  """The share of the test examples whose label a classifier says, fitted on training examples [N, features]."""
  from sklearn.exceptions import ConvergenceWarning

  with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)  # the last iterations change no accuracy worth telling
    return float(classifier.fit(train, train_labels).score(test, test_labels))


def few(labels, generator):
  """Numbers of FEW examples of each class, drawn at random; of smaller classes none, and [] where there is but one."""
  chosen = [np.flatnonzero(labels == label) for label in np.unique(labels)]
  drawn = [generator.choice(numbers, FEW, replace=False) for numbers in chosen if len(numbers) >= FEW]
  return np.concatenate(drawn) if len(drawn) > 1 else np.array([], int)


def agreement(train, test, test_labels):
  """Normalised mutual information and adjusted Rand index of the classes and of k-means, with as many clusters.

  k-means is fitted on training examples [N, features], so that the order of the test examples is of no account.
  """
  from sklearn import cluster, metrics
  from sklearn.exceptions import ConvergenceWarning

  clusters = min(len(np.unique(test_labels)), len(train))
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)  # of examples that coincide there are fewer clusters
    found = cluster.KMeans(clusters, n_init=_STARTS, random_state=0).fit(train).predict(test)
  nmi = metrics.normalized_mutual_info_score(test_labels, found)
  return float(nmi), float(metrics.adjusted_rand_score(test_labels, found))


def latent_map(context):
  """Generates a map of test examples: their codes in the plane, by PCA, t-SNE and, if it is installed, UMAP."""
  some = shown(MAPPED, len(context.test))
  codes = context.test_codes[some].astype(np.float64)
  views = {"PCA": _by_pca(codes)} | {name: view(codes) for name, view in _VIEWS.items() if len(codes) > 10}
  views = {name: np.asarray(points, np.float32) for name, points in views.items() if points is not None}
  labels = np.zeros(len(some), int) if context.test_labels is None else context.test_labels[some]
  title = "test examples where their codes lie, in the plane"
  yield "latent_map", figures.Points(title, views, context.test[some], labels)


def _by_pca(codes):
  """The first two principal components of codes [N, latent]: [N, 2], 0 where there are fewer."""
  centred = codes - codes.mean(0)
  components = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
  return np.pad(components, ((0, 0), (0, 2 - components.shape[1])))


def _by_tsne(codes):
  from sklearn.manifold import TSNE
  from threadpoolctl import threadpool_limits

  start = _by_pca(codes)
  width = start[:, 0].std()
  if width == 0.0:
    return None  # all in one point
  options = {"perplexity": min(30.0, (len(codes) - 1) / 3), "max_iter": _MAP_ITERATIONS, "random_state": 0}
  options["init"] = (1e-4 / width * start).astype(np.float32) if start[:, 1].any() else "random"  # a line stays one
  with threadpool_limits(1):  # sums in one order on any machine; and threads that wait for busy cores take minutes
    return TSNE(**options).fit_transform(codes / width)


def _by_umap(codes):
  if not codes.std(0).any():
    return None
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, as it is imported, and that a fixed seed takes one thread
    try:
      import umap  # umap-learn, for whom it pays: not a dependency
    except ImportError:
      return None
    return umap.UMAP(random_state=0).fit_transform(codes)


_VIEWS = {"t-SNE": _by_tsne, "UMAP": _by_umap}


EVALUATOR = base.Evaluator(
  name="probe", analyses=(base.Analysis(latent_map), base.Analysis(analyze, needs=("labels",)))
)
