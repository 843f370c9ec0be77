"""Scores of codes that are the factors, their rotations, or nothing of them; the measures against what is known."""

import jax
import numpy as np
import pytest
from conftest import config_of

from ae_jax import api, data, errors, models
from ae_jax.evaluators import context, disentanglement, figures

VALUES = {"kind": ("a", "b", "c"), "size": (1, 2, 4, 8), "place": tuple(range(8))}
SIZES = np.array([len(values) for values in VALUES.values()])
NOMINAL = [True, False, False]
BETWEEN_UNITS = {"mig", "sap", "dci_completeness"}


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
  monkeypatch.setattr(disentanglement, "_TREES", 8)


def drawn(count, seed=0):
  return np.random.default_rng(seed).integers(0, SIZES, (count, 3))


def standardised(factors):
  return (factors - (SIZES - 1) / 2) / np.sqrt((SIZES**2 - 1) / 12)


def noise(count, units, seed=0):
  return np.random.default_rng([seed, 1]).normal(size=(count, units))


def halves_of(encode):
  """Codes and factors for training and for testing, from a function (factors, seed) -> codes."""
  return [(encode(drawn(count, count), count), drawn(count, count)) for count in (1500, 1000)]


def scores(encode, used=None):
  train, test = halves_of(encode)
  used = disentanglement.varying(test[0]) if used is None else np.array(used)
  return disentanglement.scores(train, test, used, NOMINAL, np.random.default_rng(0))


def means(found):
  return {name: float(np.mean(score)) for name, score in found.items()}


def the_factors(factors, seed):
  """Permuted and scaled, among units of noise."""
  codes = np.concatenate([noise(len(factors), 2, seed), factors], 1)
  return codes[:, [2, 0, 4, 3, 1]] * [-3.0, 1.0, 0.01, 700.0, 5.0]


def a_rotation(factors, seed):
  """Each unit is of two or three factors."""
  del seed
  return standardised(factors) @ (np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]]) / np.sqrt([[3], [2], [6]])).T


def nothing(factors, seed):
  return noise(len(factors), 5, seed)


def test_codes_that_are_the_factors_are_perfect():
  found = scores(the_factors)
  assert set(found) == {"factorvae", "dci_disentanglement", "dci_informativeness", *BETWEEN_UNITS}
  assert found["factorvae"] == 1.0
  assert min(found["mig"]) > 0.94
  assert min(found["sap"][1:]) > 0.98  # of the one without order a line can tell two of three kinds
  assert found["sap"][0] > 0.5
  assert found["dci_disentanglement"] == pytest.approx(1, abs=1e-9)
  assert found["dci_completeness"] == pytest.approx(1, abs=1e-9)
  assert min(found["dci_informativeness"]) > 0.999


def test_a_rotation_of_the_factors_tells_as_much_and_is_worth_less():
  found, best = means(scores(a_rotation)), means(scores(the_factors))
  assert found["dci_informativeness"] > 0.95
  for name in set(best) - {"dci_informativeness"}:
    assert found[name] < best[name] - 0.2, name


def test_codes_that_know_nothing_of_the_factors_are_worth_nothing():
  found = means(scores(nothing))
  assert found.pop("factorvae") == pytest.approx(1 / 3, abs=0.08)
  assert found == pytest.approx(dict.fromkeys(found, 0.0), abs=0.05)


def test_information_is_that_of_another_implementation_on_the_same_bins():
  from sklearn.metrics import mutual_info_score

  factors = drawn(700)
  codes = np.concatenate([a_rotation(factors, 0), nothing(factors, 0)], 1)
  found = disentanglement.information(codes, factors)
  for i, unit in enumerate(codes.T):
    bins = np.digitize(unit, np.linspace(unit.min(), unit.max(), disentanglement.BINS + 1)[1:-1])
    assert len(np.unique(bins)) > 10
    np.testing.assert_allclose(found[i], [mutual_info_score(bins, factor) for factor in factors.T], atol=1e-12)


