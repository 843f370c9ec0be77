"""The model as a generator: samples, interpolations, and the quality of the samples.

Latent codes are drawn from a Gaussian mixture fitted to the training latents and, if the model is a variational
autoencoder, also from the prior.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int

from ae_jax import api, objectives
from ae_jax.evaluators import base, densities, features, likelihood, reconstruction, shown
from ae_jax.evaluators.context import EvalContext, spaced
from ae_jax.evaluators.figures import ExampleRows, Explorer, Gallery

DRAWS = 3_000  # maximum number of samples from each density, and of examples with which the samples are compared
POSITIONS = np.linspace(-2.5, 2.5, 11)  # positions of the explorer's grid points, in standard deviations
_COARSE_POSITIONS = np.linspace(-2.5, 2.5, 5)  # for large examples
_MAX_NEAREST = 1_000  # maximum number of samples whose nearest training example is searched for
_MAX_PRODUCTS = 2**35  # maximum number of multiplications in this search; at least the gallery is included
_MAX_ELEMENTS = 2**25  # maximum number of elements in all samples from a density, and in the grids of the explorer
_MAX_LATENT = 4_096  # maximum size of the latent code
_POOR_PRIOR = 3.0  # ratio of Fréchet distances from which draws from the prior are called poor
_GALLERY, _LARGE_GALLERY = 64, 16  # samples in the gallery; the second number is for large examples
_PAIRS, _STEPS = 4, 9  # number of pairs of test examples, and of latent codes on the path between the two examples
_LARGE_PAIRS, _LARGE_STEPS = 2, 5  # the same for large examples, of which hundreds take minutes to decode
_DIRECTIONS = 6  # maximum number of directions in the explorer
_MAX_CLASSES = 20  # maximum number of classes in the figure of samples by class


def analyze(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields samples, interpolations, comparisons of samples with the data, and the likelihood of a variational model."""
  if context.train_codes.shape[1] > _MAX_LATENT:
    yield (
      "remark",
      (
        f"there are no samples: the latent code has {context.train_codes.shape[1]:,} dimensions, and a density can be "
        f"fitted to at most {_MAX_LATENT:,}"
      ),
    )
    return
  if not len(_normal_indices(context)):
    yield (
      "remark",
      "there are no samples: they are compared with test examples of the training class, and there are none",
    )
    return
  if context.run.model.has_skips:
    yield "skips", "samples have no skip connections: the decoder receives zeros instead"
  if context.run.model.has_posterior and not variational(context.run):
    yield (
      "prior",
      "there are no samples from the prior: the objective is not the ELBO, so latent codes do not follow the prior",
    )
  samples = {}
  for name, description, codes in _densities(context):
    decoded = context.decode(codes)
    gallery = Gallery(f"Samples from {description}", decoded[: _gallery_size(context)])
    yield f"samples_{name}" if samples else "samples", gallery
    samples[name] = decoded
  if context.run.model.labels:
    yield "samples_by_class", samples_by_class(context)
  yield from interpolations(context)
  yield from explorer(context)
  yield from memorisation(context, samples)
  yield from sample_quality(context, samples)
  if variational(context.run):
    yield from likelihood.analyze(context)


def variational(run: api.Run) -> bool:
  """Returns whether the model has a posterior, and the objective makes latent codes follow the prior."""
  return run.model.has_posterior and objectives.OBJECTIVES[run.config.objective.name].samples_posterior


def _is_large(context: EvalContext) -> bool:
  """Returns whether examples are so large that figures contain fewer of them."""
  return 3 * len(POSITIONS) ** 2 * context.test[0].size > _MAX_ELEMENTS


def _gallery_size(context: EvalContext) -> int:
  return _LARGE_GALLERY if _is_large(context) else _GALLERY


def _normal_indices(context: EvalContext) -> Int[np.ndarray, " normal"]:
  """Returns the indices of the test examples that are not anomalous."""
  return reconstruction.trained_class_only(np.arange(len(context.test)), context.dataset)


def samples_by_class(context: EvalContext) -> ExampleRows:
  """Returns samples from the prior for each label. All rows of the figure decode the same latent codes."""
  labels = context.run.model.labels[:_MAX_CLASSES]
  codes = context.prior_codes(_STEPS)
  rows = {
    context.dataset.class_in_words(label): context.decode(codes, {"label": np.full(_STEPS, number, np.int32)})
    for number, label in enumerate(labels)
  }
  return ExampleRows("Samples from the prior for each label, decoded from the same latent codes", rows)


