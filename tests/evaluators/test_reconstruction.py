import dataclasses
import math
import os
import pathlib

import jax
import jax.numpy as jnp
import made_contexts
import numpy as np
import pytest
from sklearn.decomposition import PCA

from ae_jax import data, evaluators, models
from ae_jax.data import ranges
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import figures, reconstruction
from ae_jax.ops import losses

pytestmark = pytest.mark.quick_compile

CODE = models.CodeSpec((2,))
MNIST = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "nowhere")) / "mnist" / "3.0.1"


def dataset_of(train, test, value_range="unit"):
  return data.Dataset("made", value_range, train, test, None, None)


@pytest.mark.skipif(not MNIST.exists(), reason="MNIST is not prepared in TFDS_DATA_DIR")
@pytest.mark.parametrize(("latent", "error"), [(2, 43.645), (32, 13.193), (128, 3.297)])
def test_the_baselines_on_mnist_are_the_published_ones(latent, error):
  baselines = dict(reconstruction.baselines(data.load("mnist", "", "unit"), models.CodeSpec((latent,))))
  assert abs(baselines["test/pca_squared_error"] - error) < 6e-4
  assert abs(baselines["test/nats_floor"] - 45.534) < 6e-4


@pytest.mark.parametrize("value_range", ["unit", "symmetric", "real"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_the_mean_predictor_has_the_variance_around_the_training_mean(kind, value_range):
  train, test = (np.random.default_rng(n).integers(0, 2, (n, 3, 4, 1)).astype(kind) for n in (30, 7))
  dataset = dataset_of(train, test, value_range)
  x, y = (ranges.normalise(split, value_range).astype(np.float64) for split in (train, test))
  expected = np.square(y - x.mean(0)).sum((1, 2, 3)).mean()
  baselines = dict(reconstruction.baselines(dataset, CODE))
  assert baselines["test/mean_predictor_squared_error"] == pytest.approx(expected, rel=1e-6)
  assert baselines["test/mean_predictor_squared_error"] > baselines["test/pca_squared_error"]


@pytest.mark.parametrize("value", [0, 1, 128, 255, 0.1, 1 / 3])
def test_the_mean_predictor_is_exact_on_constant_data(value):
  images = np.full((77, 3, 3, 1), value, np.uint8 if isinstance(value, int) else np.float32)
  assert reconstruction.mean_predictor_squared_errors(dataset_of(images, images[:5])).max() == 0.0


def test_the_mean_predictor_is_fitted_to_training_examples_only():
  zeros, ones = np.zeros((4, 2, 2, 1), np.float32), np.ones((4, 2, 2, 1), np.float32)
  assert reconstruction.mean_predictor_squared_errors(dataset_of(zeros, ones)).tolist() == [4.0] * 4


def test_a_remark_replaces_the_ratio_to_a_pca_error_of_zero():
  images = np.full((4, 5, 5, 1), 255, np.uint8)
  results = analyzed(halved, data.Dataset("made", "unit", images, images[:2], None, np.zeros(2, int)))
  assert results["pca_squared_error"] == 0.0
  assert "the error of PCA is 0" in results["squared_error_over_pca"]


def test_metrics_are_means_over_examples_and_pixels():
  images = np.zeros((4, 2, 3, 1), np.float32)
  values = {"squared_error": np.float32([1.5, 0.9, 0, 0]), "nats": np.float32([2, 2, 0, 0])}
  metrics = dict(reconstruction.metrics(values, dataset_of(images, images)))
  expected = {"test/squared_error": 0.6, "test/mse": 0.1, "test/psnr": 10.0, "test/nats": 1.0}
  assert metrics == pytest.approx(expected)


@pytest.mark.parametrize(("value_range", "decibels"), [("unit", 20.0), ("symmetric", 20.0 + 20 * np.log10(2))])
def test_psnr_is_relative_to_the_width_of_the_range(value_range, decibels):
  images = np.zeros((1, 1, 1, 1), np.uint8)
  assert reconstruction.psnr(0.01, dataset_of(images, images, value_range).peak) == pytest.approx(decibels)
  assert reconstruction.psnr(0.0, 1.0) == np.inf


@pytest.mark.parametrize(
  ("value_range", "dtype", "defined"),
  [("real", np.float32, False), ("real", np.uint8, True), ("unit", np.float32, True)],
)
def test_psnr_needs_a_fixed_range(value_range, dtype, defined):
  images = np.zeros((2, 2, 3, 1), dtype)
  dataset = dataset_of(images, images, value_range)
  found = dict(reconstruction.metrics({"squared_error": np.ones(2)}, dataset))
  assert ("test/psnr" in found) == defined
  assert found["test/mse"] == pytest.approx(1 / 6)


def test_anomalies_do_not_count_in_metrics_and_baselines():
  images = np.random.default_rng(0).uniform(size=(8, 3, 3, 1)).astype(np.float32)
  labels = np.array([0, 1, 0, 1])
  dataset = data.Dataset("made", "unit", images[:4], images[4:], np.zeros(4, int), labels, 0)
  same = data.Dataset("made", "unit", images[:4], images[4:][labels == 0], None, None)
  values = {"squared_error": np.arange(4.0), "nats": np.arange(4.0)}
  assert dict(reconstruction.metrics(values, dataset))["test/squared_error"] == 1.0  # of 0 and 2
  assert dict(reconstruction.baselines(dataset, CODE)) == pytest.approx(dict(reconstruction.baselines(same, CODE)))


@pytest.mark.parametrize(
  ("mse", "expected"), [(0.0, np.inf), (np.inf, -np.inf), (np.nan, np.nan), (0.01, 20.0), (3e38, -384.8)]
)
def test_psnr_is_defined_for_errors_that_are_not_finite(mse, expected):
  np.testing.assert_allclose(reconstruction.psnr(mse, 1.0), expected, atol=0.1)


def run_of(logits, value_range="unit", latent=2, attention=True):
  """Returns a run whose logits are a function of the examples."""
  model = made_contexts.fake_model(latent, reconstruct=lambda variables, x, given: logits(x))
  apply = lambda method, x, given: np.asarray(losses.OUTPUT_ACTIVATIONS[value_range](logits(x)))
  weights = lambda x, given: {"layer": np.ones((len(x), 1, 1, 4), np.float32)} if attention else {}
  return made_contexts.fake_run(model, apply, attention_of=weights)


def perfect(x):
  inside = jnp.clip(x, 1e-7, 1 - 1e-7)
  return jnp.log(inside) - jnp.log1p(-inside)


def halved(x):
  return perfect(0.5 * x)


@pytest.mark.parametrize(
  ("logits", "ratio", "saturated"),
  [
    (perfect, 1.0, 0.0),
    (halved, 0.25, 0.0),
    (lambda x: 0.0 * x, 0.0, 0.0),
    (lambda x: 0.0 * x + 20.0, 0.0, 0.9),
    (lambda x: 20.0 * jnp.sign(x - 0.5), 3.0, 0.8),
  ],
)
def test_equal_and_saturated_outputs_are_measured(logits, ratio, saturated):
  images = np.random.default_rng(0).uniform(size=(400, 5, 5, 1)).astype(np.float32)
  results = dict(analyzed(logits, dataset_of(images, images)))
  assert results["variance_ratio"] == pytest.approx(ratio, abs=0.03)
  assert results["saturated"] == pytest.approx(saturated, abs=0.01)


def analyzed(logits, dataset, **options):
  """Returns the results of the analysis, by name."""
  run = run_of(logits, dataset.value_range, **options)
  return dict(reconstruction.analyze(contexts.EvalContext(run, dataset)))


def random_dataset(shape=(13, 12, 1), labels=(0, 1, 2, 1, 0, 2, 2, 5, 5), value_range="unit", one_class=None):
  train, test = (np.random.default_rng(n).integers(0, 256, (n, *shape), np.uint8) for n in (20, len(labels)))
  return data.Dataset("made", value_range, train, test, np.zeros(20, int), np.asarray(labels), one_class)


def test_a_perfect_reconstruction_has_no_error():
  images = np.random.default_rng(0).uniform(size=(30, 12, 14, 3)).astype(np.float32)
  dataset = data.Dataset("made", "real", images[:20], images[20:], None, None)
  results = analyzed(lambda x: x, dataset)
  assert [results[name] for name in ("squared_error", "mse", "squared_error_over_pca")] == [0, 0, 0]
  assert "psnr" not in results  # the values have no fixed range
  assert results["ssim"] == pytest.approx(1, abs=1e-6)
  assert not results["error_map"].values.any()


def test_the_mean_predictor_has_the_error_of_pca_without_components():
  """It is the variance of the test images around the training mean: the sum of squares of all components."""
  dataset = random_dataset(shape=(4, 5, 1))
  train, test = (ranges.normalise(split, "unit") for split in (dataset.train, dataset.test))
  results = analyzed(lambda x: jnp.broadcast_to(perfect(train.mean(0)), x.shape), dataset)
  components = PCA().fit(train.reshape(20, -1))
  expected = np.square(components.transform(test.reshape(len(test), -1))).sum(1).mean()
  assert results["squared_error"] == pytest.approx(expected, rel=1e-5)
  assert results["squared_error_over_pca"] == pytest.approx(expected / results["pca_squared_error"], rel=1e-5)


def test_bits_per_dimension_match_nats_and_a_perfect_reconstruction_reaches_the_floor():
  results = analyzed(perfect, random_dataset(shape=(3, 4, 1)))
  assert results["bits_per_dimension"] == pytest.approx(results["nats"] / (3 * 4) / math.log(2))
  assert results["bits_per_dimension"] == pytest.approx(results["bits_per_dimension_floor"], rel=1e-5)
  grey = data.Dataset("made", "unit", *np.full((2, 3, 4, 4, 1), 0.5, np.float32), None, None)
  assert analyzed(perfect, grey)["bits_per_dimension_floor"] == pytest.approx(1)  # a fair coin per pixel


def test_the_analysis_agrees_with_the_metrics_and_the_baselines():
  dataset = random_dataset(shape=(3, 4, 1))
  context = contexts.EvalContext(run_of(halved), dataset)
  model, variables, batch = context.run.model, context.run.variables, {"x": jnp.asarray(context.test)}
  keys = jax.random.split(jax.random.key(0), len(context.test))
  values = reconstruction.per_example(model, variables, batch, keys, "unit", dataset.span)
  metrics = dict(reconstruction.metrics({name: np.asarray(rows) for name, rows in values.items()}, dataset))
  results = dict(reconstruction.analyze(context))
  for name, value in {**metrics, **dict(reconstruction.baselines(dataset, CODE))}.items():
    assert results[name.removeprefix("test/")] == pytest.approx(value, rel=1e-6)


def test_the_errors_by_class_average_to_the_total_error():
  results, labels = analyzed(halved, random_dataset(shape=(3, 4, 1))), np.array([0, 1, 2, 1, 0, 2, 2, 5, 5])
  by_class = {label: results[f"squared_error/class_{label}"] for label in (0, 1, 2, 5)}
  assert np.mean([by_class[label] for label in labels]) == pytest.approx(results["squared_error"])
  assert results["squared_error_by_class"].names == ("0", "1", "2", "5")
  assert results["squared_error_by_class"].values.tolist() == list(by_class.values())


def test_the_error_map_sums_to_the_error_and_worst_and_best_are_ordered():
  dataset = random_dataset(shape=(5, 6, 3), labels=range(40))
  results = analyzed(halved, dataset)
  assert results["error_map"].values.shape == (5, 6)
  assert results["error_map"].values.sum() == pytest.approx(results["squared_error"])
  errors_of = lambda rows: np.square(rows["reconstructions"] - rows["test images"]).sum((1, 2, 3))
  worst, best, spaced = (errors_of(results[name].rows) for name in ("worst", "best", "reconstructions"))
  assert (np.diff(worst) <= 0).all()
  assert (np.diff(best) >= 0).all()
  assert best[0] <= spaced.min() <= spaced.max() <= worst[0]
  assert len(worst) == len(best) == len(spaced) == 16


@pytest.mark.parametrize("batch", [1, 4])
def test_results_do_not_depend_on_the_batch_size(monkeypatch, batch):
  expected = analyzed(halved, random_dataset())
  monkeypatch.setattr(contexts, "_BATCH", batch)
  results = analyzed(halved, random_dataset())
  numbers = {name: value for name, value in expected.items() if isinstance(value, float)}
  assert len(numbers) > 10
  assert {name: results[name] for name in numbers} == pytest.approx(numbers, rel=1e-6)


@pytest.mark.parametrize("value_range", ["unit", "symmetric", "real"])
def test_ssim_does_not_depend_on_the_range_of_the_data(value_range):
  """The reconstruction is the image upside down."""
  dataset, floats = random_dataset(value_range=value_range), random_dataset().test.astype(np.float32) / np.float32(255)
  logits = {"unit": perfect, "symmetric": lambda x: jnp.arctanh(0.999999 * x), "real": lambda x: x}[value_range]
  expected = np.asarray(losses.structural_similarity(floats[:, ::-1], floats, 1.0)).mean()
  assert analyzed(lambda x: logits(x[:, ::-1]), dataset)["ssim"] == pytest.approx(expected, abs=1e-4)


def test_anomalies_do_not_count_in_the_analysis():
  dataset = random_dataset(shape=(11, 11, 1), labels=(0, 1, 0, 2, 0), one_class=0)
  normal = data.Dataset("made", "unit", dataset.train, dataset.test[[0, 2, 4]], None, np.zeros(3, int))
  results, expected = analyzed(halved, dataset), analyzed(halved, normal)
  for name, value in expected.items():
    if isinstance(value, float):
      assert results[name] == pytest.approx(value, rel=1e-6)
    elif isinstance(value, figures.ExampleRows):
      np.testing.assert_array_equal(results[name].rows["test images"], value.rows["test images"])
  np.testing.assert_allclose(results["error_map"].values, expected["error_map"].values)


def test_undefined_results_are_replaced_by_remarks():
  series = np.random.default_rng(0).normal(size=(9, 20, 2)).astype(np.float32)
  results = analyzed(lambda x: 0.5 * x, data.Dataset("made", "real", series, series, None, None))
  assert "ssim" not in results
  assert results["by_class"].endswith("has no labels")
  fractions = np.arange(9) / 2
  results = analyzed(lambda x: 0.5 * x, data.Dataset("made", "real", series, series, fractions, fractions))
  assert results["by_class"].endswith("has no integer labels")
  assert [*results["worst"].rows] == ["series", "reconstructions"]
  assert results["error_map"].values.shape == (20,)
  small = analyzed(halved, random_dataset(shape=(10, 30, 1)))
  assert "10 x 30" in small["ssim"]
  many = analyzed(halved, random_dataset(shape=(3, 3, 1), labels=range(101)))
  assert "101 classes" in many["by_class"]
  assert "squared_error/class_0" not in many


def test_constant_images_and_a_single_test_image_have_finite_results():
  images = np.full((4, 12, 12, 1), 128, np.uint8)
  results = analyzed(halved, data.Dataset("made", "unit", images, images[:1], None, np.zeros(1, int)))
  assert all(np.isfinite(value) for value in results.values() if isinstance(value, float))
  assert results["ssim"] < 1
  assert len(results["worst"].rows["reconstructions"]) == 1


@pytest.mark.parametrize(("count", "worst", "best"), [(1, 1, 0), (2, 1, 1), (5, 3, 2), (16, 8, 8), (40, 16, 16)])
def test_no_example_is_in_the_figures_of_the_largest_and_of_the_smallest_errors(count, worst, best):
  results = analyzed(halved, random_dataset(shape=(3, 4, 1), labels=range(count)))
  shown = [results[name].rows["test images"] for name in ("worst", "best") if name in results]
  assert [len(rows) for rows in shown] == [size for size in (worst, best) if size]
  assert len(np.unique(np.concatenate(shown), axis=0)) == worst + best


def test_attention_is_shown_for_models_with_attention():
  dataset = random_dataset(shape=(3, 4, 1))
  attention = analyzed(halved, dataset)["attention"]
  assert len(attention.examples) == len(attention.weights["layer"]) == 9
  columns = {"test": {"mask": np.arange(dataset.test.size).reshape(dataset.test.shape) % 3 > 0}}
  hatched = analyzed(halved, dataclasses.replace(dataset, columns=columns))["attention"]
  assert hatched.title == "Attention weights of the encoder; hatched: missing in the data"
  assert (hatched.examples != attention.examples).any()
  run = run_of(halved, attention=False)
  assert "attention" not in dict(reconstruction.analyze(contexts.EvalContext(run, dataset)))


@pytest.mark.parametrize(
  ("shape", "drawn"), [((5,), (5, 1)), ((7, 2), (7, 2)), ((4, 4, 1), (4, 4, 1)), ((3, 4, 4, 1), (4, 4, 1))]
)
def test_examples_of_every_kind_are_drawn_as_images_or_series(shape, drawn):
  examples = made_contexts.images(12, shape=shape)
  context = made_contexts.context_of(examples[:8], examples[8:], value_range="real")
  results = dict(evaluators.analyses((reconstruction.EVALUATOR,), context))
  item = results["reconstruction/reconstructions"]
  assert all(rows.shape[1:] == drawn for rows in item.rows.values())
  assert figures.shape_error(item) is None
  if len(shape) == 1:
    by_column = [results[f"reconstruction/squared_error/column_{column}"] for column in range(5)]
    np.testing.assert_allclose(sum(by_column), results["reconstruction/squared_error"], rtol=1e-5)
  else:
    total = results["reconstruction/error_map"].values.sum() * (shape[0] if len(shape) == 4 else 1)
    np.testing.assert_allclose(total, results["reconstruction/squared_error"], rtol=1e-5)


def test_a_single_class_has_no_figure_of_errors_by_class():
  dataset = random_dataset(shape=(3, 4, 1))
  single = dataclasses.replace(dataset, test_labels=np.zeros(len(dataset.test), int))
  results = analyzed(halved, single)
  assert results["squared_error/class_0"] == pytest.approx(results["squared_error"])
  assert "squared_error_by_class" not in results
