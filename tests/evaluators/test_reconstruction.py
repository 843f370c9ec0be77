import math
import os
import pathlib
import types

import jax.numpy as jnp
import made_contexts
import numpy as np
import pytest
from sklearn.decomposition import PCA

from ae_jax import data, models
from ae_jax.data import ranges
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import figures, reconstruction
from ae_jax.ops import losses

CODE = models.CodeSpec((2,))
MNIST = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "nowhere")) / "mnist" / "3.0.1"


def dataset_of(train, test, value_range="unit"):
  return data.Dataset("made", value_range, train, test, None, None)


@pytest.mark.skipif(not MNIST.exists(), reason="MNIST is not prepared for TFDS here: TFDS_DATA_DIR does not hold it")
@pytest.mark.parametrize(("latent", "error"), [(2, 43.645), (32, 13.193), (128, 3.297)])
def test_the_rulers_on_mnist_are_the_published_ones(latent, error):
  baselines = dict(reconstruction.baselines(data.load("mnist", "", "unit"), models.CodeSpec((latent,))))
  assert abs(baselines["test/pca_squared_error"] - error) < 6e-4
  assert abs(baselines["test/nats_floor"] - 45.534) < 6e-4


def test_data_of_low_rank_has_no_pca_error_at_that_rank_and_some_below():
  generator = np.random.default_rng(0)
  plane = (generator.uniform(size=(60, 3)) @ generator.uniform(size=(3, 20)) / 3).astype(np.float32)
  images = plane.reshape(60, 5, 4, 1)
  dataset = dataset_of(images[:40], images[40:])
  two, three = (reconstruction.pca_squared_errors(dataset, latent) for latent in (2, 3))
  assert three.max() < 1e-9 < two.mean()


@pytest.mark.parametrize("latent", [1, 12, 100])
def test_pca_takes_any_size_even_larger_than_the_data(latent):
  images = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 1), np.uint8)
  errors = reconstruction.pca_squared_errors(dataset_of(images[:4], images[4:]), latent)
  assert np.isfinite(errors).all()