def test_a_unit_that_is_a_factor_tells_its_entropy_and_one_that_never_varies_nothing():
  factors = np.array([(i, j, k) for i in range(3) for j in range(4) for k in range(8)])
  found = disentanglement.information(np.concatenate([factors, np.ones((96, 1))], 1), factors)
  np.testing.assert_allclose(found, [*np.diag(np.log(SIZES)), np.zeros(3)], atol=1e-12)


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
def test_disentanglement_and_completeness_are_those_of_the_paper(importance, disentangled, complete):
  assert disentanglement.disentanglement(importance) == pytest.approx(disentangled)
  assert disentanglement.completeness(importance, len(importance)) == pytest.approx(complete)


def test_a_line_tells_what_regression_and_a_support_vector_machine_tell():
  from sklearn.linear_model import LinearRegression

  train, test = halves_of(lambda factors, seed: a_rotation(factors, seed) + 0.3 * noise(len(factors), 3, seed))
  found = disentanglement.lines(train, test, NOMINAL)
  for i in range(3):
    unit = test[0][:, [i]]
    wanted = [LinearRegression().fit(unit, factor).score(unit, factor) for factor in test[1][:, 1:].T]
    np.testing.assert_allclose(found[i, 1:], wanted, atol=1e-9)
  (apart,) = disentanglement.lines(*halves_of(lambda factors, _: 1.0 * (factors[:, :1] == 1)), NOMINAL)[:, 0]
  assert apart == pytest.approx(2 / 3, abs=0.05)  # one kind from the two others, of which it guesses one


def test_two_factors_in_one_unit_are_one_too_many():
  found = scores(lambda factors, seed: np.stack([factors[:, 0], 4 * factors[:, 2] + factors[:, 1]], 1))
  assert found["factorvae"] == pytest.approx(2 / 3)  # the groups of the third vote as those of the second
  assert 0.3 < found["dci_disentanglement"] < 0.8
  assert found["dci_completeness"] > 0.95


def test_a_factor_in_two_units_has_no_gap_and_is_told_all_the_same():
  found = scores(lambda factors, seed: np.concatenate([factors, 2.0 * factors], 1))
  np.testing.assert_allclose([found["mig"], found["sap"]], 0, atol=1e-9)
  assert found["dci_completeness"] < 0.7
  assert found["factorvae"] == 1.0


def changed(change):
  """The encoder whose units are changed after a rotation that leaves something to measure."""
  return lambda factors, seed: change(a_rotation(factors, seed) + 0.2 * noise(len(factors), 3, seed))


@pytest.mark.parametrize(
  "change",
  [
    lambda codes: codes[:, [2, 0, 1]],
    lambda codes: -codes,
    lambda codes: codes * [1e-3, 1.0, 1e6] + [5.0, 0.0, -3.0],
    lambda codes: np.insert(codes, 1, 7.0, axis=1)[:, :4],
  ],
)
def test_the_order_sign_scale_and_company_of_the_units_change_nothing(change):
  plain, other = scores(changed(lambda codes: codes)), scores(changed(change))
  for name in ("mig", "sap", "factorvae"):
    np.testing.assert_allclose(other[name], plain[name], atol=1e-6)
  np.testing.assert_allclose(other["dci_disentanglement"], plain["dci_disentanglement"], atol=0.02)  # trees are random
  np.testing.assert_allclose(other["dci_informativeness"], plain["dci_informativeness"], atol=0.02)


def test_units_that_are_not_in_use_are_as_if_they_were_noise():
  twice = lambda factors, seed: np.concatenate([factors, factors[:, :1]], 1) + 0.0
  without = scores(twice, [True, True, True, False])
  assert min(without["mig"]) > 0.94 > 0.01 > scores(twice)["mig"][0]
  assert without["sap"][0] == pytest.approx(scores(the_factors)["sap"][0], abs=0.05)
  alone = scores(lambda factors, seed: factors + 0.0, [False, True, False])
  assert alone["sap"][0] < 0.05  # one unit that does not tell the kind has no gap to those that tell nothing
  assert alone["mig"][1] > 0.94


