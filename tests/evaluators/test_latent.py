"""Statistics of the latent code, for models with known weights."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of
from made_contexts import fake

from ae_jax import api, data, models
from ae_jax.data import dimension
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import figures, latent, posterior, sparsity, spectra
from ae_jax.models import inference
from ae_jax.ops import losses

SHAPE = (3, 2, 1)


def examples(count, seed=0, shape=SHAPE):
  return np.random.default_rng(seed).uniform(size=(count, *shape)).astype(np.float32)


def context_of(train, test, change=lambda params: None, one_class=None, labels=None, value_range="real", **options):
  """Returns the context of a dense autoencoder with random weights, modified in place by `change`."""
  config = config_of("dense", "digits")
  config.data.range = value_range
  config.model.update({"latent": 3, "widths": (8,), **options})
  dataset = data.Dataset("made", value_range, train, test, None, labels, one_class)
  model, generator = models.build(shape=dataset.shape, **config.model), np.random.default_rng(0)
  normal = lambda leaf: generator.normal(size=leaf.shape).astype(np.float32) / leaf.shape[0] ** 0.5
  variables = jax.tree.map(normal, model.abstract_variables())
  change(variables.params)
  return contexts.EvalContext(api.Run(variables, config, {}, [], model, 0), dataset)


def gaussian(test):
  return context_of(examples(110), test, value_range="unit", bottleneck="gaussian")


@functools.cache
def analyzed():
  """Returns the context of a model with a gaussian posterior, and its results."""
  context = gaussian(examples(37))
  return context, analyze(context)


def analyze(context):
  results = list(latent.analyze(context))
  assert len(dict(results)) == len(results)
  for name, value in results:
    assert isinstance(value, int | float | str | figures.Bars), name
  return dict(results)


def values_of(result):
  return result.values if isinstance(result, figures.Bars) else result


def remarks(results):
  return {name for name, value in results.items() if isinstance(value, str)}


def code_layer(params):
  """Returns the weights [8, 3] and biases [3] of the last layer of the encoder."""
  return params["encoder"]["code"]["kernel"], params["encoder"]["code"]["bias"]


def test_an_invertible_linear_encoder_has_known_statistics():
  """The encoder is a matrix A, the decoder its inverse."""
  matrix = np.random.default_rng(3).normal(size=(6, 6)).astype(np.float32)

  def change(params):
    code_layer(params)[0][:] = matrix
    params["decoder"]["logits"]["kernel"][:] = np.linalg.inv(matrix)
    params["decoder"]["logits"]["bias"][:] = -code_layer(params)[1] @ np.linalg.inv(matrix)

  test = examples(200, seed=1)
  results = analyze(context_of(examples(120), test, change, latent=6, widths=()))
  pixels = test.reshape(200, 6)
  codes = pixels @ matrix
  eigenvalues = spectra.covariance_eigenvalues(codes)
  expected = {
    "participation_ratio": spectra.participation_ratio(eigenvalues),
    "effective_rank": spectra.effective_rank(eigenvalues),
    "encoder_lipschitz_mean": np.linalg.norm(matrix, 2),
    "encoder_lipschitz_max": np.linalg.norm(matrix, 2),
    "decoder_lipschitz_mean": np.linalg.norm(np.linalg.inv(matrix), 2),
    "decoder_lipschitz_max": np.linalg.norm(np.linalg.inv(matrix), 2),
    "mean_code_squared_error": pixels.var(0).sum(),
  }
  assert {name: results[name] for name in expected} == pytest.approx(expected, rel=1e-4)
  assert (results["active_units"], results["dead_units"]) == (6, 0)
  np.testing.assert_allclose(results["code_variance"].values, np.sort(codes.var(0))[::-1], rtol=1e-4)
  assert results["own_code_squared_error"] < 1e-9
  assert results["other_code_squared_error"] == pytest.approx(2 * pixels.var(0).sum(), rel=0.1)
  assert results["shuffle_ratio"] > 1e8


def test_the_intrinsic_dimension_is_of_training_examples_and_of_their_codes():
  context, results = analyzed()
  for kind, points in {"data": context.train.reshape(110, 6), "codes": context.train_codes}.items():
    for name, key in {"TwoNN": "twonn", "maximum likelihood": "mle"}.items():
      mine = tuple(results[f"{kind}_dimension_{key}{end}"] for end in ("", "_low", "_high"))
      assert mine == dimension.estimates(points)[name]


def test_a_constant_code_has_no_active_units_and_a_shuffle_ratio_of_one():
  results = analyze(context_of(examples(120), examples(40), lambda params: code_layer(params)[0].fill(0)))
  zero = ("active_units", "participation_ratio", "effective_rank", "encoder_lipschitz_mean", "encoder_lipschitz_max")
  assert [results[name] for name in zero] == [0] * 5
  assert results["shuffle_ratio"] == 1.0
  assert results["own_code_squared_error"] == results["other_code_squared_error"]
  assert results["mean_code_squared_error"] == pytest.approx(results["own_code_squared_error"], rel=1e-6)
  assert "needs 100 distinct points" in results["codes_dimension"]
  assert results["data_dimension_twonn"] > 1


def test_only_units_that_did_not_collapse_count():
  def change(params):
    kernel, bias = code_layer(params)
    kernel[:] *= np.float32([20.0, 0.0, 0.0])
    bias[:] = [0.0, 5.0, 0.01]  # the second unit always on, the third always off

  context = context_of(examples(120), examples(40), change)
  results = dict([*latent.spread(context.test_codes), *latent.code_ablation(context)])
  assert (results["active_units"], results["dead_units"]) == (1, 1)
  assert results["participation_ratio"] == pytest.approx(1.0)
  assert results["effective_rank"] == pytest.approx(1.0)
  assert results["code_variance"].values[0] > posterior.ACTIVE
  np.testing.assert_allclose(results["code_variance"].values[1:], 0, atol=1e-12)
  assert results["other_code_squared_error"] != pytest.approx(results["own_code_squared_error"], rel=1e-3)


@pytest.mark.parametrize(("units", "title"), [(1024, "set"), (1030, "set (the 1024 largest of 1030 values)")])
def test_at_most_1024_variances_are_shown_and_all_units_count(units, title):
  codes = np.random.default_rng(0).normal(size=(6, units))
  results = dict(latent.spread(codes))
  assert results["active_units"] == units
  assert results["code_variance"].title.endswith(title)
  np.testing.assert_array_equal(results["code_variance"].values, np.sort(codes.var(0))[::-1][:1024])


@pytest.mark.parametrize(
  ("codes", "use", "perplexity", "level_use", "level_perplexity"),
  [
    (list(itertools.product((-1, 0, 1), repeat=2)), 1.0, 9.0, 1.0, 3.0),  # each entry once
    ([(0, 1)] * 12, 1 / 9, 1.0, 1 / 3, 1.0),  # collapse
    ([(0, 1)] * 6 + [(0, 0)] * 6, 2 / 9, 2.0, 0.5, 1.5),
    ([(0, 1)] * 8 + [(1, 0)] * 4, 2 / 9, 1.5 ** (2 / 3) * 3 ** (1 / 3), 2 / 3, 1.5 ** (2 / 3) * 3 ** (1 / 3)),
  ],
)
def test_codebook_usage_of_known_indices(codes, use, perplexity, level_use, level_perplexity):
  results = dict(latent.codebook(np.int32(codes) + 1, models.CodeSpec((2,), levels=3, index_shape=(2,))))
  expected = {"use": use, "perplexity": perplexity, "bits": 2 * math.log2(3)}
  assert results == pytest.approx(
    {**{f"codebook_{name}": value for name, value in expected.items()}}
    | {"level_use": level_use, "level_perplexity": level_perplexity}
  )


def test_a_codebook_with_more_entries_than_examples_has_a_remark_and_level_usage():
  results = analyze(context_of(examples(120), examples(40), latent=5, bottleneck="fsq9"))
  assert remarks(results) >= {"codebook"}
  assert "9^5 entries, of which 40 test examples" in results["codebook"]
  assert 1 <= results["codebook_perplexity"] <= 40
  assert 1 <= results["level_perplexity"] <= 9 * results["level_use"] <= 9


def test_the_kl_of_a_gaussian_posterior_agrees_with_a_monte_carlo_estimate():
  mean, log_variance = np.float32([0.5, -2.0, 0.0]), np.float32([0.3, -1.0, 0.0])

  def change(params):
    code_layer(params)[0].fill(0)
    code_layer(params)[1][:] = np.concatenate([mean, log_variance])

  results = dict(latent.divergence(context_of(examples(20), examples(37), change, bottleneck="gaussian")))
  draws = mean + np.exp(log_variance / 2) * np.random.default_rng(0).normal(size=(400_000, 3))
  log_ratio = -0.5 * (np.square(draws - mean) * np.exp(-log_variance) + log_variance - np.square(draws))
  np.testing.assert_allclose(results["posterior_kl"].values, np.sort(log_ratio.mean(0))[::-1], atol=0.01)
  assert results["kl"] == pytest.approx(float(losses.gaussian_kl(mean, log_variance).sum()))


def test_results_equal_the_metrics_of_the_evaluation_during_training():
  context, results = analyzed()
  keys = jax.random.split(jax.random.key(0), 37)
  values = posterior.per_example(
    context.run.model, context.run.variables, {"x": context.test}, keys, "unit", context.dataset.span
  )
  metrics = dict(posterior.metrics({name: np.asarray(rows) for name, rows in values.items()}, context.dataset))
  metrics |= dict(sparsity.metrics({"code": context.test_codes}, None))
  assert results["kl"] == pytest.approx(metrics["test/kl"], rel=1e-6)
  assert results["active_units"] == metrics["test/active_units"]
  assert results["dead_units"] == metrics["test/dead_units"]
  assert results["own_code_squared_error"] == pytest.approx(context.squared_errors.mean())


def test_results_do_not_depend_on_the_batch_size(monkeypatch):
  monkeypatch.setattr(contexts, "_BATCH", 16)
  monkeypatch.setattr(inference, "_MOST_ELEMENTS", 8 * examples(37)[0].size)
  batched, expected = analyze(gaussian(examples(37))), analyzed()[1]
  assert set(batched) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(values_of(batched[name]), values_of(value), rtol=2e-6, err_msg=name)


def test_the_variation_of_codes_does_not_depend_on_the_order_of_examples():
  expected, context = analyzed()[1], gaussian(examples(37)[::-1])
  for name, value in [*latent.spread(context.test_codes), *latent.divergence(context)]:
    np.testing.assert_allclose(values_of(value), values_of(expected[name]), rtol=2e-6, err_msg=name)


def test_the_jacobian_of_the_decoder_includes_the_output_activation():
  context, results = analyzed()
  decode = lambda z: jax.nn.sigmoid(context.run.model.decode(context.run.variables, z[None])[0])
  jacobians = np.asarray(jax.jit(jax.vmap(jax.jacobian(decode)))(jnp.asarray(context.test_codes)))
  expected = np.linalg.svd(jacobians.reshape(37, 6, 3), compute_uv=False)[:, 0]
  assert results["decoder_lipschitz_mean"] == pytest.approx(expected.mean(), rel=1e-5)
  assert results["decoder_lipschitz_max"] == pytest.approx(expected.max(), rel=1e-5)


def test_anomalies_do_not_count_in_the_errors():
  normal = np.arange(40) % 3 == 1
  context = context_of(examples(20), examples(40), one_class=1, labels=np.where(normal, 1, 5))
  alone = context_of(examples(20), examples(40)[normal])
  assert dict(latent.code_ablation(context)) == pytest.approx(dict(latent.code_ablation(alone)), rel=1e-6)


def test_anomalies_do_not_count_in_the_kl_divergence():
  normal = np.arange(40) % 3 == 1
  context = context_of(examples(20), examples(40), one_class=1, labels=np.where(normal, 1, 5), bottleneck="gaussian")
  alone = context_of(examples(20), examples(40)[normal], bottleneck="gaussian")
  assert dict(latent.divergence(context))["kl"] == pytest.approx(dict(latent.divergence(alone))["kl"], rel=1e-5)


@pytest.mark.parametrize(("count", "expected"), [(2, 1.0), (3, 2.0)])
def test_every_example_gets_the_code_of_another_and_each_code_is_used_once(count, expected):
  """Example i and its code are the number i, so the error is the mean of |i - j|^2, the same for every cycle."""
  test = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1)
  ones = lambda params: jax.tree.map(lambda leaf: leaf.fill(leaf.ndim - 1), params)
  for seed in range(4):
    context = context_of(test, test, ones, latent=1, widths=())
    context.run.config.seed = seed
    results = dict(latent.code_ablation(context))
    assert results["own_code_squared_error"] == 0.0
    assert results["other_code_squared_error"] == pytest.approx(expected)
    assert results["shuffle_ratio"] == math.inf


def test_intrinsic_dimension_without_an_upper_bound_is_named():
  random = np.random.default_rng(0)
  points = random.normal(size=(120, 192)).astype(np.float32) * np.exp(random.normal(size=(120, 1))).astype(np.float32)
  results = dict(latent.intrinsic_dimension("data", points))
  assert results["data_dimension_mle_high"] == 192 > 10 * results["data_dimension_mle"]
  assert "no upper bound (maximum likelihood): there are too few examples" in results["data_dimension_bounds"]
  assert "codes_dimension_bounds" not in dict(latent.intrinsic_dimension("codes", points[:, :3]))


def test_one_example_has_remarks_and_the_results_that_are_defined():
  results = analyze(context_of(examples(2), examples(1), bottleneck="gaussian"))
  assert remarks(results) == {"data_dimension", "codes_dimension", "spread", "use"}
  assert {"dead_units", "kl", "posterior_kl", "encoder_lipschitz_max", "decoder_lipschitz_max"} <= set(results)
  assert all(math.isfinite(value) for value in results.values() if isinstance(value, float))


def test_constant_series_have_defined_results():
  same = np.full((120, 7, 2), 0.25, np.float32)
  results = analyze(context_of(same, same[:40]))
  assert results["participation_ratio"] == 0.0
  assert results["shuffle_ratio"] == pytest.approx(1.0)
  assert remarks(results) == {"data_dimension", "codes_dimension"}


@pytest.mark.parametrize(("numbers", "count"), [(5 * 18, 5), (17, 1)])
def test_large_jacobians_are_computed_at_fewer_evenly_spaced_examples(monkeypatch, numbers, count):
  context = analyzed()[0]
  values = spectra.largest_singular_values(
    context.map_examples(_decoder_gram(context), context.test, context.test_codes)
  )
  monkeypatch.setattr(latent, "_MAX_ELEMENTS", numbers)
  monkeypatch.setattr(latent, "_MAX_JACOBIAN_ELEMENTS", 18)
  results = dict(latent.lipschitz(context))
  chosen = values[np.linspace(0, 36, count).astype(int)]
  assert results["decoder_lipschitz_mean"] == pytest.approx(chosen.mean(), rel=1e-5)
  assert results["decoder_lipschitz_max"] == pytest.approx(chosen.max(), rel=1e-5)


def _decoder_gram(context):
  decode = latent._decoder(context)
  return lambda variables, x, z, keys: spectra.decoder_gram(lambda z: decode(variables, z, x, {}), z)


def test_the_variance_of_a_code_far_from_zero_is_exact():
  codes = (1000 + np.random.default_rng(0).normal(size=(20_000, 3))).astype(np.float32)
  results = dict(latent.spread(codes))["code_variance"].values
  np.testing.assert_allclose(results, np.sort(codes.astype(np.float64).var(0))[::-1], rtol=1e-9)


def test_the_shuffled_codes_depend_on_the_seed():
  context, errors = gaussian(examples(37)), []
  for seed in (0, 1, 0):
    context.run.config.seed = seed
    errors.append(dict(latent.code_ablation(context))["other_code_squared_error"])
  assert errors[0] == errors[2] != errors[1]


def test_jacobians_that_are_too_large_have_only_a_remark(monkeypatch):
  monkeypatch.setattr(latent, "_MAX_JACOBIAN_ELEMENTS", 17)  # 6 times 3 are 18
  results = dict(latent.lipschitz(analyzed()[0]))
  assert set(results) == {"lipschitz"}
  assert "each Jacobian has 18 elements" in results["lipschitz"]


def skip_context(test, share, has_skips=True, value_range="real"):
  """Returns the context of a model whose skip connection is the example, plus a share of the mean latent."""
  encode = lambda variables, x, columns=None: models.Encoding(x.mean((1, 2)) * jnp.ones((1, 2)))
  apply = lambda method, variables, z, x: x + 0.1 + share * z.mean(1)[:, None, None, None]
  model = fake(
    models.Model,
    **{"module": None, "batch_last": False, "shape": SHAPE, "code": models.CodeSpec((2,)), "columns": ()},
    **{"has_posterior": False, "has_skips": has_skips, "encode": encode, "apply": apply},
    decode=lambda variables, z, columns=None: apply("", variables, z, jnp.zeros((z.shape[0], *SHAPE))),
    reconstruct=lambda variables, x, columns=None: apply("", variables, encode(variables, x).z, x),
  )
  config = config_of("dense", "digits")
  config.data.range = value_range
  dataset = data.Dataset("made", value_range, test, test, None, None)
  return contexts.EvalContext(api.Run(models.Variables({}), config, {}, [], model, 0), dataset)


@pytest.mark.parametrize(("share", "skips"), [(0.0, True), (0.5, True), (0.5, False)])
def test_skip_connections_stay_those_of_the_example(share, skips):
  test = examples(9)
  context = skip_context(test, share, skips)
  results = dict([*latent.code_ablation(context), *latent.lipschitz(context)])
  assert remarks(results) == ({"skips"} if skips else set())
  assert results["decoder_lipschitz_max"] == pytest.approx(share * math.sqrt(6 / 2))
  means = test.mean((1, 2, 3))
  own, mean = np.square(0.1 + share * means).mean(), np.square(0.1 + share * means.mean())
  assert results["own_code_squared_error"] == pytest.approx(6 * own)
  if skips:
    assert results["mean_code_squared_error"] == pytest.approx(6 * mean)
    assert results["shuffle_ratio"] == pytest.approx(1.0)  # the total error does not depend on the assignment of codes


def test_decoding_with_skip_connections_applies_the_output_activation():
  """A decoder that ignores the code has the same error with every code."""
  test = examples(9)
  results = dict(latent.code_ablation(skip_context(test, 0.0, value_range="unit")))
  assert results["shuffle_ratio"] == pytest.approx(1.0)
  expected = np.square(1 / (1 + np.exp(-test - 0.1)) - test).sum() / 9
  assert results["other_code_squared_error"] == pytest.approx(expected, rel=1e-5)
