"""The estimators with scikit-learn's interface."""

import os
import pickle
import subprocess
import sys
import tempfile

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import ae_jax
from ae_jax import errors
from ae_jax.decisions import scores
from ae_jax.estimators import AutoencoderDetector, AutoencoderTransformer
from ae_jax.training import in_memory

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]

_CHECK = """
from sklearn.utils.estimator_checks import check_estimator
from ae_jax import AutoencoderDetector, AutoencoderTransformer
results = check_estimator({}, on_skip=None, on_fail="raise")
assert len(results) > 40, len(results)
assert {{result["status"] for result in results}} == {{"passed"}}
"""


def examples(count=60, features=4, seed=0):
  """Returns noisy points near a curve in `features` dimensions, [count, features] float64."""
  rng = np.random.default_rng(seed)
  t = rng.uniform(-2, 2, (count, 1))
  curve = np.concatenate([t * (k + 1) if k % 2 else t**2 + k for k in range(features)], 1)
  return curve + 0.05 * rng.normal(size=curve.shape)


@pytest.fixture(scope="module")
def transformer():
  return AutoencoderTransformer(latent=2, epochs=5).fit(examples())


@pytest.fixture(scope="module")
def detector():
  return AutoencoderDetector(latent=1, epochs=5).fit(examples())


def check(estimator):
  """Runs all of scikit-learn's checks in a process of its own, because SciPy reads the variable when it is imported."""
  environment = {**os.environ, "SCIPY_ARRAY_API": "1", "PYTHONPATH": str(ROOT)}
  command = [sys.executable, "-W", "ignore", "-c", _CHECK.format(estimator)]
  done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800, check=False)
  assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("estimator", ["AutoencoderDetector(epochs=1)", "AutoencoderTransformer(epochs=1)"])
def test_all_checks_of_scikit_learn_pass(estimator):
  check(estimator)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["AutoencoderDetector()", "AutoencoderTransformer()"])
def test_all_checks_of_scikit_learn_pass_with_defaults(estimator):
  check(estimator)


def test_the_package_imports_scikit_learn_only_for_the_estimators():
  code = "import sys, ae_jax; assert not {'sklearn', 'jax'} & {*sys.modules}; ae_jax.AutoencoderDetector"
  subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120)


def test_a_fit_prints_nothing_and_leaves_no_run_folder(tmp_path, monkeypatch, capfd):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
  AutoencoderTransformer(latent=2, epochs=5).fit(examples())
  assert capfd.readouterr() == ("", "")
  assert list(tmp_path.iterdir()) == []


def test_the_score_is_the_error_of_the_reconstruction_in_standard_deviations(transformer):
  x = examples()
  decoded = transformer.inverse_transform(transformer.transform(x))
  expected = np.square((decoded - x) / x.std(0)).mean()
  assert transformer.score(x) == pytest.approx(-expected, rel=1e-4)


def test_results_of_a_row_do_not_depend_on_the_other_rows(transformer, detector):
  x = examples(300)
  for method in (transformer.transform, detector.score_samples):
    together = method(x)
    alone = np.concatenate([method(part) for part in (x[:1], x[1:100], x[100:])])
    np.testing.assert_array_equal(together, alone)


def test_the_offset_of_the_features_does_not_matter():
  """float32 would round values near 1e8 to multiples of 8."""
  x = examples() + 1e8
  far = AutoencoderTransformer(latent=2, epochs=5).fit(x)
  np.testing.assert_allclose(far.inverse_transform(far.transform(x)), x, rtol=0, atol=0.5)


def test_equal_seeds_give_equal_models_and_others_do_not(transformer):
  same = clone(transformer).fit(examples()).transform(examples())
  np.testing.assert_array_equal(same, transformer.transform(examples()))
  other = clone(transformer).set_params(random_state=1).fit(examples()).transform(examples())
  assert not np.array_equal(other, same)


def test_pickled_estimators_give_the_same_results(transformer, detector):
  x = examples()
  np.testing.assert_array_equal(pickle.loads(pickle.dumps(transformer)).transform(x), transformer.transform(x))
  np.testing.assert_array_equal(pickle.loads(pickle.dumps(detector)).predict(x), detector.predict(x))


def test_data_frames_in_a_column_transformer_and_a_pipeline():
  table = pd.DataFrame(examples(), columns=list("abcd")).assign(kind=["x", "y"] * 30)
  columns = ColumnTransformer(
    [("codes", AutoencoderTransformer(latent=2, epochs=5), list("abcd")), ("kind", OneHotEncoder(), ["kind"])],
    sparse_threshold=0,
  ).set_output(transform="pandas")
  with pytest.raises(ValueError, match="sparse"):
    columns.fit_transform(table)  # scikit-learn's own refusal for OneHotEncoder
  columns.set_params(kind__sparse_output=False)
  codes = columns.fit_transform(table)
  names = ["codes__autoencodertransformer0", "codes__autoencodertransformer1", "kind__kind_x", "kind__kind_y"]
  assert list(codes.columns) == names
  labels = table["a"] > table["a"].median()
  assert make_pipeline(columns, LogisticRegression()).fit(table, labels).score(table, labels) > 0.8


