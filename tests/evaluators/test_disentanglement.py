"""Scores of codes that equal, rotate or ignore the factors, compared with closed forms and other libraries."""

import jax
import numpy as np
import pytest
from conftest import config_of

from ae_jax import api, data, errors, models
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import disentanglement, figures

VALUES = {"kind": ("a", "b", "c"), "size": (1, 2, 4, 8), "place": tuple(range(8))}
SIZES = np.array([len(values) for values in VALUES.values()])
NOMINAL = [True, False, False]
BETWEEN_UNITS = {"mig", "sap", "dci_completeness"}


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
  monkeypatch.setattr(disentanglement, "_TREES", 8)


def draw_factors(count, seed=0):
  return np.random.default_rng(seed).integers(0, SIZES, (count, 3))


def standardised(factors):
  return (factors - (SIZES - 1) / 2) / np.sqrt((SIZES**2 - 1) / 12)


def noise(count, units, seed=0):
  return np.random.default_rng([seed, 1]).normal(size=(count, units))


def halves_of(encode):
  """Returns (codes, factors) for training and testing, from a function (factors, seed) -> codes."""
  return [(encode(draw_factors(count, count), count), draw_factors(count, count)) for count in (1500, 1000)]


def scores(encode, in_use=None):
  train, test = halves_of(encode)
  in_use = disentanglement.varying_units(test[0]) if in_use is None else np.array(in_use)
  return disentanglement.scores(train, test, in_use, NOMINAL, np.random.default_rng(0))


def means(results):
  return {name: float(np.mean(score)) for name, score in results.items()}


def identity_codes(factors, seed):
  """Returns the factors, permuted and scaled, with two units of noise."""
  codes = np.concatenate([noise(len(factors), 2, seed), factors], 1)
  return codes[:, [2, 0, 4, 3, 1]] * [-3.0, 1.0, 0.01, 700.0, 5.0]


def rotated_codes(factors, seed):
  """Returns a rotation of the factors: each unit mixes two or three of them."""
  del seed
  return standardised(factors) @ (np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]]) / np.sqrt([[3], [2], [6]])).T


def noise_codes(factors, seed):
  return noise(len(factors), 5, seed)


def test_codes_equal_to_the_factors_have_perfect_scores():
  results = scores(identity_codes)
  assert set(results) == {"factorvae", "dci_disentanglement", "dci_informativeness", *BETWEEN_UNITS}
  assert results["factorvae"] == 1.0
  assert min(results["mig"]) > 0.94
  assert min(results["sap"][1:]) > 0.98  # a linear boundary on one unit separates two of the three kinds
  assert results["sap"][0] > 0.5
  assert results["dci_disentanglement"] == pytest.approx(1, abs=1e-9)
  assert results["dci_completeness"] == pytest.approx(1, abs=1e-9)
  assert min(results["dci_informativeness"]) > 0.999


def test_a_rotation_keeps_informativeness_and_lowers_the_other_scores():
  results, best = means(scores(rotated_codes)), means(scores(identity_codes))
  assert results["dci_informativeness"] > 0.95
  for name in set(best) - {"dci_informativeness"}:
    assert results[name] < best[name] - 0.2, name


def test_noise_has_scores_at_chance():
  results = means(scores(noise_codes))
  assert results.pop("factorvae") == pytest.approx(1 / 3, abs=0.08)
  assert results == pytest.approx(dict.fromkeys(results, 0.0), abs=0.05)


def test_information_agrees_with_scikit_learn_on_the_same_bins():
  from sklearn.metrics import mutual_info_score

  factors = draw_factors(700)
  codes = np.concatenate([rotated_codes(factors, 0), noise_codes(factors, 0)], 1)
  results = disentanglement.information(codes, factors)
  for i, unit in enumerate(codes.T):
    bins = np.digitize(unit, np.linspace(unit.min(), unit.max(), disentanglement.BINS + 1)[1:-1])
    assert len(np.unique(bins)) > 10
    np.testing.assert_allclose(results[i], [mutual_info_score(bins, factor) for factor in factors.T], atol=1e-12)


