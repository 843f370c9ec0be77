"""Methods of a trained run: forms of examples, errors, latents, and what a run shows of itself."""

import copy
import dataclasses
import types

import jax
import numpy as np
import pandas as pd
import pytest
from conftest import with_pictures

import ae_jax
from ae_jax import errors
from ae_jax.run_methods import latents

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (60, 4, 6, 1), np.uint8)
FRAME = pd.DataFrame({"height": RANDOM.normal(170, 9, 60), "age": RANDOM.integers(20, 60, 60).astype(float)})
SMALL = {"model": "dense", "latent": 2, "epochs": 1, "evaluators": (), "verbose": False}


def fit(x, labels=None, **options):
  with jax.numpy_rank_promotion("allow"):
    return ae_jax.fit(x, labels, **SMALL | options)


@pytest.fixture(scope="module")
def run():
  with with_pictures():
    return fit(IMAGES, model__widths=16)


@pytest.fixture(scope="module")
def table():
  return fit(FRAME, model__widths=16)


@pytest.fixture(scope="module")
def conditional():
  return fit(IMAGES, ["a", "b"] * 30, model="cvae", model__widths=16)


@pytest.mark.parametrize("method", ["encode", "reconstruct", "score", "error_map", "impute"])
def test_one_example_counts_as_a_batch_of_one(run, method):
  call = getattr(run, method)
  expected = call(IMAGES[:1])
  assert len(expected) == 1
  for one in (IMAGES[0], IMAGES[0, ..., 0], IMAGES[:1, ..., 0]):
    np.testing.assert_array_equal(call(one), expected)
  np.testing.assert_allclose(call(IMAGES)[:1], expected, atol=1e-5)


def test_one_row_and_one_code_count_as_a_batch_of_one(run, table):
  np.testing.assert_array_equal(run.decode(np.zeros(2)), run.decode(np.zeros((1, 2))))
  expected = table.encode(FRAME[:1])
  for row in (FRAME.iloc[0], FRAME.iloc[0].to_dict(), FRAME.iloc[0].tolist(), FRAME.to_numpy()[0]):
    np.testing.assert_allclose(table.encode(row), expected, rtol=1e-6)


def test_a_series_is_one_row_by_the_names_of_its_columns(table):
  row = FRAME.iloc[3][["age", "height"]]
  np.testing.assert_array_equal(table.encode(row), table.encode(FRAME.iloc[[3]]))
  pd.testing.assert_frame_equal(table.reconstruct(row), table.reconstruct(FRAME.iloc[[3]]))
  with pytest.raises(errors.UserError, match="no column 'height'"):
    table.encode(row.drop("height"))


def test_doubles_and_lists_are_taken(run):
  x = IMAGES / 255.0
  expected = run.encode(IMAGES)
  for given in (x, x.tolist(), jax.numpy.asarray(x, np.float32), np.asfortranarray(x)):
    np.testing.assert_allclose(run.encode(given), expected, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 255, 257])
def test_results_do_not_depend_on_the_number_of_examples(run, count):
  x = np.resize(IMAGES, (300, 4, 6, 1))
  np.testing.assert_allclose(run.encode(x[:count]), run.encode(x)[:count], atol=1e-6)


@pytest.mark.parametrize(
  ("x", "message"),
  [
    (IMAGES.astype(np.float64), "outside the range 'unit'"),
    (np.zeros((3, 1, 4, 6)), r"numpy\.moveaxis\(x, 1, -1\)"),
    (np.zeros((3, 5, 6)), r"the shape must be \[N, 4, 6, 1\]"),
    ([["a"]], "pass an array of numbers"),
    ([[1], [1, 2]], "x: cannot be read as an array"),
  ],
)
def test_other_examples_are_refused_in_one_sentence(run, x, message):
  with pytest.raises(ValueError, match=message):
    run.encode(x)


