"""What a model can make up: from codes drawn from a density, or between and around those of examples.

Such a density is the prior of a variational autoencoder and, for any model, a mixture fitted on the training codes.
"""

import math

import numpy as np

from ae_jax import objectives
from ae_jax.evaluators import base, densities, features, likelihood, reconstruction
from ae_jax.evaluators.context import shown
from ae_jax.evaluators.figures import ExampleRows, Explorer, Gallery

DRAWS = 3_000  # from each density at most, and as many examples that they are held against
POSITIONS = np.linspace(-2.5, 2.5, 11)  # in the explorer, in standard deviations
_COARSE = np.linspace(-2.5, 2.5, 5)  # of large examples
_NEAREST = 1_000  # draws whose nearest training example is sought, at most
_MOST_PRODUCTS = 2**35  # for this, unless so few draws that it says nothing take more
_MOST_NUMBERS = 2**25  # in all draws from a density
_MOST_LATENT = 4_096
_GALLERY, _PAIRS, _STEPS = 64, 4, 9  # pictures; pairs of examples, and codes from one to the other
_DIRECTIONS = 6  # to explore
_CLASSES = 20  # of a conditional model, of which samples are shown


def analyze(context):
  """Generates pictures of what is made up, how it compares with the data, and how likely test examples are."""
  if context.train_codes.shape[1] > _MOST_LATENT:
    yield "remark", f"no density is fitted on codes of more than {_MOST_LATENT:,} numbers, and nothing is made up"
    return
  if not len(_numbers(context)):
    yield "remark", "no test example is of the class that was trained on: what is made up has nothing to be like"
    return
  if context.run.model.has_skips:
    yield "skips", "in place of the skips of an image, which what is made up does not have, the decoder gets zeros"
  if context.run.model.has_posterior and not variational(context.run):
    yield "prior", "the objective is not the ELBO: codes do not follow the prior, and nothing is drawn from it"
  draws = {}
  for name, words, codes in _densities(context):
    decoded = context.decode(codes)
    yield f"samples_{name}" if draws else "samples", Gallery(f"decoded draws from {words}", decoded[:_GALLERY])
    draws[name] = decoded
  if context.run.model.labels:
    yield "samples_by_class", samples_by_class(context)
  yield from interpolations(context)
  yield from explorer(context)
  yield from memorisation(context, draws)
  yield from sample_quality(context, draws)
  if variational(context.run):
    yield from likelihood.analyze(context)


def variational(run):
  """Returns whether the training makes codes follow the prior of the model."""
  return run.model.has_posterior and objectives.OBJECTIVES[run.config.objective.name].samples_posterior


def _numbers(context):
  """Those of the test examples that are like the ones trained on."""
  return reconstruction.typical(np.arange(len(context.test)), context.dataset)


def samples_by_class(context):
  """Returns what codes from the prior decode to with each label: a row for each label, the codes the same in all."""
  labels = context.run.model.labels[:_CLASSES]
  codes = context.prior_codes(_STEPS)
  decoded = {
    f"label {label}": context.decode(codes, {"label": np.full(_STEPS, number, np.int32)})
    for number, label in enumerate(labels)
  }
  return ExampleRows("decoded draws from the prior, the same for each label", decoded)


