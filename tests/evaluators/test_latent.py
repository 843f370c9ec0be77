"""The health of the code, of models whose weights are made so that it is known."""

import functools
import itertools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of

from ae_jax import api, data, models
from ae_jax.data import dimension
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import figures, latent, posterior, sparsity, spectra
from ae_jax.ops import losses

SHAPE = (3, 2, 1)


def examples(count, seed=0, shape=SHAPE):
  return np.random.default_rng(seed).uniform(size=(count, *shape)).astype(np.float32)


def subject_of(train, test, change=lambda params: None, one_class=None, labels=None, value_range="real", **options):
  """A dense autoencoder of this data with random weights, after `change` has changed them."""
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
  return subject_of(examples(110), test, value_range="unit", bottleneck="gaussian")


@functools.cache
def analyzed():
  """A gaussian code, and all that is found out about it."""
  made = gaussian(examples(37))
  return made, analyze(made)


def analyze(made):
  found = list(latent.analyze(made))
  assert len(dict(found)) == len(found)
  for name, value in found:
    assert isinstance(value, int | float | str | figures.Bars), name
  return dict(found)


def remarks(found):
  return {name for name, value in found.items() if isinstance(value, str)}


def code_of(params):
  """Weights [8, 3] and biases [3] of the last layer of the encoder."""
  return params["encoder"]["code"]["kernel"], params["encoder"]["code"]["bias"]


def test_a_code_that_is_the_example_turned_and_stretched():
  """Encoder A and decoder A^-1: all is known."""
  matrix = np.random.default_rng(3).normal(size=(6, 6)).astype(np.float32)

  def change(params):
    code_of(params)[0][:] = matrix
    params["decoder"]["logits"]["kernel"][:] = np.linalg.inv(matrix)
    params["decoder"]["logits"]["bias"][:] = -code_of(params)[1] @ np.linalg.inv(matrix)

  test = examples(200, seed=1)
  found = analyze(subject_of(examples(120), test, change, latent=6, widths=()))
  pixels = test.reshape(200, 6)
  codes = pixels @ matrix
  eigenvalues = spectra.covariance_eigenvalues(codes)
  wanted = {
    "participation_ratio": spectra.participation_ratio(eigenvalues),
    "effective_rank": spectra.effective_rank(eigenvalues),
    "encoder_lipschitz_mean": np.linalg.norm(matrix, 2),
    "encoder_lipschitz_max": np.linalg.norm(matrix, 2),
    "decoder_lipschitz_mean": np.linalg.norm(np.linalg.inv(matrix), 2),
    "decoder_lipschitz_max": np.linalg.norm(np.linalg.inv(matrix), 2),
    "mean_code_squared_error": pixels.var(0).sum(),
  }
  assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-4)
  assert (found["active_units"], found["dead_units"]) == (6, 0)
  np.testing.assert_allclose(found["code_variance"].values, np.sort(codes.var(0))[::-1], rtol=1e-4)
  assert found["own_code_squared_error"] < 1e-9
  assert found["other_code_squared_error"] == pytest.approx(2 * pixels.var(0).sum(), rel=0.1)
  assert found["shuffle_ratio"] > 1e8


def test_the_dimension_is_that_of_the_training_examples_and_of_their_codes():
  made, found = analyzed()
  for kind, points in {"data": made.train.reshape(110, 6), "codes": made.train_codes}.items():
    for name, key in {"TwoNN": "twonn", "maximum likelihood": "mle"}.items():
      mine = tuple(found[f"{kind}_dimension_{key}{end}"] for end in ("", "_low", "_high"))
      assert mine == dimension.estimates(points)[name]


def test_a_code_that_never_changes_is_found_out():
  found = analyze(subject_of(examples(120), examples(40), lambda params: code_of(params)[0].fill(0)))
  nothing = ("active_units", "participation_ratio", "effective_rank", "encoder_lipschitz_mean", "encoder_lipschitz_max")
  assert [found[name] for name in nothing] == [0] * 5
  assert found["shuffle_ratio"] == 1.0
  assert found["own_code_squared_error"] == found["other_code_squared_error"]
  assert found["mean_code_squared_error"] == pytest.approx(found["own_code_squared_error"], rel=1e-6)
  assert "takes 100 different training examples" in found["codes_dimension"]
  assert found["data_dimension_twonn"] > 1