@pytest.mark.parametrize(("told", "half"), [("train", 0), ("test", 1)])
def test_scores_fitted_on_one_half_need_the_other_half_to_agree(told, half):
  """One half has the factors as its codes, the other has noise."""
  halves = [(noise(len(factors), 3, 5), factors) for _, factors in halves_of(nothing)]
  halves[half] = (standardised(halves[half][1]), halves[half][1])
  found = disentanglement.scores(*halves, np.ones(3, bool), NOMINAL, np.random.default_rng(0))
  assert max(found["dci_informativeness"]) < 0.05
  assert found["sap"][0] < 0.1
  assert found["factorvae"] < 0.6
  assert (np.mean(found["mig"]) > 0.9) == (told == "test")
  assert (min(found["sap"][1:]) > 0.9) == (told == "test")


def test_training_examples_decide_which_factor_a_unit_stands_for():
  train, test = halves_of(lambda factors, _: 1.0 * factors)
  test = (test[0][:, [1, 2, 0]], test[1])
  assert disentanglement.factorvae(train, test, np.random.default_rng(0)) == 0.0


def test_a_factor_with_one_frequent_value_counts_like_any_other():
  """MIG is a share of the entropy of the factor."""
  generator = np.random.default_rng(0)
  factors = [np.stack([generator.choice(3, count, p=(0.9, 0.05, 0.05)), drawn(count)[:, 2]], 1) for count in (900, 800)]
  halves = [(np.concatenate([each, noise(len(each), 1)], 1).astype(float), each) for each in factors]
  found = disentanglement.scores(*halves, np.ones(3, bool), [True, False], generator)
  assert min(found["mig"]) > 0.9


def test_units_that_never_vary_make_the_code_larger_for_completeness_only():
  constant = lambda factors, seed: np.insert(a_rotation(factors, seed), 3, 7.0, axis=1)
  three, four = (scores(encode)["dci_completeness"] for encode in (a_rotation, constant))
  assert 1 - four == pytest.approx((1 - three) * np.log(3) / np.log(4), abs=0.01)


def test_a_unit_that_varies_among_the_test_examples_alone_is_not_in_use():
  (codes, factors), test = halves_of(the_factors)
  codes[:, 0] = 1.0  # tells the kind of the test examples
  found = disentanglement.scores((codes, factors), test, np.ones(5, bool), NOMINAL, np.random.default_rng(0))
  assert found["mig"][0] < 0.05
  assert min(found["mig"][1:]) > 0.94
  assert all(np.isfinite(score).all() for score in found.values())


def test_a_factor_without_order_is_told_by_its_indicators():
  """A unit tells one of three kinds: half of their Gini impurity, and nothing of their numbers' order."""
  halves = halves_of(lambda factors, _: 1.0 * (factors[:, :1] == 1))
  assert disentanglement.forests(*halves, NOMINAL)[1][0] == pytest.approx(0.5, abs=0.05)


def test_of_many_units_those_that_tell_most_are_asked(monkeypatch):
  monkeypatch.setattr(disentanglement, "_MOST_UNITS", 3)
  found = scores(the_factors)
  assert min(found["dci_informativeness"]) > 0.999
  assert found["factorvae"] == 1.0
  assert min(found["sap"]) > 0.5