def _densities(context):
  """Generates (name, what it is, codes drawn from it) of each density over codes."""
  count = max(_GALLERY, min(DRAWS, _MOST_NUMBERS // context.test[0].size))
  codes, generator = context.train_codes, context.generator()
  if variational(context.run):
    yield "prior", "the prior", context.prior_codes(count)
  mixture = densities.fit(codes)
  yield "mixture", "a mixture fitted on training codes", context.possible_codes(mixture.draw(count, generator))


def interpolations(context):
  """What is decoded from codes between those of two test examples: on a straight line, and on an arc around the centre.

  That is the origin, the centre of the prior, or else the mean code.
  """
  pairs = _pairs(context)
  if not pairs:
    yield "interpolations", "there is one test example, and going from one to another takes two"
    return
  shares, rows = np.linspace(0.0, 1.0, _STEPS), {}
  centre = 0.0 if variational(context.run) else context.train_codes.mean(0, dtype=np.float64)
  for number, (start, end) in enumerate(pairs, 1):
    given = context.given("test", np.full(_STEPS, start))
    ends = context.test_codes[[start, end]].astype(np.float64)
    for way, codes in {
      "line": densities.straight(*ends, shares),
      "arc": densities.arc(*ends, shares, centre),
    }.items():
      decoded = context.decode(context.possible_codes(codes), given)
      rows[f"{number}, {way}"] = np.concatenate([context.test[[start]], decoded, context.test[[end]]])
  title = "between two test examples, the first and the last: codes on a straight line, and on an arc around the centre"
  yield "interpolations", ExampleRows(title, rows)


def _pairs(context):
  """The numbers of some pairs of test examples, with different labels if there are any."""
  order, labels = context.generator().permutation(_numbers(context)), context.test_labels
  half = len(order) // 2
  pairs = []
  for place, start in enumerate(order[:half][:_PAIRS]):
    ends = order[half:]
    if labels is not None and (labels[ends] != labels[start]).any():
      ends = ends[labels[ends] != labels[start]]
    pairs.append((start, ends[place % len(ends)]))
  return pairs


def explorer(context):
  """What is decoded around the mean test code along pairs of directions: principal ones, or units of a VAE's code."""
  codes = context.test_codes[_numbers(context)]
  positions = POSITIONS if 3 * len(POSITIONS) ** 2 * context.test[0].size <= _MOST_NUMBERS else _COARSE
  names, steps = _directions(codes, variational(context.run))
  decode = lambda offsets: context.decode(
    context.possible_codes(codes.mean(0, dtype=np.float64) + offsets), context.given("test", [0] * len(offsets))
  )
  if len(steps) == 0:
    yield "explorer", "the codes of the test examples do not vary: there is no direction to explore"
    return
  if len(steps) == 1:
    title = f"what is decoded from {POSITIONS[0]:g} to {POSITIONS[-1]:g} standard deviations along all that codes vary"
    yield "traversal", ExampleRows(title, {names[0]: decode(POSITIONS[:, None] * steps)})
    return
  pairs = [(i, i + 1 if i + 1 < len(steps) else 0) for i in range(0, len(steps), 2)]
  down, across = (steps[[pair[side] for pair in pairs], None, None] for side in (0, 1))
  offsets = positions[:, None, None] * down + positions[:, None] * across  # [pairs, steps, steps, latent]
  examples = decode(offsets.reshape(-1, codes.shape[1]))
  title = "what is decoded around the mean code, in standard deviations of test codes along two directions at a time"
  shape = (len(pairs), len(positions), len(positions), *examples.shape[1:])
  yield "explorer", Explorer(title, tuple(names[i] for pair in pairs for i in pair), positions, examples.reshape(shape))


def _directions(codes, of_units):
  """Names, and steps of a standard deviation [D, latent], of the directions along which codes vary most, at most six.

  `of_units` are those of single units: when codes follow the prior, those whose means vary most tell most.
  """
  directions, deviations = densities.principal_directions(codes)
  names = [f"direction {number + 1}" for number in range(len(deviations))]
  if of_units:
    deviations = codes.std(0, dtype=np.float64)
    order = np.argsort(-deviations, kind="stable")[: len(names)]
    directions, deviations, names = np.eye(codes.shape[1])[order], deviations[order], [f"z[{unit}]" for unit in order]
  return names[:_DIRECTIONS], (directions * deviations[:, None])[:_DIRECTIONS]


def memorisation(context, draws):
  """The mean distance of draws to their nearest training example, over that of test examples to theirs.

  A model that hands out its training examples comes near 0. What is blurred is nearer to everything: so the same of
  reconstructed test examples.
  """
  count, numbers = min(_NEAREST, max(_GALLERY, _MOST_PRODUCTS // context.train.size)), _numbers(context)
  numbers = numbers[shown(count, len(numbers))]
  _, distances = features.nearest(context.test[numbers], context.train)
  yield "nearest_training_distance", float(distances.mean())
  sets = draws | {"test_reconstructions": context.reconstructed[numbers]}
  for place, (name, made) in enumerate(sets.items()):
    if not np.isfinite(made).all():
      yield f"memorisation_{name}", f"not all that is decoded is finite: {name}"
      continue
    which, of_made = features.nearest(made[:count], context.train)
    yield f"memorisation_ratio/{name}", reconstruction.ratio(float(of_made.mean()), float(distances.mean()))
    if place == 0:
      some = slice(reconstruction.SHOWN)
      rows = {"draws": made[some], "nearest training examples": context.train[which[some]]}
      yield (
        "nearest",
        ExampleRows("decoded draws, and below each the training example that is nearest, pixel by pixel", rows),
      )
  yield (
    "memorisation",
    (
      "a memorisation ratio is the mean distance to the nearest training example over that of test examples: near 0 for "
      "copies, and below 1 also for what is blurred, as reconstructions are"
    ),
  )


def sample_quality(context, draws):
  """The Frechet distance of draws to test examples in a space of features, and their precision and recall.

  Beside them those of training examples, and of their reconstructions, which are what the decoder makes of the right
  codes. All sets are of one size, on which these measures depend; features have a total variance of 1 in training.
  """
  numbers = _numbers(context)
  size = min(len(numbers), len(context.train), *map(len, draws.values()), DRAWS)
  if size <= features.NEIGHBOURS:
    yield "likeness", f"precision, recall and the Frechet distance take more than {features.NEIGHBOURS} examples"
    return
  numbers_trained = shown(size, len(context.train))
  train = context.train[numbers_trained]
  reconstructed = context.run.apply("reconstruct", train, context.given("train", numbers_trained))
  sets = draws | {"training_reconstructions": reconstructed, "training_examples": train}
  to_features = yield from features.of(context)
  scale = math.sqrt(to_features(train).var(0).sum()) or 1.0
  real = to_features(context.test[numbers[shown(size, len(numbers))]]) / scale
  yield "compared_examples", size
  for name, examples in sets.items():
    if not np.isfinite(examples).all():
      continue
    made = to_features(examples[:size]) / scale
    precision, recall = features.precision_recall(real, made)
    yield f"frechet_distance/{name}", features.frechet_distance(real, made)
    yield f"precision/{name}", precision
    yield f"recall/{name}", recall


EVALUATOR = base.Evaluator(name="generation", analyses=(base.Analysis(analyze),))