def test_a_grid_search_finds_the_latent_size_with_the_smallest_error():
  search = GridSearchCV(AutoencoderTransformer(epochs=5), {"latent": [1, 3]}, cv=2, refit=False).fit(examples())
  assert search.best_params_ == {"latent": 3}


@pytest.mark.slow
def test_a_grid_search_in_processes_finds_the_same():
  grid, model = {"latent": [1, 3]}, AutoencoderTransformer(epochs=5)
  scores = [
    GridSearchCV(model, grid, cv=2, n_jobs=jobs).fit(examples()).cv_results_["mean_test_score"] for jobs in (1, 2)
  ]
  np.testing.assert_allclose(*scores, rtol=1e-5)


def test_partial_fit_goes_on_with_the_trained_model():
  x, model = examples(200), AutoencoderTransformer(latent=1)
  scores = [model.partial_fit(part).score(x) for _ in range(5) for part in (x[:100], x[100:])]
  assert scores[-1] > scores[0]
  again = AutoencoderTransformer(latent=1)
  for _ in range(5):
    again.partial_fit(x[:100]).partial_fit(x[100:])
  np.testing.assert_array_equal(again.transform(x), model.transform(x))


def test_a_variational_model():
  fitted = AutoencoderTransformer(latent=2, model="vae", epochs=2).fit(examples())
  assert fitted.transform(examples().astype(np.float32)).dtype == np.float32
  assert fitted.get_feature_names_out().tolist() == ["autoencodertransformer0", "autoencodertransformer1"]


def test_options_are_config_keys():
  fitted = AutoencoderTransformer(latent=2, epochs=1, options={"model__widths": (8,), "batch_size": 16}).fit(examples())
  assert fitted.run_.config.model.widths == (8,)
  assert fitted.run_.config.batch_size == 16


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"model__latent": 2}, r"model__latent=2: is given twice"),
    ({"model": {"latent": 2}}, r"model__latent=2: is given twice"),
    ({"learning_rate": 0.1}, r"learning_rate=0\.1: unknown argument or config key"),
    ({"optimizer__learning_rate": "auto"}, r"optimizer__learning_rate='auto': .* pass a number"),
    ({"seed": 1}, r"seed=1: .* random_state"),
    ({"shorten": True, "max_minutes": 0.5}, r"shorten=True: .* set fewer epochs"),
    ({"trackers": ("mlflow",)}, r"trackers=\('mlflow',\): .* use ae_jax\.fit"),
    ({"evaluators": ("latent",)}, r"evaluators=.* use ae_jax\.fit"),
    ({"eval_every_epochs": 2}, r"eval_every_epochs=2: .* use ae_jax\.fit"),
    ({"checkpoint_every_epochs": 2}, r"checkpoint_every_epochs=2: .* use ae_jax\.fit"),
    ({"early_stopping": {"metric": "test/squared_error"}}, r"early_stopping__metric=.* use ae_jax\.fit"),
    *[
      ({f"data__{key}": value}, rf"data__{key}=.*: the estimators train on all rows")
      for key, value in {"validation": 0.3, "test": 0.1, "range": "unit", "columns": ("column_0=ignore",)}.items()
    ],
  ],
)
def test_options_that_cannot_be_used_are_refused(options, message):
  with pytest.raises(errors.UserError, match=message):
    AutoencoderTransformer(latent=2, options=options).fit(examples())


def test_a_diverged_fit_is_refused():
  options = {"optimizer__learning_rate": 1e30, "optimizer__name": "sgd", "optimizer__warmup_epochs": 0.0}
  with pytest.raises(errors.UserError, match="diverged"):
    AutoencoderTransformer(latent=2, epochs=5, options=options).fit(examples())


def test_latent_codes_of_another_size_are_refused(transformer):
  with pytest.raises(ValueError, match="X has 3 latent features"):
    transformer.inverse_transform(np.zeros((2, 3)))


@pytest.mark.parametrize(
  "options", [{"optimizer__schedule": "linear"}, {"optimizer": {"warmup_epochs": 2.0}}, {"schedules": ({},)}]
)
def test_partial_fit_refuses_schedules(options):
  model = AutoencoderTransformer(latent=1, options=options)
  with pytest.raises(
    errors.UserError, match=r"(schedule|warmup_epochs|schedules)=.*: partial_fit trains with .*remove"
  ):
    model.partial_fit(examples())
  assert not hasattr(model, "scaler_")


