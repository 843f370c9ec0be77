"""Statistics of the latent code: its variation, its use by the decoder, Lipschitz constants of encoder and decoder.

The intrinsic dimension is estimated from training examples, because there are more of them than test examples.
"""

import math

import numpy as np

from ae_jax.data import dimension
from ae_jax.evaluators import base, posterior, sparsity, spectra
from ae_jax.evaluators.codebook import perplexity
from ae_jax.evaluators.context import shown
from ae_jax.evaluators.figures import Bars
from ae_jax.ops import losses

_BARS = 1024  # in a picture at most, the largest ones
_JACOBIANS = 64  # at most, at as many test examples at even distances
_NUMBERS = 2**23  # in all Jacobians of encoder or decoder, unless one alone has more
_LARGEST = 2**26  # in one
_ESTIMATORS = {"TwoNN": "twonn", "maximum likelihood": "mle"}


def analyze(context):
  """Generates what the functions below find."""
  yield from spread(context.test_codes)
  code = context.run.model.code
  if code.levels is not None:
    indices = context.run.apply("indices", context.test, context.given("test"))
    yield from codebook(indices.reshape(len(indices), -1), code)
  if context.run.model.has_posterior:
    yield from divergence(context)
  yield from intrinsic_dimension("data", losses.flat(context.train))
  yield from intrinsic_dimension("codes", context.train_codes)
  yield from use(context)
  yield from lipschitz(context)


def spread(codes):
  """Along how many units and directions the codes of the test set vary."""
  yield "dead_units", int(sparsity.dead(codes).sum())
  if len(codes) < 2:
    yield "spread", "there is one test example, and how much codes vary takes two"
    return
  eigenvalues = spectra.covariance_eigenvalues(codes)
  yield "active_units", int(posterior.active(codes).sum())
  yield "participation_ratio", spectra.participation_ratio(eigenvalues)
  yield "effective_rank", spectra.effective_rank(eigenvalues)
  variance = codes.var(0, dtype=np.float64)
  yield "code_variance", _sorted_bars("How much each unit of the code varies over the test set", variance, "variance")


def codebook(codes, code):
  """Generates how much of its codebook a discrete code uses, from its indices [N, units].

  See `evaluators.codebook.perplexity`. The units of a VQ-VAE share one codebook. The codebook of finite scalar
  quantisation holds all combinations of the levels of its units: its perplexity is at most the number of examples, and
  that of the levels of a unit is not so limited.
  """
  levels = code.levels
  if code.shared_codebook:
    counts = np.unique(codes, return_counts=True)[1]
    yield "codebook_bits", code.bits
    yield "codebook_use", len(counts) / levels
    yield "codebook_perplexity", perplexity(counts)
    return
  size, examples = levels ** codes.shape[1], len(codes)
  entries = np.unique(codes, axis=0, return_counts=True)[1]
  of_units = [np.unique(unit, return_counts=True)[1] for unit in codes.T]
  yield "codebook_bits", code.bits
  yield "codebook_use", len(entries) / size
  yield "codebook_perplexity", perplexity(entries)
  yield "level_use", float(np.mean([len(counts) / levels for counts in of_units]))
  yield "level_perplexity", float(np.mean([perplexity(counts) for counts in of_units]))
  if examples < size:
    yield (
      "codebook",
      (
        f"the codebook has {levels}^{codes.shape[1]} entries, of which {examples:,} test examples can show no more than "
        "themselves: how the levels of each unit are used says more"
      ),
    )


def divergence(context):
  """What each unit of a gaussian code tells about a test example: KL(posterior || prior) in nats."""

  def per_unit(variables, x, given, keys):
    return posterior.per_example(context.run.model, variables, {**given, "x": x}, keys, None, None)["posterior_kl"]

  nats = context.each(per_unit, context.test, context.given("test")).mean(0, dtype=np.float64)
  yield "kl", float(nats.sum())
  yield "posterior_kl", _sorted_bars("What each unit of the code tells about an example", nats, "KL to the prior, nats")


def _sorted_bars(title, values, unit):
  left_out = f", the {_BARS} largest of {len(values)}" if len(values) > _BARS else ""
  return Bars(f"{title}{left_out}", (), np.sort(values)[::-1][:_BARS], "unit of the code, sorted", unit)