def subject_of(one_class=None, order=slice(None), latent=5, stretch=1.0, **options):
  """A model whose code is the first `latent` pixels of images of 3 x 2, factors and noise; it is decoded to them."""
  config = config_of("dense", "digits")
  config.data.range = "real"
  config.model.update({"latent": latent, "widths": (), **options})

  def half(count):
    factors = drawn(count, count)
    pixels = np.concatenate([standardised(factors), noise(count, 3, count)], 1)
    return pixels.reshape(-1, 3, 2, 1).astype(np.float32), factors

  (train, train_factors), (test, factors) = half(600), half(400)
  kept = np.isin(train_factors[:, 0], [one_class] if one_class is not None else [0, 1, 2])
  train, train_factors, test, factors = train[kept], train_factors[kept], test[order], factors[order]
  given = (train, test, train_factors[:, 0], factors[:, 0], one_class, False, "", train_factors, factors, VALUES)
  dataset = data.Dataset("made", "real", *given)
  model = models.build(shape=dataset.shape, **config.model)
  variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), model.abstract_variables())
  variables.params["encoder"]["code"]["kernel"][:, :latent] = stretch * np.eye(6)[:, :latent]
  variables.params["decoder"]["logits"]["kernel"][:] = np.eye(6)[:latent]
  return context.EvalContext(api.Run(variables, config, {}, [], model, 0), dataset)


def analyze(made):
  """(all that is found, the numbers of it)."""
  found = list(disentanglement.analyze(made))
  assert len(dict(found)) == len(found)
  return dict(found), {name: value for name, value in found if isinstance(value, float)}


def test_a_study_says_what_the_code_tells_and_shows_it():
  made = subject_of()
  found, numbers = analyze(made)
  assert numbers["mig/code"] == pytest.approx(np.mean([numbers[f"mig_by_factor/{name}"] for name in VALUES]))
  assert numbers["mig/code"] > 0.9
  assert (numbers["factorvae/code"], numbers["factorvae/chance"]) == (1.0, 1 / 3)
  assert {f"{name}/pca" for name in BETWEEN_UNITS} < set(numbers)
  shown = found["factor_information"]
  assert isinstance(shown, figures.Heatmap)
  assert shown.unit == "nats"
  information = disentanglement.information(made.test_codes.astype(float), made.dataset.test_factors)
  np.testing.assert_allclose(np.sort(shown.values), np.sort(information.T), rtol=1e-9)
  assert (np.diff(shown.values.argmax(0)) >= 0).all()  # units for the same factor stand beside each other


def test_the_unit_that_tells_most_of_a_factor_is_moved_and_no_other():
  made = subject_of()
  moved = analyze(made)[0]["factors_moved"]
  told = disentanglement.information(made.test_codes.astype(float), made.dataset.test_factors)
  assert list(moved.rows) == [f"{name}: unit {i + 1}, {told[i, i]:.2f} nats" for i, name in enumerate(VALUES)]
  for unit, decoded in enumerate(moved.rows.values()):
    pixels = decoded.reshape(-1, 6)
    np.testing.assert_allclose(pixels[[0, -1], unit], np.quantile(made.test_codes[:, unit], [0.02, 0.98]), rtol=1e-5)
    np.testing.assert_allclose(np.diff(pixels[:, unit], 2), 0, atol=1e-5)
    assert np.ptp(pixels, axis=0).astype(bool).tolist() == [each == unit for each in range(6)]
    kept = np.delete(pixels[0, :5], unit)  # of the example in the middle
    assert np.abs(kept - np.median(np.delete(made.test_codes, unit, axis=1), axis=0)).max() < 1
    assert len(pixels) == 9


def test_the_order_of_the_test_examples_changes_nothing():
  order = np.random.default_rng(1).permutation(400)
  assert analyze(subject_of(order=order))[1] == pytest.approx(analyze(subject_of())[1], abs=1e-6)


def test_factors_go_with_those_training_examples_that_speak_for_all(monkeypatch):
  monkeypatch.setattr(context, "MOST_TRAINING", 300)
  assert analyze(subject_of())[1]["dci_informativeness/code"] > 0.95


def test_a_code_of_one_unit_has_no_gaps():
  found, numbers = analyze(subject_of(latent=1))
  assert "this code has one" in found["gaps"]
  assert not {f"{name}/code" for name in BETWEEN_UNITS} & set(numbers)
  assert numbers["dci_informativeness_by_factor/kind"] > 0.99