def test_information_of_a_factor_is_its_entropy_and_of_a_constant_zero():
  factors = np.array([(i, j, k) for i in range(3) for j in range(4) for k in range(8)])
  results = disentanglement.information(np.concatenate([factors, np.ones((96, 1))], 1), factors)
  np.testing.assert_allclose(results, [*np.diag(np.log(SIZES)), np.zeros(3)], atol=1e-12)


@pytest.mark.parametrize(
  ("importance", "disentangled", "complete"),
  [
    (np.eye(3), 1.0, 1.0),
    (np.full((3, 3), 1 / 3), 0.0, 0.0),
    (np.array([[1.0, 0.0], [0.0, 0.5], [0.0, 0.5], [0.0, 0.0]]), 1.0, 1 - np.log(2) / np.log(4) / 2),
    (np.array([[0.9, 0.9], [0.1, 0.0], [0.0, 0.1]]), 0.1, 1 + (0.9 * np.log(0.9) + 0.1 * np.log(0.1)) / np.log(3)),
    (np.zeros((2, 3)), 0.0, 0.0),
  ],
)
def test_disentanglement_and_completeness_match_the_paper(importance, disentangled, complete):
  assert disentanglement.disentanglement(importance) == pytest.approx(disentangled)
  assert disentanglement.completeness(importance, len(importance)) == pytest.approx(complete)


def test_linear_scores_agree_with_regression_and_a_support_vector_machine():
  from sklearn.linear_model import LinearRegression

  train, test = halves_of(lambda factors, seed: rotated_codes(factors, seed) + 0.3 * noise(len(factors), 3, seed))
  results = disentanglement.linear_scores(train, test, NOMINAL)
  for i in range(3):
    unit = test[0][:, [i]]
    expected = [LinearRegression().fit(unit, factor).score(unit, factor) for factor in test[1][:, 1:].T]
    np.testing.assert_allclose(results[i, 1:], expected, atol=1e-9)
  (accuracy,) = disentanglement.linear_scores(*halves_of(lambda factors, _: 1.0 * (factors[:, :1] == 1)), NOMINAL)[:, 0]
  assert accuracy == pytest.approx(2 / 3, abs=0.05)  # one kind is separated; of the two others one is guessed


def test_two_factors_in_one_unit_lower_disentanglement():
  results = scores(lambda factors, seed: np.stack([factors[:, 0], 4.0 * factors[:, 2] + factors[:, 1]], 1))
  assert results["factorvae"] == pytest.approx(2 / 3)  # groups of the third factor vote like those of the second
  assert 0.3 < results["dci_disentanglement"] < 0.8
  assert results["dci_completeness"] > 0.95


def test_a_factor_in_two_units_has_no_gap_but_a_full_factorvae_score():
  results = scores(lambda factors, seed: np.concatenate([factors, 2.0 * factors], 1))
  np.testing.assert_allclose([results["mig"], results["sap"]], 0, atol=1e-9)
  assert results["dci_completeness"] < 0.7
  assert results["factorvae"] == 1.0


def changed(change):
  """Returns an encoder that applies `change` to noisy rotated codes."""
  return lambda factors, seed: change(rotated_codes(factors, seed) + 0.2 * noise(len(factors), 3, seed))


@pytest.mark.parametrize(
  "change",
  [
    lambda codes: codes[:, [2, 0, 1]],
    lambda codes: -codes,
    lambda codes: codes * [1e-3, 1.0, 1e6] + [5.0, 0.0, -3.0],
    lambda codes: np.insert(codes, 1, 7.0, axis=1)[:, :4],
  ],
)
def test_scores_are_invariant_to_order_sign_scale_and_constant_units(change):
  plain, other = scores(changed(lambda codes: codes)), scores(changed(change))
  for name in ("mig", "sap", "factorvae"):
    np.testing.assert_allclose(other[name], plain[name], atol=1e-6)
  np.testing.assert_allclose(other["dci_disentanglement"], plain["dci_disentanglement"], atol=0.02)  # trees are random
  np.testing.assert_allclose(other["dci_informativeness"], plain["dci_informativeness"], atol=0.02)