def test_the_error_map_adds_up_to_the_score(run, table):
  mask = RANDOM.random(IMAGES.shape) < 0.5
  for options in ({}, {"mask": mask}, {"target": IMAGES[::-1]}):
    np.testing.assert_allclose(run.error_map(IMAGES, **options).sum((1, 2, 3)), run.score(IMAGES, **options), rtol=1e-4)
  np.testing.assert_allclose(table.error_map(FRAME).sum(1), table.score(FRAME), rtol=1e-4)
  assert run.error_map(IMAGES[0], mask=mask[0]).shape == (1, 4, 6, 1)


def test_evaluate_measures_other_data(run, table):
  found, scores = run.evaluate(IMAGES), run.score(IMAGES)
  assert (found["examples"], found["squared_error"]) == (60, pytest.approx(scores.mean(), rel=1e-5))
  assert found["mse"] == pytest.approx(np.square(run.reconstruct(IMAGES) - IMAGES / 255).mean(), rel=1e-4)
  assert found["psnr"] == pytest.approx(-10 * np.log10(found["mse"]))
  assert found["squared_error_low"] < found["squared_error"] < found["squared_error_high"]
  assert table.evaluate(FRAME)["column_errors/age"] == pytest.approx(table.column_errors(FRAME)["age"])
  mask = np.ones((len(FRAME), table.schema.elements), bool)
  for options in ({"mask": mask}, {"target": FRAME}):
    assert not any(name.startswith("column_errors") for name in table.evaluate(FRAME, **options))
  with pytest.raises(errors.UserError, match="no examples"):
    run.evaluate(IMAGES[:0])


def test_evaluate_with_targets_measures_the_error_of_doing_nothing(run, table):
  assert not [name for name in run.evaluate(IMAGES) if name.startswith("input_")]
  squares, mask = np.square((IMAGES - IMAGES[::-1].astype(float)) / 255), RANDOM.random(IMAGES.shape) < 0.5
  for options, observed in (({}, np.ones(IMAGES.shape)), ({"mask": mask}, mask)):
    found, error = run.evaluate(IMAGES, target=IMAGES[::-1], **options), (squares * observed).sum()
    assert found["input_squared_error"] == pytest.approx(error / len(IMAGES), rel=1e-5)
    assert found["input_psnr"] == pytest.approx(-10 * np.log10(error / observed.sum()), rel=1e-5)
  assert run.evaluate(IMAGES, target=IMAGES)["input_squared_error"] == 0.0
  assert "input_psnr" not in table.evaluate(FRAME, target=FRAME)  # no fixed range of values


def test_evaluate_with_labels_measures_the_detection_of_anomalies():
  run = fit(IMAGES, model__widths=16)  # its own, because a threshold is set
  scores = run.score(IMAGES)
  anomalous = scores > np.median(scores)
  found = run.evaluate(IMAGES, labels=anomalous)
  assert (found["auroc"], found["auprc"], "f1" in found) == (1.0, 1.0, False)
  assert run.evaluate(IMAGES, labels=~anomalous)["auroc"] == 0.0
  assert 0.5 < found["auroc_low"] < found["auroc_high"] == 1.0
  run.set_threshold(value=float(np.median(scores)))
  found = run.evaluate(IMAGES, labels=anomalous.astype(int))
  assert (found["precision"], found["recall"], found["f1"]) == (1.0, 1.0, 1.0)
  with pytest.raises(errors.UserError, match="must contain both 1"):
    run.evaluate(IMAGES, labels=np.zeros(60))


def test_interpolations_begin_and_end_at_the_reconstructions(run):
  path = run.interpolate(IMAGES[:3], IMAGES[3:6], steps=5)
  assert path.shape == (3, 5, 4, 6, 1)
  np.testing.assert_allclose(path[:, 0], run.reconstruct(IMAGES[:3]), atol=1e-5)
  np.testing.assert_allclose(path[:, -1], run.reconstruct(IMAGES[3:6]), atol=1e-5)
  middle = (run.encode(IMAGES[0]) + run.encode(IMAGES[3])) / 2
  np.testing.assert_allclose(path[:1, 2], run.decode(middle), atol=1e-5)
  with pytest.raises(errors.UserError, match="pass equal numbers"):
    run.interpolate(IMAGES[:3], IMAGES[:2])