def test_of_a_code_that_collapsed_in_part_the_rest_counts():
  def change(params):
    kernel, bias = code_of(params)
    kernel[:] *= np.float32([20.0, 0.0, 0.0])
    bias[:] = [0.0, 5.0, 0.01]  # the second unit always on, the third always off

  made = subject_of(examples(120), examples(40), change)
  found = dict([*latent.spread(made.test_codes), *latent.use(made)])
  assert (found["active_units"], found["dead_units"]) == (1, 1)
  assert found["participation_ratio"] == pytest.approx(1.0)
  assert found["effective_rank"] == pytest.approx(1.0)
  assert found["code_variance"].values[0] > posterior.ACTIVE
  np.testing.assert_allclose(found["code_variance"].values[1:], 0, atol=1e-12)
  assert found["other_code_squared_error"] != pytest.approx(found["own_code_squared_error"], rel=1e-3)


@pytest.mark.parametrize(("units", "title"), [(1024, "set"), (1030, "set, the 1024 largest of 1030")])
def test_of_a_huge_code_the_largest_variances_are_shown_and_all_units_are_counted(units, title):
  codes = np.random.default_rng(0).normal(size=(6, units))
  found = dict(latent.spread(codes))
  assert found["active_units"] == units
  assert found["code_variance"].title.endswith(title)
  np.testing.assert_array_equal(found["code_variance"].values, np.sort(codes.var(0))[::-1][:1024])


@pytest.mark.parametrize(
  ("codes", "use", "perplexity", "level_use", "level_perplexity"),
  [
    (list(itertools.product((-1, 0, 1), repeat=2)), 1.0, 9.0, 1.0, 3.0),  # each entry once
    ([(0, 1)] * 12, 1 / 9, 1.0, 1 / 3, 1.0),  # collapse
    ([(0, 1)] * 6 + [(0, 0)] * 6, 2 / 9, 2.0, 0.5, 1.5),
    ([(0, 1)] * 8 + [(1, 0)] * 4, 2 / 9, 1.5 ** (2 / 3) * 3 ** (1 / 3), 2 / 3, 1.5 ** (2 / 3) * 3 ** (1 / 3)),
  ],
)
def test_a_codebook_is_used_as_much_as_was_planted(codes, use, perplexity, level_use, level_perplexity):
  found = dict(latent.codebook(np.int32(codes) + 1, models.CodeSpec((2,), levels=3, index_shape=(2,))))
  wanted = {"use": use, "perplexity": perplexity, "bits": 2 * math.log2(3)}
  assert found == pytest.approx(
    {**{f"codebook_{name}": value for name, value in wanted.items()}}
    | {"level_use": level_use, "level_perplexity": level_perplexity}
  )


def test_a_codebook_with_more_entries_than_examples_is_a_remark_beside_the_levels():
  found = analyze(subject_of(examples(120), examples(40), latent=5, bottleneck="fsq9"))
  assert remarks(found) >= {"codebook"}
  assert "9^5 entries, of which 40 test examples" in found["codebook"]
  assert 1 <= found["codebook_perplexity"] <= 40
  assert 1 <= found["level_perplexity"] <= 9 * found["level_use"] <= 9


def test_the_divergence_of_a_gaussian_code_from_the_prior_is_that_of_two_gaussians():
  mean, log_variance = np.float32([0.5, -2.0, 0.0]), np.float32([0.3, -1.0, 0.0])

  def change(params):
    code_of(params)[0].fill(0)
    code_of(params)[1][:] = np.concatenate([mean, log_variance])

  found = dict(latent.divergence(subject_of(examples(20), examples(37), change, bottleneck="gaussian")))
  draws = mean + np.exp(log_variance / 2) * np.random.default_rng(0).normal(size=(400_000, 3))
  log_ratio = -0.5 * (np.square(draws - mean) * np.exp(-log_variance) + log_variance - np.square(draws))
  np.testing.assert_allclose(found["posterior_kl"].values, np.sort(log_ratio.mean(0))[::-1], atol=0.01)
  assert found["kl"] == pytest.approx(float(losses.gaussian_kl(mean, log_variance).sum()))


