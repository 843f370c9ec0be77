"""Statistics of the latent code: variation, use by the decoder, and Lipschitz constants of the encoder and decoder.

The intrinsic dimension is estimated from training examples, because there are more training than test examples.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from ae_jax import models
from ae_jax.data import dimension
from ae_jax.evaluators import base, posterior, reconstruction, sparsity, spectra
from ae_jax.evaluators.codebook import perplexity
from ae_jax.evaluators.context import EvalContext, spaced
from ae_jax.evaluators.figures import Bars
from ae_jax.ops import losses

_MAX_BARS = 1024  # maximum number of bars in a figure; if there are more values, it shows the largest ones
_MAX_JACOBIANS = 64  # maximum number of Jacobians, at evenly spaced test examples
_MAX_ELEMENTS = 2**23  # maximum number of elements in all encoder or decoder Jacobians; one Jacobian may have more
_MAX_JACOBIAN_ELEMENTS = 2**26  # maximum number of elements in one Jacobian
_ESTIMATORS = {"TwoNN": "twonn", "maximum likelihood": "mle"}


def analyze(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields all statistics of the latent code."""
  yield from spread(context.test_codes)
  code = context.run.model.code
  if code.levels is not None:
    indices = context.run.apply("indices", context.test, context.columns("test"))
    yield from codebook(indices.reshape(len(indices), -1), code)
  if context.run.model.has_posterior:
    yield from divergence(context)
  if "mask" in context.dataset.column_names:
    yield "data_dimension", "the intrinsic dimension of the data is not estimated: not all elements are observed"
  else:
    yield from intrinsic_dimension("data", losses.flat(context.train))
  yield from intrinsic_dimension("codes", context.train_codes)
  yield from code_ablation(context)
  yield from lipschitz(context)


def spread(codes: Float[np.ndarray, "examples latent"]) -> Iterator[tuple[str, Any]]:
  """Yields the counts of dead units and of active units, the participation ratio, the effective rank, and a figure."""
  yield "dead_units", int(sparsity.dead(codes).sum())
  if len(codes) < 2:
    yield (
      "spread",
      "the variation of the latent code is not measured: this needs two test examples, and there is only one",
    )
    return
  eigenvalues = spectra.covariance_eigenvalues(codes)
  yield "active_units", int(posterior.active(codes).sum())
  yield "participation_ratio", spectra.participation_ratio(eigenvalues)
  yield "effective_rank", spectra.effective_rank(eigenvalues)
  variance = codes.var(0, dtype=np.float64)
  yield "code_variance", _sorted_bars("Variance of each latent unit over the test set", variance, "variance")


def codebook(indices: Int[np.ndarray, "examples units"], code: models.CodeSpec) -> Iterator[tuple[str, Any]]:
  """Yields the size of a discrete latent code in bits, and how many entries of its codebook are used.

  The units of a VQ-VAE share one codebook. The codebook of finite scalar quantisation consists of all combinations of
  the levels of its units. It can have more entries than there are examples, which limits its measured perplexity, so
  the perplexity of the levels of each unit is also measured. See `evaluators.codebook.perplexity`.
  """
  levels = code.levels
  if code.shared_codebook:
    counts = np.unique(indices, return_counts=True)[1]
    yield "codebook_bits", code.bits
    yield "codebook_use", len(counts) / levels
    yield "codebook_perplexity", perplexity(counts)
    return
  size, examples = levels ** indices.shape[1], len(indices)
  entry_counts = np.unique(indices, axis=0, return_counts=True)[1]
  level_counts = [np.unique(unit, return_counts=True)[1] for unit in indices.T]
  yield "codebook_bits", code.bits
  yield "codebook_use", len(entry_counts) / size
  yield "codebook_perplexity", perplexity(entry_counts)
  yield "level_use", float(np.mean([len(counts) / levels for counts in level_counts]))
  yield "level_perplexity", float(np.mean([perplexity(counts) for counts in level_counts]))
  if examples < size:
    yield (
      "codebook",
      (
        f"the codebook has {levels}^{indices.shape[1]} entries, of which {examples:,} test examples can use at most "
        f"{examples:,}: level_use and level_perplexity, which count the levels of each unit, are more informative"
      ),
    )