def _densities(context: EvalContext) -> Iterator[tuple[str, str, Float32[np.ndarray, "draws latent"]]]:
  """Yields (name, description, latent codes drawn from the density) for each density."""
  count = max(_gallery_size(context), min(DRAWS, _MAX_ELEMENTS // context.test[0].size))
  if variational(context.run):
    yield "prior", "the prior", context.prior_codes(count)
  draws = densities.fit(context.train_codes).draw(count, context.generator())
  yield "mixture", "a Gaussian mixture fitted to the training codes", context.nearest_codes(draws)


def interpolations(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields a figure of decoded latent codes between two test examples, on a straight line and on an arc.

  For a variational model, the centre of the arc is the origin, which is the mean of the prior. For other models, it is
  the mean latent code.
  """
  pairs = _pairs(context)
  if not pairs:
    yield "interpolations", "there are no interpolations: they need two test examples, and there is only one"
    return
  fractions, rows = np.linspace(0.0, 1.0, _LARGE_STEPS if _is_large(context) else _STEPS), {}
  centre = 0.0 if variational(context.run) else context.train_codes.mean(0, dtype=np.float64)
  ends, missing = shown.marked(context, np.array(pairs).ravel())
  for number, (start, end) in enumerate(pairs, 1):
    columns = context.columns("test", np.full(len(fractions), start))
    first, last = context.test_codes[[start, end]].astype(np.float64)
    paths = {"line": densities.line(first, last, fractions), "arc": densities.arc(first, last, fractions, centre)}
    for path, codes in paths.items():
      decoded = context.decode(context.nearest_codes(codes), columns)
      rows[f"{number}, {path}"] = np.concatenate([ends[[2 * number - 2]], decoded, ends[[2 * number - 1]]])
  label = "; both use the label of the first example" if context.run.model.labels else ""
  title = (
    "Interpolations between two test examples (first and last column): latent codes on a straight line and on an arc "
    f"around the centre{label}{missing}"
  )
  yield "interpolations", ExampleRows(title, rows)


def _pairs(context: EvalContext) -> list[tuple[int, int]]:
  """Returns the indices of random pairs of test examples, with different labels where possible."""
  order, labels = context.generator().permutation(_normal_indices(context)), context.test_labels
  middle = len(order) // 2
  pairs = []
  for number, start in enumerate(order[:middle][: _LARGE_PAIRS if _is_large(context) else _PAIRS]):
    ends = order[middle:]
    if labels is not None and (labels[ends] != labels[start]).any():
      ends = ends[labels[ends] != labels[start]]
    pairs.append((int(start), int(ends[number % len(ends)])))
  return pairs


def explorer(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields a figure of decoded latent codes on grids around the mean code of the test examples.

  Each grid has two directions, which are single latent units for a variational model and principal components for
  other models. If the latents vary in one direction only, the figure is a traversal of this direction.
  """
  codes = context.test_codes[_normal_indices(context)]
  positions = _COARSE_POSITIONS if _is_large(context) else POSITIONS
  names, steps = _directions(codes, variational(context.run))
  mean = codes.mean(0, dtype=np.float64)
  columns = lambda count: context.columns("test", np.zeros(count, int))  # the columns of the first test example
  decode = lambda offsets: context.decode(context.nearest_codes(mean + offsets), columns(len(offsets)))
  if len(steps) == 0:
    yield "explorer", "there is no explorer: the latent codes of the test examples do not vary"
    return
  if len(steps) == 1:
    title = (
      f"Traversal of the only direction in which latent codes vary, from {POSITIONS[0]:g} to {POSITIONS[-1]:g} "
      "standard deviations"
    )
    yield "traversal", ExampleRows(title, {names[0]: decode(POSITIONS[:, None] * steps)})
    return
  steps = steps[: 2 * max(1, _MAX_ELEMENTS // (len(positions) ** 2 * context.test[0].size))]
  pairs = [(i, i + 1 if i + 1 < len(steps) else 0) for i in range(0, len(steps), 2)]
  down, across = (steps[[pair[side] for pair in pairs], None, None] for side in (0, 1))
  offsets = positions[:, None, None] * down + positions[:, None] * across  # [pairs, steps, steps, latent]
  examples = decode(offsets.reshape(-1, codes.shape[1]))
  title = (
    f"Decoded latent codes around the mean, along two directions at a time, from {positions[0]:g} to {positions[-1]:g} "
    "standard deviations of test codes"
  )
  shape = (len(pairs), len(positions), len(positions), *examples.shape[1:])
  yield "explorer", Explorer(title, tuple(names[i] for pair in pairs for i in pair), positions, examples.reshape(shape))


def _directions(
  codes: Float[np.ndarray, "examples latent"], of_units: bool
) -> tuple[list[str], Float[np.ndarray, "directions latent"]]:
  """Returns the names of at most six directions of large variance, and a vector of one standard deviation along each.

  If `of_units` is True, the directions are the latent units with the largest variance, because a unit
  that carries no information has a constant posterior mean. Otherwise, the directions are principal components.
  """
  directions, deviations = densities.principal_directions(codes)
  names = [f"direction {number + 1}" for number in range(len(deviations))]
  if of_units:
    deviations = codes.std(0, dtype=np.float64)
    order = np.argsort(-deviations, kind="stable")[: len(names)]
    directions, deviations, names = np.eye(codes.shape[1])[order], deviations[order], [f"z[{unit}]" for unit in order]
  return names[:_DIRECTIONS], (directions * deviations[:, None])[:_DIRECTIONS]


def memorisation(context: EvalContext, samples: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Any]]:
  """Yields the memorisation ratio of each set of samples, and a figure of samples and their nearest training examples.

  The ratio is the mean distance of samples to their nearest training examples, divided by the mean distance of test
  examples to their nearest training examples. It is near 0 if the model reproduces its training examples. Blurred
  images are closer to every image, so the ratio of reconstructed test examples is included as a reference.
  """
  count = min(_MAX_NEAREST, max(_gallery_size(context), _MAX_PRODUCTS // context.train.size))
  indices = _normal_indices(context)
  indices = indices[spaced(count, len(indices))]
  _, test_distances = features.nearest(context.test[indices], context.train)
  yield "nearest_training_distance", float(test_distances.mean())
  sets = {**samples, "test_reconstructions": context.reconstructions[indices]}
  for number, (name, examples) in enumerate(sets.items()):
    if not np.isfinite(examples).all():
      yield (
        f"memorisation_{name}",
        (f"there is no memorisation ratio for {name}: some of these decoded examples are not finite"),
      )
      continue
    neighbours, distances = features.nearest(examples[:count], context.train)
    yield f"memorisation_ratio/{name}", reconstruction.ratio(float(distances.mean()), float(test_distances.mean()))
    if number == 0:
      first = slice(shown.SHOWN)
      nearest, missing = shown.marked(context, neighbours[first], "train")
      title = f"Samples and the training examples at the smallest Euclidean distance{missing}"
      yield "nearest", ExampleRows(title, {"samples": examples[first], "nearest training examples": nearest})
  yield (
    "memorisation",
    (
      "the memorisation ratio is the mean distance to the nearest training example, divided by the same mean for test "
      "examples: it is near 0 for copies of training examples, and below 1 for examples with less detail, such as "
      "reconstructions"
    ),
  )


def sample_quality(context: EvalContext, samples: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Any]]:
  """Yields the Fréchet distance, precision and recall of samples, compared with test examples in a feature space.

  For reference, training examples and reconstructions of training examples are compared with test examples too. The
  results depend on the number of examples, so all sets have the same size. Features are scaled so that their total
  variance over the training examples is 1.
  """
  indices = _normal_indices(context)
  size = min(len(indices), len(context.train), *map(len, samples.values()), DRAWS)
  if size <= features.NEIGHBOURS:
    yield (
      "sample_quality",
      (
        f"there is no precision, recall or Fréchet distance: this needs more than {features.NEIGHBOURS} training and "
        f"{features.NEIGHBOURS} test examples, and there are only {size}"
      ),
    )
    return
  train_indices = spaced(size, len(context.train))
  train = context.train[train_indices]
  reconstructed = context.run.apply("reconstruct", train, context.columns("train", train_indices))
  sets = {**samples, "training_reconstructions": reconstructed, "training_examples": train}
  to_features = yield from features.feature_function(context)
  scale = math.sqrt(to_features(train).var(0).sum()) or 1.0
  real = to_features(context.test[indices[spaced(size, len(indices))]]) / scale
  yield "compared_examples", size
  distances = {}
  for name, examples in sets.items():
    if not np.isfinite(examples).all():
      continue
    generated = to_features(examples[:size]) / scale
    precision, recall = features.precision_recall(real, generated)
    distances[name] = features.frechet_distance(real, generated)
    yield f"frechet_distance/{name}", distances[name]
    yield f"precision/{name}", precision
    yield f"recall/{name}", recall
  yield from _prior_gap(distances)


def _prior_gap(distances: Mapping[str, float]) -> Iterator[tuple[str, str]]:
  """Yields a note if draws from the prior are much worse than draws from the mixture, given Fréchet distances."""
  if not {"prior", "mixture", "training_examples"} <= {*distances}:
    return
  if distances["prior"] > _POOR_PRIOR * (distances["mixture"] + distances["training_examples"]):
    yield (
      "prior_gap",
      (
        f"the Fréchet distance of draws from the prior ({distances['prior']:.3g}) is much larger than that of draws "
        f"from a mixture fitted to the training codes ({distances['mixture']:.3g}): the codes do not follow the prior. "
        "Raise config.objective.beta, or draw samples with run.sample(n, like=x)"
      ),
    )


EVALUATOR = base.Evaluator(
  name="generation", skipped_without=("complete", "no_targets"), analyses=(base.Analysis(analyze),)
)