def test_units_not_in_use_count_as_uninformative():
  twice = lambda factors, seed: np.concatenate([factors, factors[:, :1]], 1) + 0.0
  without = scores(twice, [True, True, True, False])
  assert min(without["mig"]) > 0.94 > 0.01 > scores(twice)["mig"][0]
  assert without["sap"][0] == pytest.approx(scores(identity_codes)["sap"][0], abs=0.05)
  alone = scores(lambda factors, seed: factors + 0.0, [False, True, False])
  assert alone["sap"][0] < 0.05  # one unit that does not encode the kind has no gap to uninformative units
  assert alone["mig"][1] > 0.94


@pytest.mark.parametrize(("informative", "half"), [("train", 0), ("test", 1)])
def test_fitted_scores_are_low_if_one_half_is_noise(informative, half):
  """One half has the factors as its codes, the other has noise."""
  halves = [(noise(len(factors), 3, 5), factors) for _, factors in halves_of(noise_codes)]
  halves[half] = (standardised(halves[half][1]), halves[half][1])
  results = disentanglement.scores(*halves, np.ones(3, bool), NOMINAL, np.random.default_rng(0))
  assert max(results["dci_informativeness"]) < 0.05
  assert results["sap"][0] < 0.1
  assert results["factorvae"] < 0.6
  assert (np.mean(results["mig"]) > 0.9) == (informative == "test")
  assert (min(results["sap"][1:]) > 0.9) == (informative == "test")


def test_factorvae_assigns_factors_to_units_on_training_examples():
  train, test = halves_of(lambda factors, _: 1.0 * factors)
  test = (test[0][:, [1, 2, 0]], test[1])
  assert disentanglement.factorvae(train, test, np.random.default_rng(0)) == 0.0


def test_mig_is_normalised_by_the_entropy_of_the_factor():
  generator = np.random.default_rng(0)
  factors = [
    np.stack([generator.choice(3, count, p=(0.9, 0.05, 0.05)), draw_factors(count)[:, 2]], 1) for count in (900, 800)
  ]
  halves = [(np.concatenate([each, noise(len(each), 1)], 1).astype(float), each) for each in factors]
  results = disentanglement.scores(*halves, np.ones(3, bool), [True, False], generator)
  assert min(results["mig"]) > 0.9


def test_constant_units_only_change_the_base_of_completeness():
  constant = lambda factors, seed: np.insert(rotated_codes(factors, seed), 3, 7.0, axis=1)
  three, four = (scores(encode)["dci_completeness"] for encode in (rotated_codes, constant))
  assert 1 - four == pytest.approx((1 - three) * np.log(3) / np.log(4), abs=0.01)


def test_a_unit_that_is_constant_in_training_is_not_in_use():
  (codes, factors), test = halves_of(identity_codes)
  codes[:, 0] = 1.0  # still encodes the kind of the test examples
  results = disentanglement.scores((codes, factors), test, np.ones(5, bool), NOMINAL, np.random.default_rng(0))
  assert results["mig"][0] < 0.05
  assert min(results["mig"][1:]) > 0.94
  assert all(np.isfinite(score).all() for score in results.values())


def test_a_nominal_factor_is_predicted_by_its_indicators():
  """A unit separates one of three kinds, which explains half of their Gini impurity."""
  halves = halves_of(lambda factors, _: 1.0 * (factors[:, :1] == 1))
  assert disentanglement.forest_importances(*halves, NOMINAL)[1][0] == pytest.approx(0.5, abs=0.05)


def test_the_most_informative_units_are_kept(monkeypatch):
  monkeypatch.setattr(disentanglement, "_MOST_UNITS", 3)
  results = scores(identity_codes)
  assert min(results["dci_informativeness"]) > 0.999
  assert results["factorvae"] == 1.0
  assert min(results["sap"]) > 0.5


