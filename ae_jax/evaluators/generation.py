"""Samples, interpolations and their quality: a model as a generator.

Latent codes are drawn from the prior of a variational autoencoder and, for any model, from a Gaussian mixture fitted to
the training codes.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int

from ae_jax import api, objectives
from ae_jax.evaluators import base, densities, features, likelihood, reconstruction
from ae_jax.evaluators.context import EvalContext, spaced
from ae_jax.evaluators.figures import ExampleRows, Explorer, Gallery

DRAWS = 3_000  # maximum number of samples from each density, and of the examples they are compared with
POSITIONS = np.linspace(-2.5, 2.5, 11)  # of the explorer, in standard deviations
_COARSE_POSITIONS = np.linspace(-2.5, 2.5, 5)  # for large examples
_MAX_NEAREST = 1_000  # samples whose nearest training example is searched for
_MAX_PRODUCTS = 2**35  # of that search; at least _GALLERY samples are searched for, even if they take more
_MAX_ELEMENTS = 2**25  # in all samples from a density
_MAX_LATENT = 4_096
_GALLERY = 64  # samples in the gallery
_PAIRS, _STEPS = 4, 9  # pairs of examples, and codes on the path between the two
_DIRECTIONS = 6  # in the explorer
_MAX_CLASSES = 20  # for which a conditional model shows samples


def analyze(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Generates samples, interpolations, their comparison with the data, and the likelihood of a variational model."""
  if context.train_codes.shape[1] > _MAX_LATENT:
    yield "remark", f"the latent code has more than {_MAX_LATENT:,} dimensions, too many to fit a density"
    return
  if not len(_normal_indices(context)):
    yield "remark", "no test example has the class of the training examples: the samples have no reference"
    return
  if context.run.model.has_skips:
    yield "skips", "samples have no skip connections: the decoder receives zeros in their place"
  if context.run.model.has_posterior and not variational(context.run):
    yield "prior", "the objective is not the ELBO: latent codes do not follow the prior, so it is not sampled"
  samples = {}
  for name, description, codes in _densities(context):
    decoded = context.decode(codes)
    yield f"samples_{name}" if samples else "samples", Gallery(f"Samples from {description}", decoded[:_GALLERY])
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
  """Returns whether the objective makes latent codes follow the prior of the model."""
  return run.model.has_posterior and objectives.OBJECTIVES[run.config.objective.name].samples_posterior


def _normal_indices(context: EvalContext) -> Int[np.ndarray, " normal"]:
  """Returns the indices of the test examples that are not anomalous."""
  return reconstruction.trained_class_only(np.arange(len(context.test)), context.dataset)


def samples_by_class(context: EvalContext) -> ExampleRows:
  """Decodes the same latent codes from the prior with each label: one row per label."""
  labels = context.run.model.labels[:_MAX_CLASSES]
  codes = context.prior_codes(_STEPS)
  rows = {
    f"label {label}": context.decode(codes, {"label": np.full(_STEPS, number, np.int32)})
    for number, label in enumerate(labels)
  }
  return ExampleRows("Samples from the prior, with the same latent codes for each label", rows)


