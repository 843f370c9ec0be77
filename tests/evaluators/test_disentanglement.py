"""The analysis of a model whose latent code holds the factors, some of them or none."""

import jax
import numpy as np
import pytest
from conftest import config_of
from made_factors import BETWEEN_UNITS, VALUES, draw_factors, noise, standardised

from ae_jax import api, data, errors, models
from ae_jax.decisions import run_data
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import disentanglement, factor_scores, figures

pytestmark = pytest.mark.quick_compile


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
  monkeypatch.setattr(factor_scores, "_TREES", 8)


def context_of(one_class=None, order=slice(None), latent=5, stretch=1.0, **options):
  """Returns a context whose images of 3 x 2 are factors and noise, and whose latent code is their first pixels."""
  config = config_of("dense", "digits")
  config.data.range = "real"
  config.model.update({"latent": latent, "widths": (), **options})

  def split(count):
    factors = draw_factors(count, count)
    pixels = np.concatenate([standardised(factors), noise(count, 3, count)], 1)
    return pixels.reshape(-1, 3, 2, 1).astype(np.float32), factors

  (train, train_factors), (test, factors) = split(600), split(400)
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
  information = factor_scores.information(context.test_codes.astype(float), context.dataset.test_factors)
  np.testing.assert_allclose(np.sort(heatmap.values), np.sort(information.T), rtol=1e-9)
  assert (np.diff(heatmap.values.argmax(0)) >= 0).all()  # units are grouped by factor


def test_a_traversal_moves_only_the_most_informative_unit():
  context = context_of()
  traversals = analyze(context)[0]["factors_moved"]
  nats = factor_scores.information(context.test_codes.astype(float), context.dataset.test_factors)
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
  monkeypatch.setattr(run_data, "MOST_TRAINING", 300)
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
  nats = factor_scores.information(context.test_codes[kept].astype(float), context.dataset.test_factors[kept][:, 1:])
  np.testing.assert_allclose(np.sort(analyze(context)[0]["factor_information"].values), np.sort(nats[nats.any(1)].T))


def test_a_factor_that_is_constant_in_one_split_is_omitted():
  kind = context_of().dataset.test_factors[:, 0]
  results, numbers = analyze(context_of(order=np.flatnonzero(kind == 2)))
  assert "factors with a single value are omitted: kind" in results["constant"]
  assert numbers["factorvae/chance"] == 1 / 2


def test_the_baseline_is_pca_of_the_training_examples():
  from sklearn.decomposition import PCA

  context = context_of(latent=2)
  codes = disentanglement._codes(context, np.arange(400))
  pca = PCA(2, svd_solver="full").fit(context.train.reshape(-1, 6).astype(np.float64))
  for actual, points in zip(codes["pca"][1:], (context.train, context.test), strict=True):
    # rounding of float32 is divided by the gap between the second and the third eigenvalue, which is 0.01
    np.testing.assert_allclose(np.abs(actual), np.abs(pca.transform(points.reshape(-1, 6))), atol=3e-4)
  for actual, expected in zip(codes["code"][1:], (context.train_codes, context.test_codes), strict=True):
    np.testing.assert_array_equal(actual, expected)


def test_one_test_example_gives_a_remark():
  results, numbers = analyze(context_of(order=slice(1)))
  assert "fewer than two factors vary" in results["remark"]
  assert not numbers


def test_factors_are_required():
  disentanglement.EVALUATOR.check(None, context_of().dataset)
  images = np.zeros((2, 3, 2, 1), np.uint8)
  with pytest.raises(errors.UserError, match=r"'disentanglement' needs .*config\.data\.name='factors'"):
    disentanglement.EVALUATOR.check(None, data.Dataset("digits", "unit", images, images, None, None))