def context_of(one_class=None, order=slice(None), latent=5, stretch=1.0, **options):
  """Returns a context whose images of 3 x 2 are factors and noise, and whose latent code is their first pixels."""
  config = config_of("dense", "digits")
  config.data.range = "real"
  config.model.update({"latent": latent, "widths": (), **options})

  def half(count):
    factors = draw_factors(count, count)
    pixels = np.concatenate([standardised(factors), noise(count, 3, count)], 1)
    return pixels.reshape(-1, 3, 2, 1).astype(np.float32), factors

  (train, train_factors), (test, factors) = half(600), half(400)
  kept = np.isin(train_factors[:, 0], [one_class] if one_class is not None else [0, 1, 2])
  train, train_factors, test, factors = train[kept], train_factors[kept], test[order], factors[order]
  columns = (train, test, train_factors[:, 0], factors[:, 0], one_class, False, "", train_factors, factors, VALUES)
  dataset = data.Dataset("made", "real", *columns)
  model = models.build(shape=dataset.shape, **config.model)
  variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), model.abstract_variables())
  variables.params["encoder"]["code"]["kernel"][:, :latent] = stretch * np.eye(6)[:, :latent]
  variables.params["decoder"]["logits"]["kernel"][:] = np.eye(6)[:latent]
  return contexts.EvalContext(api.Run(variables, config, {}, [], model, 0), dataset)


def analyze(context):
  """Returns all results of the analysis, and the numbers among them."""
  pairs = list(disentanglement.analyze(context))
  assert len(dict(pairs)) == len(pairs)
  return dict(pairs), {name: value for name, value in pairs if isinstance(value, float)}


def test_the_analysis_yields_scores_and_mutual_information():
  context = context_of()
  results, numbers = analyze(context)
  assert numbers["mig/code"] == pytest.approx(np.mean([numbers[f"mig_by_factor/{name}"] for name in VALUES]))
  assert numbers["mig/code"] > 0.9
  assert (numbers["factorvae/code"], numbers["factorvae/chance"]) == (1.0, 1 / 3)
  assert {f"{name}/pca" for name in BETWEEN_UNITS} < set(numbers)
  heatmap = results["factor_information"]
  assert isinstance(heatmap, figures.Heatmap)
  assert heatmap.unit == "nats"
  information = disentanglement.information(context.test_codes.astype(float), context.dataset.test_factors)
  np.testing.assert_allclose(np.sort(heatmap.values), np.sort(information.T), rtol=1e-9)
  assert (np.diff(heatmap.values.argmax(0)) >= 0).all()  # units are grouped by factor


def test_a_traversal_moves_only_the_most_informative_unit():
  context = context_of()
  traversals = analyze(context)[0]["factors_moved"]
  nats = disentanglement.information(context.test_codes.astype(float), context.dataset.test_factors)
  assert list(traversals.rows) == [f"{name}: unit {i + 1}, {nats[i, i]:.2f} nats" for i, name in enumerate(VALUES)]
  for unit, decoded in enumerate(traversals.rows.values()):
    pixels = decoded.reshape(-1, 6)
    np.testing.assert_allclose(pixels[[0, -1], unit], np.quantile(context.test_codes[:, unit], [0.02, 0.98]), rtol=1e-5)
    np.testing.assert_allclose(np.diff(pixels[:, unit], 2), 0, atol=1e-5)
    assert np.ptp(pixels, axis=0).astype(bool).tolist() == [pixel == unit for pixel in range(6)]
    kept = np.delete(pixels[0, :5], unit)  # the other units are those of the median example
    assert np.abs(kept - np.median(np.delete(context.test_codes, unit, axis=1), axis=0)).max() < 1
    assert len(pixels) == 9


def test_scores_do_not_depend_on_the_order_of_the_test_examples():
  order = np.random.default_rng(1).permutation(400)
  assert analyze(context_of(order=order))[1] == pytest.approx(analyze(context_of())[1], abs=1e-6)


def test_factors_are_subsampled_with_the_training_examples(monkeypatch):
  monkeypatch.setattr(contexts, "MOST_TRAINING", 300)
  assert analyze(context_of())[1]["dci_informativeness/code"] > 0.95