def intrinsic_dimension(kind, points):
  """Generates the intrinsic dimension of points [N, elements] by two estimators, with intervals.

  An interval holds the sampling error (95 %) and the bias that the trend over neighbour distances suggests; see
  `dimension.estimates`.
  """
  found = dimension.estimates(points)
  if not found:
    yield (
      f"{kind}_dimension",
      (f"the intrinsic dimension of the {kind} takes {dimension.FEWEST} different training examples; there are fewer"),
    )
  for name, each in found.items():
    for end, value in zip(("", "_low", "_high"), each, strict=True):
      yield f"{kind}_dimension_{_ESTIMATORS[name]}{end}", float(value)


def use(context):
  """Squared errors of what is decoded from the code of another test example, and from the mean code, beside its own.

  Where training was on one class, these are of the test examples of that class, as `reconstruction`'s are.
  """
  anomalous = context.dataset.anomalous
  typical = np.arange(len(context.test)) if anomalous is None else np.flatnonzero(~anomalous)
  if len(typical) < 2:
    yield "use", "there is one test example, and whether it needs its own code takes the code of another"
    return
  x, codes, own = context.test[typical], context.test_codes[typical], float(context.squared_errors[typical].mean())
  cycle = context.generator().permutation(len(x))  # each gets the code of the one before it
  other = np.empty_like(codes)
  other[cycle] = codes[np.roll(cycle, 1)]
  others, means = (
    float(np.square(decoded - x, dtype=np.float64).sum() / len(x))
    for decoded in _decoded(context, other, codes.mean(0, keepdims=True, dtype=np.float64).astype(codes.dtype), typical)
  )
  yield "own_code_squared_error", own
  yield "other_code_squared_error", others
  yield "shuffle_ratio", others / own if own > 0 else math.inf if others > 0 else 1.0
  yield "mean_code_squared_error", means
  if context.run.model.has_skips:
    yield (
      "skips",
      (
        "with another code the decoder still gets the skips of the example itself: what it loses is what the code adds "
        "to them, nothing where the ratio is 1"
      ),
    )


def _decoder(context):
  """Returns a function (variables, vectors, examples, given) -> decoded latent codes.

  What the decoder uses of an example besides its code (skips, columns) is that of the examples.
  """
  model, activation = context.run.model, losses.OUTPUT_ACTIVATIONS[context.dataset.value_range]

  def decode(variables, vectors, x, given):
    z = vectors.reshape(-1, *model.code.shape)
    if model.has_skips:
      return activation(model.apply("decode_beside", variables, z, x))
    return activation(model.decode(variables, z, given))

  return decode


def _decoded(context, codes, mean, numbers):
  """Returns what decodes from codes [N, latent], and from their mean [1, latent], for test examples: [N or 1, ...].

  Without skips and columns the mean code decodes to one example for all.
  """
  given = context.given("test", numbers)
  if context.run.model.has_skips or given:
    decode = _decoder(context)
    beside = lambda variables, z, x, given, keys: decode(variables, z, x, given)
    arrays = (context.test[numbers], given)
    return tuple(context.each(beside, z, *arrays) for z in (codes, np.broadcast_to(mean, codes.shape)))
  decoded = context.decode(np.concatenate([codes, mean]), given)
  return decoded[:-1], decoded[-1:]


def lipschitz(context):
  """The largest singular value of the encoder's and of the decoder's Jacobian at some test examples.

  The encoder's of a quantised code is that of the code before it is rounded.
  """
  model, decode = context.run.model, _decoder(context)
  numbers = math.prod(context.test.shape[1:]) * context.test_codes.shape[1]
  if numbers > _LARGEST:
    yield "lipschitz", f"how steep encoder and decoder are takes Jacobians of {numbers:,} numbers: too many"
    return
  some = shown(min(max(_NUMBERS // numbers, 1), _JACOBIANS), len(context.test))
  encode = lambda variables, x, given: losses.flat(model.encode(variables, x, given).z)
  grams = {
    "encoder": lambda v, x, z, given, keys: spectra.encoder_gram(lambda x: encode(v, x, given), x),
    "decoder": lambda v, x, z, given, keys: spectra.decoder_gram(lambda z: decode(v, z, x, given), z),
  }
  arrays = (context.test[some], context.test_codes[some], context.given("test", some))
  for name, gram in grams.items():
    values = spectra.largest_singular_values(context.each(gram, *arrays))
    yield f"{name}_lipschitz_mean", float(values.mean())
    yield f"{name}_lipschitz_max", float(values.max())


EVALUATOR = base.Evaluator(name="latent", analyses=(base.Analysis(analyze),))