def test_what_each_evaluation_tells_is_told_alike():
  made, found = analyzed()
  keys = jax.random.split(jax.random.key(0), 37)
  values = posterior.per_example(made.run.model, made.run.variables, {"x": made.test}, keys, "unit", None)
  told = dict(posterior.metrics({name: np.asarray(rows) for name, rows in values.items()}, None))
  told |= dict(sparsity.metrics({"code": made.test_codes}, None))
  assert found["kl"] == pytest.approx(told["test/kl"], rel=1e-6)
  assert found["active_units"] == told["test/active_units"]
  assert found["dead_units"] == told["test/dead_units"]
  assert found["own_code_squared_error"] == pytest.approx(made.squared_errors.mean())


def test_the_batches_change_nothing(monkeypatch):
  monkeypatch.setattr(contexts, "_BATCH", 16)
  monkeypatch.setattr(api, "_LARGEST_BATCH", 8)
  parts, whole = analyze(gaussian(examples(37))), analyzed()[1]
  assert set(parts) == set(whole)
  for name, value in whole.items():
    mine, its = (each.values if isinstance(each, figures.Bars) else each for each in (parts[name], value))
    np.testing.assert_allclose(mine, its, rtol=2e-6, err_msg=name)


def test_the_order_changes_nothing_of_how_the_codes_vary():
  whole, turned = analyzed()[1], gaussian(examples(37)[::-1])
  for name, value in [*latent.spread(turned.test_codes), *latent.divergence(turned)]:
    mine, its = (each.values if isinstance(each, figures.Bars) else each for each in (value, whole[name]))
    np.testing.assert_allclose(mine, its, rtol=2e-6, err_msg=name)


def test_the_decoder_is_as_steep_as_what_it_gives_in_the_range_of_the_data():
  made, found = analyzed()
  decode = lambda z: jax.nn.sigmoid(made.run.model.decode(made.run.variables, z[None])[0])
  jacobians = np.asarray(jax.jit(jax.vmap(jax.jacobian(decode)))(jnp.asarray(made.test_codes)))
  wanted = np.linalg.svd(jacobians.reshape(37, 6, 3), compute_uv=False)[:, 0]
  assert found["decoder_lipschitz_mean"] == pytest.approx(wanted.mean(), rel=1e-5)
  assert found["decoder_lipschitz_max"] == pytest.approx(wanted.max(), rel=1e-5)


def test_errors_are_of_the_class_that_was_trained_on():
  normal = np.arange(40) % 3 == 1
  made = subject_of(examples(20), examples(40), one_class=1, labels=np.where(normal, 1, 5))
  alone = subject_of(examples(20), examples(40)[normal])
  assert dict(latent.use(made)) == pytest.approx(dict(latent.use(alone)), rel=1e-6)


@pytest.mark.parametrize(("count", "wanted"), [(2, 1.0), (3, 2.0)])
def test_every_example_gets_the_code_of_another_and_each_code_is_given_once(count, wanted):
  """Example i is the number i, which is its code too: |i - j|^2 on average, whatever the cycle."""
  test = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1)
  ones = lambda params: jax.tree.map(lambda leaf: leaf.fill(leaf.ndim - 1), params)
  for seed in range(4):
    made = subject_of(test, test, ones, latent=1, widths=())
    made.run.config.seed = seed
    found = dict(latent.use(made))
    assert found["own_code_squared_error"] == 0.0
    assert found["other_code_squared_error"] == pytest.approx(wanted)
    assert found["shuffle_ratio"] == math.inf


def test_one_example_leaves_remarks_and_what_can_be_had():
  found = analyze(subject_of(examples(2), examples(1), bottleneck="gaussian"))
  assert remarks(found) == {"data_dimension", "codes_dimension", "spread", "use"}
  assert {"dead_units", "kl", "posterior_kl", "encoder_lipschitz_max", "decoder_lipschitz_max"} <= set(found)
  assert all(math.isfinite(value) for value in found.values() if isinstance(value, float))


def test_series_that_are_all_the_same_are_no_exception():
  same = np.full((120, 7, 2), 0.25, np.float32)
  found = analyze(subject_of(same, same[:40]))
  assert found["participation_ratio"] == 0.0
  assert found["shuffle_ratio"] == pytest.approx(1.0)
  assert remarks(found) == {"data_dimension", "codes_dimension"}


