"""Probes of the latent code: linear and nearest-neighbour classifiers, k-means clusters, and two-dimensional maps.

Probes are fitted to at most 10,000 training examples and tested on at most 2,500 evenly spaced test examples. The
features of an example are its latent code ("code") or one of two baselines: as many principal components as the code
has dimensions ("pca"), or the elements of the example ("pixels"). Features are standardised.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ae_jax.evaluators import base, figures, shown
from ae_jax.evaluators.context import EvalContext, spaced
from ae_jax.ops import losses

FEW_LABELS = 10  # labels per class of the probes with few labels
MAX_TESTED = 2_500  # maximum number of test examples; most of the time is spent on nearest neighbours in pixel space
MAX_MAPPED = 1000  # maximum number of evenly spaced test examples in the map
MAX_PIXELS = 4096  # maximum number of elements of an example for probes of the pixels; larger examples take minutes
_DRAWS = 5  # number of random draws of few labels
_MAX_CLASSES = 100  # maximum number of classes
_NEIGHBOURS = 5
_MAX_ITERATIONS = 200  # of the logistic regression; the pixels of MNIST take 50
_STARTS = 2  # number of initialisations of k-means; the best result is used
_MAP_ITERATIONS = 500  # of t-SNE; 1,000 give the same map of MNIST
_FEATURES = {"code": "latent code", "pca": "PCA", "pixels": "raw elements"}


def analyze(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields accuracies with all labels and with few labels, the agreement of clusters with classes, and a figure.

  The names are MEASURE/FEATURES, such as "linear/code". "Few labels" means 10 labels per class. They are drawn 5
  times, and the mean, the lowest and the highest accuracy are yielded.
  """
  obstacle = _obstacle(context)
  if obstacle:
    yield "remark", obstacle
    return
  generator = context.generator()
  draws = [few(context.train_labels, generator) for _ in range(_DRAWS)]
  yield from _remarks(context, draws[0])
  from threadpoolctl import threadpool_limits

  values = {}
  with threadpool_limits(1):  # with several threads, this takes four times as long if other processes run
    for name, (train, test) in _features(context).items():
      for measure, value in _probe(train, test, context, draws):
        values[measure, name] = value
  yield from ((f"{measure}/{name}", value) for (measure, name), value in values.items())
  keys = [(probe, name) for probe in PROBES for name in _FEATURES if (probe, name) in values]
  bars = {f"{probe} of {_FEATURES[name]}": values[probe, name] for probe, name in keys}
  title = "Test accuracy of linear and nearest-neighbour classifiers, trained on all labels"
  yield "accuracy", figures.Bars(title, tuple(bars), np.array(list(bars.values())), "probe", "test accuracy")


def _obstacle(context: EvalContext) -> str:
  """Returns why the labels do not allow probes; "" if they do."""
  classes = len(np.unique(context.train_labels))
  if classes < 2:
    return "there are no probes: all training examples have one label, and a classifier needs two"
  if classes > _MAX_CLASSES:
    return f"there are no probes: the training examples have {classes} labels, and the limit is {_MAX_CLASSES}"
  return ""


def _remarks(context: EvalContext, drawn: Int[np.ndarray, " drawn"]) -> Iterator[tuple[str, str]]:
  """Yields notes about measures that are omitted.

  `drawn` holds the training indices of one draw of few labels.
  """
  counts = np.unique(context.train_labels, return_counts=True)[1]
  small = int((counts < FEW_LABELS).sum())
  if small:
    outcome = (
      "probes with few labels never predict these classes" if len(drawn) else "there are no probes with few labels"
    )
    yield "few", f"{small} of {len(counts)} classes have fewer than {FEW_LABELS} training examples: {outcome}"
  if len(np.unique(context.test_labels)) < 2:
    yield (
      "kmeans",
      "there are no k-means clusters: all test examples have one label, and the agreement with classes needs two",
    )
  elements = context.test[0].size
  if elements > MAX_PIXELS:
    yield (
      "pixels",
      f"there are no probes of the raw elements: examples have {elements:,} elements, and the limit is {MAX_PIXELS:,}",
    )