def test_an_example_is_nearest_to_itself(run):
  positions, distances = run.nearest(IMAGES[7:9], IMAGES, count=3)
  assert positions[:, 0].tolist() == [7, 8]
  assert (distances[:, 0] < 1e-3).all()
  assert (np.diff(distances) >= 0).all()
  with pytest.raises(errors.UserError, match="from 1 to 60"):
    run.nearest(IMAGES[0], IMAGES, count=61)


def test_samples_of_a_run_without_a_prior_are_like_given_examples(run):
  with pytest.raises(errors.UserError, match="like=x"):
    run.sample(3)
  with pytest.raises(errors.UserError, match="n=-1: must be an integer of at least 0"):
    run.sample(-1, like=IMAGES)
  with pytest.raises(errors.UserError, match=r"temperature=-1\.0: must be a number of at least 0"):
    run.sample(3, like=IMAGES, temperature=-1.0)
  assert run.sample(3, like=IMAGES).shape == (3, 4, 6, 1)
  coldest = run.sample(2, like=IMAGES, temperature=0.0)
  np.testing.assert_allclose(coldest[:1], run.decode(run.encode(IMAGES).mean(0)), atol=1e-5)
  with pytest.raises(errors.UserError, match="posterior: "):
    run.posterior(IMAGES)


def test_samples_like_examples_are_codes_that_the_encoder_can_output():
  model = types.SimpleNamespace(code=types.SimpleNamespace(low=-1.0, high=1.0))
  bounded = types.SimpleNamespace(model=model, apply=lambda method, codes, columns: codes)
  codes = latents.nearest_codes(bounded, np.array([[-3.0, 0.5], [2.0, 1.0]]))
  np.testing.assert_array_equal(codes, np.float32([[-1, 0.5], [1, 1]]))


def test_samples_and_posterior_of_a_conditional_variational_run(conditional):
  samples = conditional.sample(4, "a")
  assert samples.shape == (4, 4, 6, 1)
  np.testing.assert_array_equal(samples, conditional.sample(4, label=np.zeros(4, int)))
  assert not np.array_equal(samples, conditional.sample(4, "a", seed=1))
  assert not np.array_equal(samples, conditional.sample(4, "b"))
  with pytest.raises(errors.UserError, match="label= and like= cannot be combined"):
    conditional.sample(4, "b", like=IMAGES)
  cold = conditional.sample(2, "a", temperature=0.0)
  np.testing.assert_allclose(cold[0], cold[1], atol=1e-6)
  np.testing.assert_allclose(cold[:1], conditional.decode(np.zeros(2), label="a"), atol=1e-6)
  labels = ["a", "b"] * 30
  mean, variance = conditional.posterior(IMAGES, label=labels)
  np.testing.assert_allclose(mean, conditional.encode(IMAGES, label=labels), atol=1e-6)
  assert variance.shape == mean.shape
  assert (variance > 0).all()
  ends = conditional.interpolate(IMAGES[:2], IMAGES[2:4], 3, label=["a", "b"])
  np.testing.assert_allclose(ends[:, 0], conditional.reconstruct(IMAGES[:2], label=["a", "b"]), atol=1e-5)


def test_a_run_shows_its_history_summary_and_report(run):
  assert run.history["test/squared_error"].dropna().iloc[-1] == run.metrics["test/squared_error"]
  assert run.history["step"].iloc[-1] == run.step
  assert run.report().read_text().startswith("<!")
  assert repr(run) == f"<Run: {run.summary()}>".replace("\n", "; ")
  assert f"{run.model.parameter_count():,} parameters" in run.summary()
  scaled = copy.deepcopy(run.config)
  scaled.data.scale = "standard"
  assert "in squared standard deviations" in dataclasses.replace(run, config=scaled).summary()
  assert "in squared" not in run.summary()
  page = run._repr_html_()
  assert "latent code: 2" in page
  assert "data:image/png;base64," in page


def test_a_run_without_a_folder_says_so(run, tmp_path):
  for folder in (None, tmp_path):
    copy = dataclasses.replace(run, workdir=folder)
    assert "latent code: 2" in copy._repr_html_()
    with pytest.raises(errors.UserError, match="does not exist"):
      copy.report()