def divergence(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields the mean KL(posterior || prior) per test example in nats, and a figure of the KL of each latent unit.

  The mean is over the `context.tested` examples.
  """
  dataset = context.dataset

  def per_unit(variables, x, columns, keys):
    batch = {**columns, "x": x}
    values = posterior.per_example(context.run.model, variables, batch, keys, dataset.value_range, dataset.span)
    return values["posterior_kl"]

  nats = context.map_examples(per_unit, context.test, context.columns("test"))
  nats = reconstruction.trained_class_only(nats, dataset).mean(0, dtype=np.float64)
  yield "kl", float(nats.sum())
  title = "KL divergence of the posterior from the prior for each latent unit"
  yield "posterior_kl", _sorted_bars(title, nats, "KL to the prior, nats")


def _sorted_bars(title: str, values: Float[np.ndarray, " units"], unit: str) -> Bars:
  """Returns a bar chart of the largest values in descending order."""
  left_out = f" (the {_MAX_BARS} largest of {len(values)} values)" if len(values) > _MAX_BARS else ""
  return Bars(f"{title}{left_out}", (), np.sort(values)[::-1][:_MAX_BARS], "latent unit, sorted", unit)


def intrinsic_dimension(kind: str, points: Float[np.ndarray, "points elements"]) -> Iterator[tuple[str, Any]]:
  """Yields two estimates of the intrinsic dimension of points, and the lower and upper end of an interval for each.

  The interval covers the 95 % confidence interval of the estimate and an interval that is corrected for the bias; see
  `dimension.estimates`. `kind` is the prefix of the names.
  """
  estimates = dimension.estimates(points)
  if not estimates:
    yield (
      f"{kind}_dimension",
      (
        f"the intrinsic dimension of the {kind} is not estimated: this needs {dimension.FEWEST} distinct points, and "
        "there are fewer"
      ),
    )
  for name, interval in estimates.items():
    for end, value in zip(("", "_low", "_high"), interval, strict=True):
      yield f"{kind}_dimension_{_ESTIMATORS[name]}{end}", float(value)
  open_ended = [name for name, (value, _, high) in estimates.items() if not dimension.is_bounded(value, high)]
  if open_ended:
    yield (
      f"{kind}_dimension_bounds",
      f"the intrinsic dimension of the {kind} has no upper bound ({' and '.join(open_ended)}): there are too few "
      "examples to correct the bias of the estimate",
    )


def code_ablation(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields the squared errors of decoding an example's own code, another example's code, and the mean code.

  Anomalous test examples are excluded, as in `reconstruction`.
  """
  anomalous = context.dataset.anomalous
  indices = np.arange(len(context.test)) if anomalous is None else np.flatnonzero(~anomalous)
  if len(indices) < 2:
    yield (
      "use",
      (
        "the use of the latent code is not measured: this needs two test examples to exchange their codes, and there "
        "is only one"
      ),
    )
    return
  codes = context.test_codes[indices]
  own_error = float(context.squared_errors[indices].mean())
  # Each example gets the code of the previous example in a random order, so no example keeps its own code.
  cycle = context.generator().permutation(len(codes))
  other_codes = np.empty_like(codes)
  other_codes[cycle] = codes[np.roll(cycle, 1)]
  mean_code = codes.mean(0, keepdims=True, dtype=np.float64).astype(codes.dtype)
  other_error, mean_error = (
    float(context.squares(decoded, indices).sum() / len(codes))
    for decoded in _decoded(context, other_codes, mean_code, indices)
  )
  yield "own_code_squared_error", own_error
  yield "other_code_squared_error", other_error
  yield "shuffle_ratio", other_error / own_error if own_error > 0 else math.inf if other_error > 0 else 1.0
  yield "mean_code_squared_error", mean_error
  if context.run.model.has_skips:
    yield (
      "skips",
      (
        "with each latent code, the decoder also receives the example's own skip connections: the shuffle ratio "
        "measures what the latent code adds to the skip connections, and 1 means that it adds nothing"
      ),
    )


def _decoder(context: EvalContext) -> Callable[..., jax.Array]:
  """Returns the function (variables, latent codes, examples, columns) -> decoder outputs.

  The decoder receives the skip connections of the examples, or the columns if the model has no skip connections.
  """
  model = context.run.model
  activation = functools.partial(model.outputs, value_range=context.dataset.value_range)

  def decode(variables, vectors, x, columns):
    z = vectors.reshape(-1, *model.code.shape)
    if model.has_skips:
      return activation(model.apply("decode_beside", variables, z, x))
    return activation(model.decode(variables, z, columns))

  return decode


def _decoded(
  context: EvalContext,
  codes: Float[np.ndarray, "examples latent"],
  mean: Float[np.ndarray, "1 latent"],
  indices: Int[np.ndarray, " examples"],
) -> tuple[Float[np.ndarray, " examples *shape"], Float[np.ndarray, " _ *shape"]]:
  """Returns the decoder outputs for latent codes and for their mean.

  The test examples at `indices` provide skip connections and columns. If the model has neither, the mean is decoded to
  a single example.
  """
  columns = context.columns("test", indices)
  if context.run.model.has_skips or columns:
    decode = _decoder(context)
    decode_rows = lambda variables, z, x, columns, keys: decode(variables, z, x, columns)
    arrays = (context.test[indices], columns)
    return tuple(context.map_examples(decode_rows, z, *arrays) for z in (codes, np.broadcast_to(mean, codes.shape)))
  decoded = context.decode(np.concatenate([codes, mean]), columns)
  return decoded[:-1], decoded[-1:]


def lipschitz(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields the largest singular value of the encoder and decoder Jacobians: mean and maximum over test examples.

  If the latent code is quantised, the Jacobian of the encoder is computed for the code before rounding.
  """
  model, decode = context.run.model, _decoder(context)
  elements = math.prod(context.test.shape[1:]) * context.test_codes.shape[1]
  if elements > _MAX_JACOBIAN_ELEMENTS:
    yield (
      "lipschitz",
      (
        f"the Lipschitz constants are not computed: each Jacobian has {elements:,} elements, and the limit is "
        f"{_MAX_JACOBIAN_ELEMENTS:,}"
      ),
    )
    return
  chosen = spaced(min(max(_MAX_ELEMENTS // elements, 1), _MAX_JACOBIANS), len(context.test))
  encode = lambda variables, x, columns: losses.flat(model.encode(variables, x, columns).z)
  grams = {
    "encoder": lambda v, x, z, columns, keys: spectra.encoder_gram(lambda x: encode(v, x, columns), x),
    "decoder": lambda v, x, z, columns, keys: spectra.decoder_gram(lambda z: decode(v, z, x, columns), z),
  }
  arrays = (context.test[chosen], context.test_codes[chosen], context.columns("test", chosen))
  for name, gram in grams.items():
    values = spectra.largest_singular_values(context.map_examples(gram, *arrays))
    yield f"{name}_lipschitz_mean", float(values.mean())
    yield f"{name}_lipschitz_max", float(values.max())


EVALUATOR = base.Evaluator(name="latent", analyses=(base.Analysis(analyze),))