def test_a_latent_code_of_one_unit_has_no_gaps():
  results, numbers = analyze(context_of(latent=1))
  assert "this latent code has only one" in results["gaps"]
  assert not {f"{name}/code" for name in BETWEEN_UNITS} & set(numbers)
  assert numbers["dci_informativeness_by_factor/kind"] > 0.99


def test_a_constant_latent_code_has_scores_at_chance():
  results, numbers = analyze(context_of(stretch=0.0))
  scored = {name: value for name, value in numbers.items() if name.endswith("/code")}
  assert scored.pop("factorvae/code") == numbers["factorvae/chance"]
  assert scored == dict.fromkeys(scored, 0.0)
  assert not {"factor_information", "factors_moved"} & set(results)


@pytest.mark.parametrize(("stretch", "units"), [(1.0, 5), (0.09, 0)])
def test_inactive_units_of_a_posterior_are_not_in_use(stretch, units):
  context = context_of(stretch=stretch, bottleneck="gaussian")
  assert disentanglement.units_in_use(context, context.test_codes).sum() == units
  plain = context_of(stretch=stretch)
  assert disentanglement.units_in_use(plain, plain.test_codes).sum() == 5


def test_training_on_one_class_restricts_the_analysis_to_it():
  results, numbers = analyze(context_of(one_class=1))
  assert "factors with a single value are omitted: kind" in results["constant"]
  assert "mig_by_factor/kind" not in numbers
  assert numbers["factorvae/code"] == 1.0
  assert numbers["factorvae/chance"] == 1 / 2


def test_figures_use_test_examples_of_the_trained_class():
  context = context_of(one_class=1)
  kept = context.dataset.test_factors[:, 0] == 1
  nats = disentanglement.information(context.test_codes[kept].astype(float), context.dataset.test_factors[kept][:, 1:])
  np.testing.assert_allclose(np.sort(analyze(context)[0]["factor_information"].values), np.sort(nats[nats.any(1)].T))


def test_a_factor_that_is_constant_in_one_half_is_omitted():
  kind = context_of().dataset.test_factors[:, 0]
  results, numbers = analyze(context_of(order=np.flatnonzero(kind == 2)))
  assert "factors with a single value are omitted: kind" in results["constant"]
  assert numbers["factorvae/chance"] == 1 / 2


def test_the_baseline_is_pca_of_the_training_examples():
  from sklearn.decomposition import PCA

  context = context_of(latent=2)
  codes = disentanglement._codes(context, np.arange(400))
  pca = PCA(2, svd_solver="full").fit(context.train.reshape(-1, 6))
  for actual, points in zip(codes["pca"][1:], (context.train, context.test), strict=True):
    np.testing.assert_allclose(np.abs(actual), np.abs(pca.transform(points.reshape(-1, 6))), atol=1e-4)
  for actual, expected in zip(codes["code"][1:], (context.train_codes, context.test_codes), strict=True):
    np.testing.assert_array_equal(actual, expected)


def test_rounding_does_not_count_as_variation():
  codes = 5 + noise(100, 3) * [1e-8, 1e-4, 1.0]
  assert disentanglement.varying_units(codes).tolist() == [False, True, True]


def test_settings_match_the_published_protocols():
  assert (disentanglement.BINS, disentanglement._C) == (20, 0.01)  # Locatello et al. (2019)
  votes = disentanglement._votes(1.0 * draw_factors(500), draw_factors(500), np.random.default_rng(0))
  assert votes.sum(0).tolist() == [disentanglement.GROUPS] * 3 == [200] * 3
  assert disentanglement.GROUP == 64


def test_one_test_example_gives_a_remark():
  results, numbers = analyze(context_of(order=slice(1)))
  assert "fewer than two factors vary" in results["remark"]
  assert not numbers


def test_factors_are_required():
  disentanglement.EVALUATOR.check(None, context_of().dataset)
  images = np.zeros((2, 3, 2, 1), np.uint8)
  with pytest.raises(errors.UserError, match=r"'disentanglement' needs .*config\.data\.name='factors'"):
    disentanglement.EVALUATOR.check(None, data.Dataset("digits", "unit", images, images, None, None))