def _densities(context: EvalContext) -> Iterator[tuple[str, str, Float32[np.ndarray, "draws latent"]]]:
  """Generates (name, description, latent codes drawn from it) of each density."""
  count = max(_GALLERY, min(DRAWS, _MAX_ELEMENTS // context.test[0].size))
  codes, generator = context.train_codes, context.generator()
  if variational(context.run):
    yield "prior", "the prior", context.prior_codes(count)
  mixture = densities.fit(codes)
  description = "a Gaussian mixture fitted to the training codes"
  yield "mixture", description, context.nearest_codes(mixture.draw(count, generator))


def interpolations(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Generates decoded interpolations between pairs of test examples, along a straight line and along an arc.

  The centre of the arc is the mean of the prior, the origin, for a variational model; otherwise the mean latent code.
  """
  pairs = _pairs(context)
  if not pairs:
    yield "interpolations", "an interpolation needs two test examples; there is only one"
    return
  fractions, rows = np.linspace(0.0, 1.0, _STEPS), {}
  centre = 0.0 if variational(context.run) else context.train_codes.mean(0, dtype=np.float64)
  for number, (start, end) in enumerate(pairs, 1):
    columns = context.columns("test", np.full(_STEPS, start))
    first, last = context.test_codes[[start, end]].astype(np.float64)
    paths = {"line": densities.line(first, last, fractions), "arc": densities.arc(first, last, fractions, centre)}
    for path, codes in paths.items():
      decoded = context.decode(context.nearest_codes(codes), columns)
      rows[f"{number}, {path}"] = np.concatenate([context.test[[start]], decoded, context.test[[end]]])
  title = (
    "Interpolations between two test examples (first and last column): latent codes on a straight line, and on an arc "
    "around the centre"
  )
  yield "interpolations", ExampleRows(title, rows)


def _pairs(context: EvalContext) -> list[tuple[int, int]]:
  """Returns the indices of random pairs of test examples, with different labels where possible."""
  order, labels = context.generator().permutation(_normal_indices(context)), context.test_labels
  half = len(order) // 2
  pairs = []
  for place, start in enumerate(order[:half][:_PAIRS]):
    ends = order[half:]
    if labels is not None and (labels[ends] != labels[start]).any():
      ends = ends[labels[ends] != labels[start]]
    pairs.append((int(start), int(ends[place % len(ends)])))
  return pairs


def explorer(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Generates decoded latent codes on grids around the mean test code, each along a pair of directions.

  The directions are principal components, or single latent units of a variational model.
  """
  codes = context.test_codes[_normal_indices(context)]
  large = 3 * len(POSITIONS) ** 2 * context.test[0].size > _MAX_ELEMENTS
  positions = _COARSE_POSITIONS if large else POSITIONS
  names, steps = _directions(codes, variational(context.run))
  mean = codes.mean(0, dtype=np.float64)
  columns = lambda count: context.columns("test", np.zeros(count, int))  # the columns of the first test example
  decode = lambda offsets: context.decode(context.nearest_codes(mean + offsets), columns(len(offsets)))
  if len(steps) == 0:
    yield "explorer", "the latent codes of the test examples do not vary: there is no direction to explore"
    return
  if len(steps) == 1:
    title = (
      f"Traversal of the only direction in which latent codes vary, from {POSITIONS[0]:g} to {POSITIONS[-1]:g} "
      "standard deviations"
    )
    yield "traversal", ExampleRows(title, {names[0]: decode(POSITIONS[:, None] * steps)})
    return
  pairs = [(i, i + 1 if i + 1 < len(steps) else 0) for i in range(0, len(steps), 2)]
  down, across = (steps[[pair[side] for pair in pairs], None, None] for side in (0, 1))
  offsets = positions[:, None, None] * down + positions[:, None] * across  # [pairs, steps, steps, latent]
  examples = decode(offsets.reshape(-1, codes.shape[1]))
  title = "Decoded latent codes around the mean, along two directions at a time, in standard deviations of test codes"
  shape = (len(pairs), len(positions), len(positions), *examples.shape[1:])
  yield "explorer", Explorer(title, tuple(names[i] for pair in pairs for i in pair), positions, examples.reshape(shape))


def _directions(
  codes: Float[np.ndarray, "examples latent"], of_units: bool
) -> tuple[list[str], Float[np.ndarray, "directions latent"]]:
  """Returns names and steps of one standard deviation along the directions of largest variance, at most six.

  With `of_units` they are single latent units: if latent codes follow the prior, units whose posterior means vary most
  carry most information.
  """
  directions, deviations = densities.principal_directions(codes)
  names = [f"direction {number + 1}" for number in range(len(deviations))]
  if of_units:
    deviations = codes.std(0, dtype=np.float64)
    order = np.argsort(-deviations, kind="stable")[: len(names)]
    directions, deviations, names = np.eye(codes.shape[1])[order], deviations[order], [f"z[{unit}]" for unit in order]
  return names[:_DIRECTIONS], (directions * deviations[:, None])[:_DIRECTIONS]


def memorisation(context: EvalContext, samples: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Any]]:
  """Generates the memorisation ratio of each set of samples, and samples beside their nearest training examples.

  The ratio is the mean distance of samples to their nearest training example, divided by that of test examples. It is
  near 0 if the model reproduces its training examples. Blurred images are closer to every image, so the ratio of
  reconstructed test examples is given as a reference.
  """
  count, indices = min(_MAX_NEAREST, max(_GALLERY, _MAX_PRODUCTS // context.train.size)), _normal_indices(context)
  indices = indices[spaced(count, len(indices))]
  _, test_distances = features.nearest(context.test[indices], context.train)
  yield "nearest_training_distance", float(test_distances.mean())
  sets = {**samples, "test_reconstructions": context.reconstructions[indices]}
  for place, (name, examples) in enumerate(sets.items()):
    if not np.isfinite(examples).all():
      yield f"memorisation_{name}", f"some decoded examples are not finite: {name}"
      continue
    neighbours, distances = features.nearest(examples[:count], context.train)
    yield f"memorisation_ratio/{name}", reconstruction.ratio(float(distances.mean()), float(test_distances.mean()))
    if place == 0:
      first = slice(reconstruction.SHOWN)
      rows = {"samples": examples[first], "nearest training examples": context.train[neighbours[first]]}
      yield "nearest", ExampleRows("Samples, and the training example nearest to each in pixel space", rows)
  yield (
    "memorisation",
    (
      "the memorisation ratio is the mean distance to the nearest training example, divided by that of test examples: "
      "it is near 0 for copies of training examples, and below 1 for blurred images such as reconstructions"
    ),
  )


def sample_quality(context: EvalContext, samples: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Any]]:
  """Generates the Frechet distance of samples to test examples in a feature space, and their precision and recall.

  The same measures of training examples and of their reconstructions, which the decoder makes from the correct codes,
  serve as references. The measures depend on the number of examples, so all sets have the same size. Features are
  scaled to a total variance of 1 over the training examples.
  """
  indices = _normal_indices(context)
  size = min(len(indices), len(context.train), *map(len, samples.values()), DRAWS)
  if size <= features.NEIGHBOURS:
    yield "likeness", f"precision, recall and the Frechet distance need more than {features.NEIGHBOURS} examples"
    return
  train_indices = spaced(size, len(context.train))
  train = context.train[train_indices]
  reconstructed = context.run.apply("reconstruct", train, context.columns("train", train_indices))
  sets = {**samples, "training_reconstructions": reconstructed, "training_examples": train}
  to_features = yield from features.feature_function(context)
  scale = math.sqrt(to_features(train).var(0).sum()) or 1.0
  real = to_features(context.test[indices[spaced(size, len(indices))]]) / scale
  yield "compared_examples", size
  for name, examples in sets.items():
    if not np.isfinite(examples).all():
      continue
    generated = to_features(examples[:size]) / scale
    precision, recall = features.precision_recall(real, generated)
    yield f"frechet_distance/{name}", features.frechet_distance(real, generated)
    yield f"precision/{name}", precision
    yield f"recall/{name}", recall


EVALUATOR = base.Evaluator(name="generation", analyses=(base.Analysis(analyze),))