@pytest.mark.parametrize(("numbers", "count"), [(5 * 18, 5), (17, 1)])
def test_large_jacobians_are_those_of_fewer_examples_at_even_distances(monkeypatch, numbers, count):
  made = analyzed()[0]
  every = spectra.largest_singular_values(made.each(_decoder_gram(made), made.test, made.test_codes))
  monkeypatch.setattr(latent, "_NUMBERS", numbers)
  monkeypatch.setattr(latent, "_LARGEST", 18)
  found = dict(latent.lipschitz(made))
  some = every[np.linspace(0, 36, count).astype(int)]
  assert found["decoder_lipschitz_mean"] == pytest.approx(some.mean(), rel=1e-5)
  assert found["decoder_lipschitz_max"] == pytest.approx(some.max(), rel=1e-5)


def _decoder_gram(made):
  decode = latent._decoder(made)
  return lambda variables, x, z, keys: spectra.decoder_gram(lambda z: decode(variables, z, x, {}), z)


def test_the_variance_of_a_code_far_from_zero_is_exact():
  codes = (1000 + np.random.default_rng(0).normal(size=(20_000, 3))).astype(np.float32)
  found = dict(latent.spread(codes))["code_variance"].values
  np.testing.assert_allclose(found, np.sort(codes.astype(np.float64).var(0))[::-1], rtol=1e-9)


def test_the_seed_decides_which_example_lends_its_code():
  made, errors = gaussian(examples(37)), []
  for seed in (0, 1, 0):
    made.run.config.seed = seed
    errors.append(dict(latent.use(made))["other_code_squared_error"])
  assert errors[0] == errors[2] != errors[1]


def test_jacobians_that_are_too_large_are_left_out_in_words(monkeypatch):
  monkeypatch.setattr(latent, "_LARGEST", 17)  # 6 times 3 are 18
  found = dict(latent.lipschitz(analyzed()[0]))
  assert set(found) == {"lipschitz"}
  assert "Jacobians of 18 numbers" in found["lipschitz"]


class Skipping:
  """A model that hands its decoder the example itself, to which it adds a share of the mean of the code."""

  shape, code, columns, has_posterior = SHAPE, models.CodeSpec((2,)), (), False

  def __init__(self, share, has_skips=True):
    self.share, self.has_skips = share, has_skips

  def encode(self, variables, x, given=None):
    return models.Encoding(x.mean((1, 2)) * jnp.ones((1, 2)))

  def decode(self, variables, z, given=None):
    return self.apply("decode_beside", variables, z, jnp.zeros((z.shape[0], *SHAPE)))

  def reconstruct(self, variables, x, given=None):
    return self.apply("decode_beside", variables, self.encode(variables, x).z, x)

  def apply(self, method, variables, z, x):
    return x + 0.1 + self.share * z.mean(1)[:, None, None, None]


@pytest.mark.parametrize(("share", "skips"), [(0.0, True), (0.5, True), (0.5, False)])
def test_where_skips_go_around_the_code_they_stay_the_examples_own(share, skips):
  config = types.SimpleNamespace(seed=0, data=types.SimpleNamespace(range="real"))
  test = examples(9)
  dataset = data.Dataset("made", "real", test, test, None, None)
  made = contexts.EvalContext(api.Run(models.Variables({}), config, {}, [], Skipping(share, skips), 0), dataset)
  found = dict([*latent.use(made), *latent.lipschitz(made)])
  assert remarks(found) == ({"skips"} if skips else set())
  assert found["decoder_lipschitz_max"] == pytest.approx(share * math.sqrt(6 / 2))
  means = test.mean((1, 2, 3))
  own, mean = np.square(0.1 + share * means).mean(), np.square(0.1 + share * means.mean())
  assert found["own_code_squared_error"] == pytest.approx(6 * own)
  if skips:
    assert found["mean_code_squared_error"] == pytest.approx(6 * mean)
    assert found["shuffle_ratio"] == pytest.approx(1.0)  # the sum over all is the same, whose ever the code is


def test_what_is_decoded_beside_an_example_lies_in_the_range_of_the_data():
  """A decoder that ignores the code loses nothing by another code, whatever the output activation."""
  config = types.SimpleNamespace(seed=0, data=types.SimpleNamespace(range="unit"))
  test = examples(9)
  dataset = data.Dataset("made", "unit", test, test, None, None)
  found = dict(
    latent.use(contexts.EvalContext(api.Run(models.Variables({}), config, {}, [], Skipping(0.0), 0), dataset))
  )
  assert found["shuffle_ratio"] == pytest.approx(1.0)
  wanted = np.square(1 / (1 + np.exp(-test - 0.1)) - test).sum() / 9
  assert found["other_code_squared_error"] == pytest.approx(wanted, rel=1e-5)