def test_the_directions_that_the_data_does_not_have_do_not_count():
  """Two images span one direction around their mean; a second component would point anywhere."""
  images = np.random.default_rng(0).uniform(size=(5, 3, 3, 1)).astype(np.float32)
  dataset = dataset_of(images[:2], images[2:])
  one, many = (reconstruction.pca_squared_errors(dataset, latent) for latent in (1, 9))
  np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("value_range", ["unit", "symmetric", "real"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_the_mean_predictor_has_the_variance_around_the_training_mean(kind, value_range):
  train, test = (np.random.default_rng(n).integers(0, 2, (n, 3, 4, 1)).astype(kind) for n in (30, 7))
  dataset = dataset_of(train, test, value_range)
  x, y = (ranges.normalise(half, value_range).astype(np.float64) for half in (train, test))
  wanted = np.square(y - x.mean(0)).sum((1, 2, 3)).mean()
  baselines = dict(reconstruction.baselines(dataset, CODE))
  assert baselines["test/mean_predictor_squared_error"] == pytest.approx(wanted, rel=1e-6)
  assert baselines["test/mean_predictor_squared_error"] > baselines["test/pca_squared_error"]


@pytest.mark.parametrize("value", [0, 1, 128, 255, 0.1, 1 / 3])
def test_the_mean_predictor_is_exact_on_constant_data(value):
  images = np.full((77, 3, 3, 1), value, np.uint8 if isinstance(value, int) else np.float32)
  assert reconstruction.mean_predictor_squared_errors(dataset_of(images, images[:5])).max() == 0.0


def test_the_mean_predictor_is_fitted_on_training_examples_alone():
  zeros, ones = np.zeros((4, 2, 2, 1), np.float32), np.ones((4, 2, 2, 1), np.float32)
  assert reconstruction.mean_predictor_squared_errors(dataset_of(zeros, ones)).tolist() == [4.0] * 4


def test_where_pca_has_no_error_there_is_a_sentence_instead_of_a_ratio():
  images = np.full((4, 5, 5, 1), 255, np.uint8)
  found = analyzed(halved, data.Dataset("made", "unit", images, images[:2], None, np.zeros(2, int)))
  assert found["pca_squared_error"] == 0.0
  assert "PCA's error is 0" in found["squared_error_over_pca"]


def test_means_are_over_examples_and_pixels():
  images = np.zeros((4, 2, 3, 1), np.float32)
  values = {"squared_error": np.float32([1.5, 0.9, 0, 0]), "nats": np.float32([2, 2, 0, 0])}
  metrics = dict(reconstruction.metrics(values, dataset_of(images, images)))
  wanted = {"test/squared_error": 0.6, "test/mse": 0.1, "test/psnr": 10.0, "test/nats": 1.0}
  assert metrics == pytest.approx(wanted)


@pytest.mark.parametrize(("value_range", "decibels"), [("unit", 20.0), ("symmetric", 20.0 + 20 * np.log10(2))])
def test_psnr_is_relative_to_the_width_of_the_range(value_range, decibels):
  images = np.zeros((1, 1, 1, 1), np.uint8)
  assert reconstruction.psnr(0.01, dataset_of(images, images, value_range).peak) == pytest.approx(decibels)
  assert reconstruction.psnr(0.0, 1.0) == np.inf


def test_of_one_class_only_its_test_examples_count():
  images = np.random.default_rng(0).uniform(size=(8, 3, 3, 1)).astype(np.float32)
  labels = np.array([0, 1, 0, 1])
  dataset = data.Dataset("made", "unit", images[:4], images[4:], np.zeros(4, int), labels, 0)
  same = data.Dataset("made", "unit", images[:4], images[4:][labels == 0], None, None)
  values = {"squared_error": np.arange(4.0), "nats": np.arange(4.0)}
  assert dict(reconstruction.metrics(values, dataset))["test/squared_error"] == 1.0  # of 0 and 2
  assert dict(reconstruction.baselines(dataset, CODE)) == pytest.approx(dict(reconstruction.baselines(same, CODE)))


@pytest.mark.parametrize(
  ("mse", "wanted"), [(0.0, np.inf), (np.inf, -np.inf), (np.nan, np.nan), (0.01, 20.0), (3e38, -384.8)]
)
def test_psnr_is_a_number_whatever_came_of_the_training(mse, wanted):
  np.testing.assert_allclose(reconstruction.psnr(mse, 1.0), wanted, atol=0.1)


class Made:
  """A run whose logits are a function of the examples."""

  def __init__(self, logits, value_range="unit", latent=2):
    self.config, self.variables = types.SimpleNamespace(seed=0), models.Variables({})
    self.model = made_contexts.fake_model(latent, reconstruct=lambda variables, x, given: logits(x))
    self.activation = losses.OUTPUT_ACTIVATIONS[value_range]

  def apply(self, method, x, given):
    return np.asarray(self.activation(self.model.reconstruct(self.variables, x, given)))

  def attention_of(self, x, given):
    return {"layer": np.ones((len(x), 1, 1, 4), np.float32)}


def perfect(x):
  inside = jnp.clip(x, 1e-7, 1 - 1e-7)
  return jnp.log(inside) - jnp.log1p(-inside)


def halved(x):
  return perfect(0.5 * x)


def analyzed(logits, dataset, **options):
  """What the analyze finds, by name."""
  run = Made(logits, dataset.value_range, **options)
  return dict(reconstruction.analyze(contexts.EvalContext(run, dataset)))


def made(shape=(13, 12, 1), labels=(0, 1, 2, 1, 0, 2, 2, 5, 5), value_range="unit", one_class=None):
  train, test = (np.random.default_rng(n).integers(0, 256, (n, *shape), np.uint8) for n in (20, len(labels)))
  return data.Dataset("made", value_range, train, test, np.zeros(20, int), np.asarray(labels), one_class)


def test_a_perfect_reconstruction_is_told_as_such():
  images = np.random.default_rng(0).uniform(size=(30, 12, 14, 3)).astype(np.float32)
  dataset = data.Dataset("made", "real", images[:20], images[20:], None, None)
  found = analyzed(lambda x: x, dataset)
  assert (found["squared_error"], found["mse"], found["psnr"], found["squared_error_over_pca"]) == (0, 0, math.inf, 0)
  assert found["ssim"] == pytest.approx(1, abs=1e-6)
  assert not found["error_map"].values.any()


def test_the_mean_predictor_has_the_error_of_pca_without_components():
  """The variance of the test images around the mean of the training images: the squares of all PCA's directions."""
  dataset = made(shape=(4, 5, 1))
  train, test = (ranges.normalise(half, "unit") for half in (dataset.train, dataset.test))
  found = analyzed(lambda x: jnp.broadcast_to(perfect(train.mean(0)), x.shape), dataset)
  components = PCA().fit(train.reshape(20, -1))
  wanted = np.square(components.transform(test.reshape(len(test), -1))).sum(1).mean()
  assert found["squared_error"] == pytest.approx(wanted, rel=1e-5)
  assert found["squared_error_over_pca"] == pytest.approx(wanted / found["pca_squared_error"], rel=1e-5)


def test_bits_are_nats_per_number_and_the_perfect_reconstruction_reaches_their_floor():
  found = analyzed(perfect, made(shape=(3, 4, 1)))
  assert found["bits_per_dimension"] == pytest.approx(found["nats"] / (3 * 4) / math.log(2))
  assert found["bits_per_dimension"] == pytest.approx(found["bits_per_dimension_floor"], rel=1e-5)
  grey = data.Dataset("made", "unit", *np.full((2, 3, 4, 4, 1), 0.5, np.float32), None, None)
  assert analyzed(perfect, grey)["bits_per_dimension_floor"] == pytest.approx(1)  # a fair coin per pixel


def test_the_study_says_the_same_as_the_metrics_and_the_rulers():
  dataset = made(shape=(3, 4, 1))
  context = contexts.EvalContext(Made(halved), dataset)
  values = reconstruction.per_example(context.run.model, None, {"x": jnp.asarray(context.test)}, None, "unit", None)
  told = dict(reconstruction.metrics({name: np.asarray(rows) for name, rows in values.items()}, dataset))
  found = dict(reconstruction.analyze(context))
  for name, value in {**told, **dict(reconstruction.baselines(dataset, CODE))}.items():
    assert found[name.removeprefix("test/")] == pytest.approx(value, rel=1e-6)


def test_the_errors_of_the_classes_average_to_that_of_all():
  found, labels = analyzed(halved, made(shape=(3, 4, 1))), np.array([0, 1, 2, 1, 0, 2, 2, 5, 5])
  by_class = {label: found[f"squared_error/class_{label}"] for label in (0, 1, 2, 5)}
  assert np.mean([by_class[label] for label in labels]) == pytest.approx(found["squared_error"])
  assert found["squared_error_by_class"].names == ("0", "1", "2", "5")
  assert found["squared_error_by_class"].values.tolist() == list(by_class.values())


def test_the_map_of_errors_sums_to_the_error_and_the_worst_come_first():
  dataset = made(shape=(5, 6, 3), labels=range(40))
  found = analyzed(halved, dataset)
  assert found["error_map"].values.shape == (5, 6)
  assert found["error_map"].values.sum() == pytest.approx(found["squared_error"])
  errors_of = lambda rows: np.square(rows["reconstructions"] - rows["test images"]).sum((1, 2, 3))
  worst, best, some = (errors_of(found[name].rows) for name in ("worst", "best", "reconstructions"))
  assert (np.diff(worst) <= 0).all()
  assert (np.diff(best) >= 0).all()
  assert best[0] <= some.min() <= some.max() <= worst[0]
  assert len(worst) == len(best) == len(some) == 16


@pytest.mark.parametrize("batch", [1, 4])
def test_the_study_is_the_same_for_any_batches(monkeypatch, batch):
  wanted = analyzed(halved, made())
  monkeypatch.setattr(contexts, "_BATCH", batch)
  found = analyzed(halved, made())
  numbers = {name: value for name, value in wanted.items() if isinstance(value, float)}
  assert len(numbers) > 10
  assert {name: found[name] for name in numbers} == pytest.approx(numbers, rel=1e-6)


@pytest.mark.parametrize("value_range", ["unit", "symmetric", "real"])
def test_ssim_is_of_the_pictures_whatever_range_the_model_sees_them_in(value_range):
  """The reconstruction is the image, turned upside down."""
  dataset, floats = made(value_range=value_range), made().test.astype(np.float32) / np.float32(255)
  logits = {"unit": perfect, "symmetric": lambda x: jnp.arctanh(0.999999 * x), "real": lambda x: x}[value_range]
  wanted = np.asarray(losses.structural_similarity(floats[:, ::-1], floats, 1.0)).mean()
  assert analyzed(lambda x: logits(x[:, ::-1]), dataset)["ssim"] == pytest.approx(wanted, abs=1e-4)


def test_of_one_class_the_study_is_of_its_test_examples_alone():
  dataset = made(shape=(11, 11, 1), labels=(0, 1, 0, 2, 0), one_class=0)
  alone = data.Dataset("made", "unit", dataset.train, dataset.test[[0, 2, 4]], None, np.zeros(3, int))
  found, wanted = analyzed(halved, dataset), analyzed(halved, alone)
  for name, value in wanted.items():
    if isinstance(value, float):
      assert found[name] == pytest.approx(value, rel=1e-6)
    elif isinstance(value, figures.ExampleRows):
      np.testing.assert_array_equal(found[name].rows["test images"], value.rows["test images"])
  np.testing.assert_allclose(found["error_map"].values, wanted["error_map"].values)


def test_what_cannot_be_measured_is_said():
  series = np.random.default_rng(0).normal(size=(9, 20, 2)).astype(np.float32)
  found = analyzed(lambda x: 0.5 * x, data.Dataset("made", "real", series, series, None, None))
  assert "series" in found["ssim"]
  assert "no integer labels" in found["by_class"]
  assert [*found["worst"].rows] == ["series", "reconstructions"]
  assert found["error_map"].values.shape == (20,)
  small = analyzed(halved, made(shape=(10, 30, 1)))
  assert "10 x 30" in small["ssim"]
  many = analyzed(halved, made(shape=(3, 3, 1), labels=range(101)))
  assert "101 classes" in many["by_class"]
  assert "squared_error/class_0" not in many


def test_constant_images_and_a_single_one_are_safe():
  images = np.full((4, 12, 12, 1), 128, np.uint8)
  found = analyzed(halved, data.Dataset("made", "unit", images, images[:1], None, np.zeros(1, int)))
  assert all(np.isfinite(value) for value in found.values() if isinstance(value, float))
  assert found["ssim"] < 1
  assert len(found["worst"].rows["reconstructions"]) == 1


def test_attention_is_shown_where_there_is_any():
  dataset = made(shape=(3, 4, 1))
  attention = analyzed(halved, dataset)["attention"]
  assert len(attention.examples) == len(attention.weights["layer"]) == 9
  run = Made(halved)
  run.attention_of = lambda x, given: {}
  assert "attention" not in dict(reconstruction.analyze(contexts.EvalContext(run, dataset)))


@pytest.mark.parametrize("bits", [1.0, 3.5, 11.6, 24.0, 500.0])
def test_quantised_pca_has_the_least_error_of_components_that_are_rounded_to_as_many_bits(bits):
  generator = np.random.default_rng(0)
  mix = generator.normal(size=(12, 12)) * np.geomspace(2, 0.05, 12)[:, None]
  train, test = (
    (generator.normal(size=(count, 12)) @ mix).reshape(-1, 3, 4, 1).astype(np.float32) for count in (300, 40)
  )
  found = reconstruction.quantised_pca_squared_errors(data.Dataset("made", "real", train, test, None, None), bits)
  fitted = PCA(min(12, int(bits))).fit(train.reshape(300, 12))
  errors = []
  for each in range(1, min(8, int(bits)) + 1):
    kept, of_each = int(bits // each), []
    codes = fitted.transform(train.reshape(300, 12))
    low, width = codes.min(0), np.ptp(codes, axis=0) / 2**each
    for half in (train, test):
      flat = half.reshape(len(half), 12)
      codes = fitted.transform(flat)
      rounded = low + (np.clip(np.floor((codes - low) / width), 0, 2**each - 1) + 0.5) * width
      rounded[:, kept:] = 0
      of_each.append(np.square(flat - fitted.inverse_transform(rounded)).sum(1))
    errors.append(of_each)
  wanted = min(errors, key=lambda pair: pair[0].mean())[1]
  np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