@pytest.mark.parametrize(("settings", "epochs"), [({}, 1), ({"epochs": 3}, 3), ({"options": {"epochs": 2}}, 2)])
def test_partial_fit_trains_for_the_epochs_of_the_user(settings, epochs, transformer, monkeypatch):
  configs = []
  monkeypatch.setattr(in_memory, "train_run", lambda config, *_: configs.append(config) or transformer.run_)
  AutoencoderTransformer(latent=2, **settings).partial_fit(examples())
  assert configs[0].epochs == epochs
  assert configs[0].optimizer.schedule == "constant"


def test_partial_fit_trains_the_stages_of_the_config_once(transformer, monkeypatch):
  configs = []
  monkeypatch.setattr(in_memory, "train_run", lambda config, *_: configs.append(config) or transformer.run_)
  AutoencoderTransformer(latent=2, model="stacked").partial_fit(examples()).partial_fit(examples())
  assert [len(config.stages) for config in configs] == [3, 0]


def test_the_time_limit_ends_a_fit_with_a_warning():
  with pytest.warns(UserWarning, match=r"stopped after epoch 1: the time limit .* is reached; raise it"):
    fitted = AutoencoderTransformer(latent=2, epochs=5, options={"max_minutes": 1e-9}).fit(examples())
  assert fitted.run_.metrics["epoch"] == 1


def test_a_latent_size_above_the_number_of_features_is_refused_by_its_name():
  with pytest.raises(errors.UserError, match=r"latent=5: larger than the 4 elements .* such as latent=1") as error:
    AutoencoderTransformer(latent=5).fit(examples())
  assert "--" not in str(error.value)


@pytest.mark.parametrize("far", [1e30, 1e300, np.finfo(np.float64).max])
def test_examples_beyond_the_range_of_float32_are_outliers(transformer, detector, far):
  x = examples(3)
  x[1], x[2] = far, -far
  assert detector.predict(x).tolist()[1:] == [-1, -1]
  assert np.isfinite(detector.score_samples(x)).all()
  assert np.isfinite(transformer.transform(x)).all()
  assert np.isfinite(transformer.score(x))


def test_examples_whose_variance_overflows_are_refused():
  x = examples()
  x[0] = 1e200
  with pytest.raises(errors.UserError, match=r"X: the variance of values such as 1e\+200 .* scale='quantile'"):
    AutoencoderTransformer(latent=2).fit(x)


def test_the_detector_keeps_the_moments_of_the_training_latents_only(detector, monkeypatch):
  codes = detector.run_.encode(detector.scaler_.transform(examples()).astype(np.float32))
  arrays = {name: value for name, value in vars(detector).items() if isinstance(value, np.ndarray)}
  assert {name: value.shape for name, value in arrays.items()} == {"location_": (1,), "covariance_": (1, 1)}
  np.testing.assert_allclose(detector.location_, codes.mean(0), rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(detector.covariance_[0, 0], codes.var(ddof=1), rtol=1e-4)
  monkeypatch.delattr(scores, "moments")  # new examples do not need it
  assert detector.predict(examples()).shape == (60,)


@pytest.mark.parametrize("scoring", ["both", "reconstruction", "latent"])
def test_the_detector_flags_a_share_of_the_training_examples(scoring):
  detector = AutoencoderDetector(latent=1, epochs=5, contamination=0.2, scoring=scoring).fit(examples())
  assert (detector.predict(examples()) == -1).sum() == 12
  parts = 2 if scoring == "both" else 1  # whose mean over the training examples is 1
  assert -detector.score_samples(examples()).mean() == pytest.approx(parts, rel=1e-5)
  np.testing.assert_allclose(
    detector.decision_function(examples()), detector.score_samples(examples()) - detector.offset_
  )


def test_the_detector_ranks_points_far_from_the_curve_last(detector):
  x = examples(100, seed=1)
  far = x + np.random.default_rng(2).choice((-4, 4), x.shape)
  scores = detector.score_samples(np.concatenate([x, far]))
  assert roc_auc_score(np.arange(200) < 100, scores) > 0.95


def test_explain_names_the_feature_that_makes_a_score_high(detector):
  changed = examples()[:8]
  changed[:, 2] += 30
  shares = detector.explain(changed)
  assert (shares.argmax(1) == 2).all()
  parts = detector._parts(changed)
  of_features = parts["reconstruction"] / detector.scales_["reconstruction"]
  np.testing.assert_allclose(shares.sum(1), of_features / -detector.score_samples(changed))
  assert (shares.sum(1) < 1).all()
  assert (shares >= 0).all()
  of_latents = clone(detector).set_params(scoring="latent", epochs=1).fit(examples())
  with pytest.raises(errors.UserError, match="scoring='latent' is not a sum over features"):
    of_latents.explain(changed)


def test_the_estimators_are_attributes_of_the_package():
  assert ae_jax.AutoencoderDetector is AutoencoderDetector
  assert ae_jax.AutoencoderTransformer is AutoencoderTransformer