def test_a_code_that_never_varies_tells_nothing():
  found, numbers = analyze(subject_of(stretch=0.0))
  scored = {name: value for name, value in numbers.items() if name.endswith("/code")}
  assert scored.pop("factorvae/code") == numbers["factorvae/chance"]
  assert scored == dict.fromkeys(scored, 0.0)
  assert not {"factor_information", "factors_moved"} & set(found)


@pytest.mark.parametrize(("stretch", "units"), [(1.0, 5), (0.09, 0)])
def test_units_of_a_posterior_count_where_they_are_active(stretch, units):
  made = subject_of(stretch=stretch, bottleneck="gaussian")
  assert disentanglement.used(made, made.test_codes).sum() == units
  plain = subject_of(stretch=stretch)
  assert disentanglement.used(plain, plain.test_codes).sum() == 5


def test_where_training_was_on_one_class_so_is_the_study():
  found, numbers = analyze(subject_of(one_class=1))
  assert "never varies: kind" in found["constant"]
  assert "mig_by_factor/kind" not in numbers
  assert numbers["factorvae/code"] == 1.0
  assert numbers["factorvae/chance"] == 1 / 2


def test_the_pictures_show_the_test_examples_of_the_class_that_was_trained_on():
  made = subject_of(one_class=1)
  kept = made.dataset.test_factors[:, 0] == 1
  told = disentanglement.information(made.test_codes[kept].astype(float), made.dataset.test_factors[kept][:, 1:])
  np.testing.assert_allclose(np.sort(analyze(made)[0]["factor_information"].values), np.sort(told[told.any(1)].T))


def test_a_factor_that_varies_in_one_half_alone_is_left_out():
  kind = subject_of().dataset.test_factors[:, 0]
  found, numbers = analyze(subject_of(order=np.flatnonzero(kind == 2)))
  assert "never varies: kind" in found["constant"]
  assert numbers["factorvae/chance"] == 1 / 2


def test_the_code_is_compared_with_principal_components_of_the_training_examples():
  from sklearn.decomposition import PCA

  made = subject_of(latent=2)
  codes = disentanglement._codes(made, np.arange(400))
  pca = PCA(2, svd_solver="full").fit(made.train.reshape(-1, 6))
  for mine, points in zip(codes["pca"][1:], (made.train, made.test), strict=True):
    np.testing.assert_allclose(np.abs(mine), np.abs(pca.transform(points.reshape(-1, 6))), atol=1e-4)
  for mine, wanted in zip(codes["code"][1:], (made.train_codes, made.test_codes), strict=True):
    np.testing.assert_array_equal(mine, wanted)


def test_a_unit_that_varies_by_rounding_alone_does_not_vary():
  codes = 5 + noise(100, 3) * [1e-8, 1e-4, 1.0]
  assert disentanglement.varying(codes).tolist() == [False, True, True]


def test_the_settings_are_those_of_the_published_protocols():
  assert (disentanglement.BINS, disentanglement._C) == (20, 0.01)  # Locatello et al. (2019)
  votes = disentanglement._votes(1.0 * drawn(500), drawn(500), np.random.default_rng(0))
  assert votes.sum(0).tolist() == [disentanglement.GROUPS] * 3 == [200] * 3
  assert disentanglement.GROUP == 64


def test_one_test_example_is_said_and_not_studied():
  found, numbers = analyze(subject_of(order=slice(1)))
  assert "fewer than two factors vary" in found["remark"]
  assert not numbers


def test_it_needs_known_factors():
  disentanglement.EVALUATOR.check(None, subject_of().dataset)
  images = np.zeros((2, 3, 2, 1), np.uint8)
  with pytest.raises(errors.UserError, match=r"'disentanglement' needs .*config\.data\.name=factors"):
    disentanglement.EVALUATOR.check(None, data.Dataset("digits", "unit", images, images, None, None))
