"""Scores of codes that equal, rotate or ignore the factors, compared with closed forms and other libraries."""

import numpy as np
import pytest
from made_factors import BETWEEN_UNITS, SIZES, draw_factors, noise, standardised

from ae_jax.evaluators import factor_scores

NOMINAL = [True, False, False]


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
  monkeypatch.setattr(factor_scores, "_TREES", 8)


def splits_of(encode):
  """Returns (codes, factors) for training and testing, from a function (factors, seed) -> codes."""
  return [(encode(draw_factors(count, count), count), draw_factors(count, count)) for count in (1500, 1000)]


def scores(encode, in_use=None):
  train, test = splits_of(encode)
  in_use = factor_scores.varying_units(test[0]) if in_use is None else np.array(in_use)
  return factor_scores.scores(train, test, in_use, NOMINAL, np.random.default_rng(0))


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
  results = factor_scores.information(codes, factors)
  for i, unit in enumerate(codes.T):
    bins = np.digitize(unit, np.linspace(unit.min(), unit.max(), factor_scores.BINS + 1)[1:-1])
    assert len(np.unique(bins)) > 10
    np.testing.assert_allclose(results[i], [mutual_info_score(bins, factor) for factor in factors.T], atol=1e-12)


def test_information_of_a_factor_is_its_entropy_and_of_a_constant_zero():
  factors = np.array([(i, j, k) for i in range(3) for j in range(4) for k in range(8)])
  results = factor_scores.information(np.concatenate([factors, np.ones((96, 1))], 1), factors)
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
  assert factor_scores.disentanglement(importance) == pytest.approx(disentangled)
  assert factor_scores.completeness(importance, len(importance)) == pytest.approx(complete)


def test_linear_scores_agree_with_regression_and_a_support_vector_machine():
  from sklearn.linear_model import LinearRegression

  train, test = splits_of(lambda factors, seed: rotated_codes(factors, seed) + 0.3 * noise(len(factors), 3, seed))
  results = factor_scores.linear_scores(train, test, NOMINAL)
  for i in range(3):
    unit = test[0][:, [i]]
    expected = [LinearRegression().fit(unit, factor).score(unit, factor) for factor in test[1][:, 1:].T]
    np.testing.assert_allclose(results[i, 1:], expected, atol=1e-9)
  (accuracy,) = factor_scores.linear_scores(*splits_of(lambda factors, _: 1.0 * (factors[:, :1] == 1)), NOMINAL)[:, 0]
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


@pytest.mark.parametrize(("informative", "split"), [("train", 0), ("test", 1)])
def test_fitted_scores_are_low_if_one_split_is_noise(informative, split):
  """One split has the factors as its codes, the other has noise."""
  splits = [(noise(len(factors), 3, 5), factors) for _, factors in splits_of(noise_codes)]
  splits[split] = (standardised(splits[split][1]), splits[split][1])
  results = factor_scores.scores(*splits, np.ones(3, bool), NOMINAL, np.random.default_rng(0))
  assert max(results["dci_informativeness"]) < 0.05
  assert results["sap"][0] < 0.1
  assert results["factorvae"] < 0.6
  assert (np.mean(results["mig"]) > 0.9) == (informative == "test")
  assert (min(results["sap"][1:]) > 0.9) == (informative == "test")


def test_factorvae_assigns_factors_to_units_on_training_examples():
  train, test = splits_of(lambda factors, _: 1.0 * factors)
  test = (test[0][:, [1, 2, 0]], test[1])
  assert factor_scores.factorvae(train, test, np.random.default_rng(0)) == 0.0


def test_mig_is_normalised_by_the_entropy_of_the_factor():
  generator = np.random.default_rng(0)
  factors = [
    np.stack([generator.choice(3, count, p=(0.9, 0.05, 0.05)), draw_factors(count)[:, 2]], 1) for count in (900, 800)
  ]
  splits = [(np.concatenate([each, noise(len(each), 1)], 1).astype(float), each) for each in factors]
  results = factor_scores.scores(*splits, np.ones(3, bool), [True, False], generator)
  assert min(results["mig"]) > 0.9


def test_constant_units_only_change_the_base_of_completeness():
  constant = lambda factors, seed: np.insert(rotated_codes(factors, seed), 3, 7.0, axis=1)
  three, four = (scores(encode)["dci_completeness"] for encode in (rotated_codes, constant))
  assert 1 - four == pytest.approx((1 - three) * np.log(3) / np.log(4), abs=0.01)


def test_a_unit_that_is_constant_in_training_is_not_in_use():
  (codes, factors), test = splits_of(identity_codes)
  codes[:, 0] = 1.0  # still encodes the kind of the test examples
  results = factor_scores.scores((codes, factors), test, np.ones(5, bool), NOMINAL, np.random.default_rng(0))
  assert results["mig"][0] < 0.05
  assert min(results["mig"][1:]) > 0.94
  assert all(np.isfinite(score).all() for score in results.values())


def test_a_nominal_factor_is_predicted_by_its_indicators():
  """A unit separates one of three kinds, which explains half of their Gini impurity."""
  splits = splits_of(lambda factors, _: 1.0 * (factors[:, :1] == 1))
  assert factor_scores.forest_importances(*splits, NOMINAL)[1][0] == pytest.approx(0.5, abs=0.05)


def test_the_most_informative_units_are_kept(monkeypatch):
  monkeypatch.setattr(factor_scores, "MOST_UNITS", 3)
  results = scores(identity_codes)
  assert min(results["dci_informativeness"]) > 0.999
  assert results["factorvae"] == 1.0
  assert min(results["sap"]) > 0.5


def test_rounding_does_not_count_as_variation():
  codes = 5 + noise(100, 3) * [1e-8, 1e-4, 1.0]
  assert factor_scores.varying_units(codes).tolist() == [False, True, True]


def test_settings_match_the_published_protocols():
  assert (factor_scores.BINS, factor_scores._C) == (20, 0.01)  # Locatello et al. (2019)
  votes = factor_scores._votes(1.0 * draw_factors(500), draw_factors(500), np.random.default_rng(0))
  assert votes.sum(0).tolist() == [factor_scores.GROUPS] * 3 == [200] * 3
  assert factor_scores.GROUP == 64