def _features(context: EvalContext) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Returns the features of N training and M test examples: {name: ([N, features], [M, features])}."""
  tested = _tested_indices(context)
  train, test = (losses.flat(x) for x in (context.train, context.test[tested]))
  transform = context.baseline_pca.transform
  features = {"code": (context.train_codes, context.test_codes[tested]), "pca": (transform(train), transform(test))}
  return features | ({"pixels": (train, test)} if train.shape[1] <= MAX_PIXELS else {})


def _tested_indices(context: EvalContext) -> Int[np.ndarray, " tested"]:
  """Returns the indices of the test examples on which probes are tested."""
  return spaced(MAX_TESTED, len(context.test))


def _probe(
  train: Float[np.ndarray, "train features"],
  test: Float[np.ndarray, "test features"],
  context: EvalContext,
  draws: Sequence[np.ndarray],
) -> Iterator[tuple[str, float]]:
  """Yields (name, value) of all measures for one kind of features.

  Each item of `draws` holds the training indices of one draw of few labels.
  """
  from sklearn.preprocessing import StandardScaler  # a second of imports

  train_labels, test_labels = context.train_labels, context.test_labels[_tested_indices(context)]
  scaler = StandardScaler().fit(train)
  train, test = scaler.transform(train), scaler.transform(test)
  for name, classifier in PROBES.items():
    yield name, accuracy(classifier(len(train)), train, train_labels, test, test_labels)
  for name, classifier in PROBES.items():
    accuracies = [
      accuracy(classifier(len(draw)), train[draw], train_labels[draw], test, test_labels) for draw in draws if len(draw)
    ]
    if accuracies:
      yield f"{name}_few", float(np.mean(accuracies))
      yield f"{name}_few_low", min(accuracies)
      yield f"{name}_few_high", max(accuracies)
  if len(np.unique(test_labels)) > 1:
    nmi, ari = agreement(train, test, test_labels)
    yield "kmeans_nmi", nmi
    yield "kmeans_ari", ari


def _linear(examples: int) -> Any:
  from sklearn.linear_model import LogisticRegression

  del examples
  return LogisticRegression(max_iter=_MAX_ITERATIONS, tol=1e-3)


def _knn(examples: int) -> Any:
  from sklearn.neighbors import KNeighborsClassifier

  return KNeighborsClassifier(min(_NEIGHBOURS, examples))


PROBES = {"linear": _linear, "knn": _knn}  # name -> function that maps the number of training examples to a classifier


def accuracy(
  classifier: Any,
  train: Float[np.ndarray, "train features"],
  train_labels: Int[np.ndarray, " train"],
  test: Float[np.ndarray, "test features"],
  test_labels: Int[np.ndarray, " test"],
) -> float:
  """Returns the test accuracy of a classifier after fitting it to the training examples."""
  from sklearn.exceptions import ConvergenceWarning

  with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)  # the last iterations hardly change the accuracy
    return float(classifier.fit(train, train_labels).score(test, test_labels))


def few(labels: Int[np.ndarray, " examples"], generator: np.random.Generator) -> Int[np.ndarray, " drawn"]:
  """Returns the indices of `FEW_LABELS` random examples of each class.

  Classes with fewer than `FEW_LABELS` examples are omitted. The result is empty if fewer than two classes remain.
  """
  classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
  drawn = [generator.choice(indices, FEW_LABELS, replace=False) for indices in classes if len(indices) >= FEW_LABELS]
  return np.concatenate(drawn) if len(drawn) > 1 else np.array([], int)


def agreement(
  train: Float[np.ndarray, "train features"],
  test: Float[np.ndarray, "test features"],
  test_labels: Int[np.ndarray, " test"],
) -> tuple[float, float]:
  """Returns the normalised mutual information and the adjusted Rand index between classes and k-means clusters.

  There are as many clusters as classes. k-means is fitted to the training examples, so the results do not depend on the
  order of the test examples.
  """
  from sklearn import cluster, metrics
  from sklearn.exceptions import ConvergenceWarning

  count = min(len(np.unique(test_labels)), len(train))
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)  # duplicates can leave fewer distinct points than clusters
    clusters = cluster.KMeans(count, n_init=_STARTS, random_state=0).fit(train).predict(test)
  nmi = metrics.normalized_mutual_info_score(test_labels, clusters)
  return float(nmi), float(metrics.adjusted_rand_score(test_labels, clusters))


def latent_map(context: EvalContext) -> Iterator[tuple[str, figures.Points]]:
  """Yields a figure of the test latents projected to two dimensions by PCA, t-SNE and, if it is installed, UMAP."""
  mapped = spaced(MAX_MAPPED, len(context.test))
  codes = context.test_codes[mapped].astype(np.float64)
  views = {"PCA": _by_pca(codes)} | {name: view(codes) for name, view in _VIEWS.items() if len(codes) > 10}
  views = {name: np.asarray(points, np.float32) for name, points in views.items() if points is not None}
  labels = np.zeros(len(mapped), int) if context.test_labels is None else context.test_labels[mapped]
  examples, _ = shown.marked(context, mapped)  # thumbnails, which only pages show
  title = "Latent codes of test examples, projected to two dimensions"
  names = context.dataset.class_names or ()
  captions = context.dataset.test_captions(mapped)
  yield "latent_map", figures.Points(title, views, examples, labels, names, captions=captions)


def _by_pca(codes: Float[np.ndarray, "examples latent"]) -> Float[np.ndarray, "examples 2"]:
  """Returns the first two principal component scores of latent codes; missing scores are 0."""
  centred = codes - codes.mean(0)
  components = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
  return np.pad(components, ((0, 0), (0, 2 - components.shape[1])))


def _by_tsne(codes: Float[np.ndarray, "examples latent"]) -> Float[np.ndarray, "examples 2"] | None:
  """Returns the latents projected to two dimensions by t-SNE; None if all latents are equal."""
  from sklearn.manifold import TSNE
  from threadpoolctl import threadpool_limits

  start = _by_pca(codes)
  width = start[:, 0].std()
  if width == 0.0:
    return None
  options = {"perplexity": min(30.0, (len(codes) - 1) / 3), "max_iter": _MAP_ITERATIONS, "random_state": 0}
  # If the latents lie on a line, an initialisation by PCA would keep the points on that line.
  options["init"] = (1e-4 / width * start).astype(np.float32) if start[:, 1].any() else "random"
  with threadpool_limits(1):  # fixes the order of sums; several threads take minutes if other processes run
    return TSNE(**options).fit_transform(codes / width)


def _by_umap(codes: Float[np.ndarray, "examples latent"]) -> Float[np.ndarray, "examples 2"] | None:
  """Returns the latents projected to two dimensions by UMAP; None if it is not installed or all latents are equal."""
  if not codes.std(0).any():
    return None
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # UMAP warns on import, and about the single thread that a fixed seed requires
    try:
      import umap  # the optional package umap-learn
    except ImportError:
      return None
    return umap.UMAP(random_state=0).fit_transform(codes)


_VIEWS = {"t-SNE": _by_tsne, "UMAP": _by_umap}


EVALUATOR = base.Evaluator(
  name="probe", analyses=(base.Analysis(latent_map), base.Analysis(analyze, needs=("labels",)))
)
