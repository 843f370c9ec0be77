"""The linear path: an untrained model reconstructs like PCA."""

import dataclasses
import pickle

import jax
import numpy as np
import pytest
from conftest import config_of, learned, train_until
from sklearn.decomposition import PCA

import ae_jax
from ae_jax import errors, models, objectives
from ae_jax.data import dataset as datasets
from ae_jax.evaluators import pca
from ae_jax.system import distributed
from ae_jax.training import train

pytestmark = pytest.mark.quick_compile
SMALL = {"dense": {"widths": (8,)}, "vae": {"widths": (8,)}, "cnn": {"channels": (4,), "decoder_kernels": (3,)}}
SMALL["cnn"]["decoder_strides"] = (2,)


def built(name, value_range="real", shape=(8, 6, 1), latent=3, **options):
  given = {**config_of(name, "digits").model, **SMALL[name], "latent": latent, "linear_path": "pca", **options}
  return models.build(shape=shape, value_range=value_range, **given)


def made(value_range="real", count=40, shape=(8, 6, 1)):
  """A data set of correlated elements, which fill the range."""
  rng = np.random.default_rng(0)
  mixed = rng.normal(size=(count, 5)) @ rng.normal(size=(5, int(np.prod(shape)))) + rng.normal(size=(count, 1))
  x = {"real": mixed * 300 + 1000, "unit": 1 / (1 + np.exp(-mixed)), "symmetric": np.tanh(mixed)}[value_range]
  x = x.astype(np.float32).reshape(count, *shape)
  return datasets.Dataset("npz", value_range, train=x, test=x[:9], train_labels=None, test_labels=None)


def fitted(model, dataset):
  variables = model.init(jax.random.key(0))
  principal = pca.principal_components(dataset, model.principal_components)
  return variables._replace(state=model.fit_state(variables.state, principal))


@pytest.mark.parametrize(
  ("name", "options"),
  [("dense", {}), ("vae", {}), *(("cnn", {"decoder": d}) for d in ("transposed", "nearest", "bilinear", "subpixel"))],
)
def test_an_untrained_model_equals_pca(name, options):
  model, dataset = built(name, **options), made()
  assert pickle.loads(pickle.dumps(model)) == model
  fit = PCA(3, svd_solver="covariance_eigh").fit(dataset.train.reshape(40, -1).astype(np.float64))
  expected = fit.inverse_transform(fit.transform(dataset.test.reshape(9, -1))).reshape(dataset.test.shape)
  variables = fitted(model, dataset)
  encoding, logits = model.autoencode(variables, dataset.test)
  np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=0.05)
  np.testing.assert_allclose(model.encode(variables, dataset.train).z.std(0, ddof=1), 1.0, rtol=1e-3)
  if model.has_posterior:
    residual = fit.noise_variance_ / fit.explained_variance_
    np.testing.assert_allclose(np.exp(encoding.posterior.log_variance[0]), residual.clip(1e-4, 1), rtol=1e-2)


@pytest.mark.parametrize("value_range", ["unit", "symmetric"])
def test_in_a_bounded_range_it_equals_pca_clipped_to_the_range(value_range):
  model, dataset = built("dense", value_range), made(value_range)
  fit = PCA(3, svd_solver="covariance_eigh").fit(dataset.train.reshape(40, -1).astype(np.float64))
  expected = fit.inverse_transform(fit.transform(dataset.test.reshape(9, -1))).reshape(dataset.test.shape)
  assert (expected > 1).any()  # PCA leaves the range
  low = {"unit": 0.001, "symmetric": -0.999}[value_range]
  outputs = model.outputs(model.reconstruct(fitted(model, dataset), dataset.test), value_range)
  np.testing.assert_allclose(outputs, expected.clip(low, 0.999), atol=1e-4)


@pytest.mark.parametrize("name", ["dense", "cnn"])
def test_encoder_and_decoder_of_the_network_get_gradients(name):
  model, dataset = built(name), made()
  variables = fitted(model, dataset)
  objective = objectives.build("reconstruction", model, "real", likelihood="gaussian")
  batch = {"x": dataset.train, "weight": np.ones(40, np.float32)}

  def loss(params):
    return objective(model, variables._replace(params=params), batch, jax.random.split(jax.random.key(0), 40))[0].sum()

  gradients = jax.grad(loss)(variables.params)["network"]
  for part in ("encoder", "decoder"):
    leaves = jax.tree.leaves(gradients[part])
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert max(np.abs(leaf).max() for leaf in leaves) > 0


@pytest.mark.parametrize("noise", [1.0, 0.03])
@pytest.mark.parametrize("name", ["dense", "cnn"])
def test_the_correction_is_scaled_by_small_residuals_of_pca(name, noise):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 48)) + noise * rng.normal(size=(400, 48))
  x = x.astype(np.float32).reshape(400, 8, 6, 1)
  dataset = datasets.Dataset("npz", "real", train=x, test=x[:9], train_labels=None, test_labels=None)
  fit = PCA(3).fit(x.reshape(400, -1))
  fraction = np.sqrt(1 - fit.explained_variance_ratio_.sum())
  assert pca.principal_components(dataset, 3).residual_fraction == pytest.approx(fraction, rel=1e-2)
  model = built(name)
  variables = fitted(model, dataset)
  larger = variables._replace(params=jax.tree.map(lambda leaf: leaf + 0.01, variables.params))
  unscaled = {**variables.state, "correction_scale": np.ones(1, np.float32)}
  z, of_unscaled = (model.encode(larger._replace(state=state), x).z for state in (variables.state, unscaled))
  base, scale = model.encode(variables, x).z, min(1.0, fraction / 0.2)
  np.testing.assert_allclose(z - base, scale * (of_unscaled - base), rtol=1e-2, atol=1e-4)
  assert (scale < 0.5) == (noise < 1)
  logits, of_unscaled = (model.decode(larger._replace(state=state), base) for state in (variables.state, unscaled))
  reconstructed = model.decode(variables, base)
  np.testing.assert_allclose(logits - reconstructed, scale * (of_unscaled - reconstructed), rtol=1e-2, atol=1e-4)


@pytest.mark.runs_optax
def test_the_first_steps_do_not_undo_pca_of_nearly_linear_data():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 48)) + 0.01 * rng.normal(size=(400, 48))
  options = {"data__range": "real", "objective__likelihood": "gaussian", "evaluators": (), "verbose": False}
  run = ae_jax.fit(
    x[:320].astype(np.float32), test=x[320:].astype(np.float32), model="dense", latent=3, epochs=3, **options
  )
  assert run.metrics["test/squared_error"] < 1.1 * run.metrics["test/pca_squared_error"]


@pytest.mark.parametrize("value_range", ["real", "unit"])
def test_logits_do_not_depend_on_the_layout_in_which_they_are_summed(value_range):
  model, dataset = built("cnn", value_range, shape=(8, 6, 2)), made(value_range, shape=(8, 6, 2))
  assert model.module.batch_last
  variables, generator = fitted(model, dataset), np.random.default_rng(0)
  noisy = lambda values: values + generator.normal(0, 0.1, values.shape).astype(np.float32)  # the correction is not 0
  variables = variables._replace(params=jax.tree.map(noisy, variables.params))
  batch_first = dataclasses.replace(model, module=model.module.clone(batch_last=False), batch_last=False)
  logits = model.reconstruct(variables, dataset.test)
  np.testing.assert_allclose(logits, batch_first.reconstruct(variables, dataset.test), rtol=1e-4, atol=1e-3)


def test_constant_examples_and_missing_components_give_the_mean():
  x = np.full((5, 8, 6, 1), 3.5, np.float32)
  dataset = datasets.Dataset("npz", "real", train=x, test=x, train_labels=None, test_labels=None)
  model = built("vae", latent=7)
  np.testing.assert_allclose(model.reconstruct(fitted(model, dataset), x), x)


def test_elements_that_were_not_observed_count_as_their_mean():
  model, dataset = built("dense", masked=True), made()
  variables = fitted(model, dataset)
  mask = np.random.default_rng(1).integers(0, 2, dataset.test.shape).astype(np.float32)
  hidden = np.where(mask == 1, dataset.test, 0)
  at_mean = np.where(mask == 1, dataset.test, dataset.train.mean(0))
  found = model.reconstruct(variables, hidden, {"mask": mask})
  np.testing.assert_allclose(found, built("dense").reconstruct(variables, at_mean), rtol=1e-4)


def test_a_mean_far_from_zero_is_kept_in_bfloat16():
  dataset = made()
  variables = fitted(built("dense"), dataset)
  expected = built("dense").reconstruct(variables, dataset.test)
  model = built("dense", compute_dtype="bfloat16")
  z = model.encode(variables, dataset.test).z
  close = model.decode(variables, z)
  np.testing.assert_allclose(close, expected, rtol=0.1, atol=0.1 * dataset.train.std())


@pytest.mark.runs_optax
def test_a_run_continues_bitwise_and_agrees_on_sharded_devices(tiny, tmp_path, monkeypatch):
  tiny.model.linear_path = "pca"
  metrics = train.train_and_evaluate(tiny, tmp_path / "whole")
  train_until(tiny, tmp_path / "parts", 1, monkeypatch)
  train.train_and_evaluate(tiny, tmp_path / "parts")
  (params, records), (same, same_records) = (learned(tmp_path / name) for name in ("whole", "parts"))
  jax.tree.map(np.testing.assert_array_equal, same, params)
  assert same_records == records
  assert metrics["test/squared_error"] < metrics["test/pca_squared_error"]
  tiny.parallel_state = "sharded"
  four = distributed.mesh(jax.devices()[:4])
  monkeypatch.setattr(distributed, "mesh", lambda devices=None: four)
  sharded = train.train_and_evaluate(tiny, tmp_path / "sharded")
  np.testing.assert_allclose(sharded["test/squared_error"], metrics["test/squared_error"], rtol=1e-3)


def test_auto_is_pca_for_models_that_can_have_it():
  for name, options, expected in (
    ("dense", {}, "pca"),
    ("vae", {}, "pca"),
    ("dense", {"bottleneck": "fsq3"}, "none"),
    ("dense", {"tied": True}, "none"),
    ("cnn", {"decoder": "tied"}, "none"),
    ("cnn", {"decoder": "nearest"}, "pca"),
  ):
    config = config_of(name, "npz").model
    assert models.completed({**config, **options}, (28, 28, 1))["linear_path"] == expected


@pytest.mark.parametrize("value", ["pcaa", True, 1])
def test_an_unknown_value_is_refused(value):
  with pytest.raises(errors.UserError, match="linear_path"):
    built("dense", linear_path=value)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"bottleneck": "relu"}, "identity or gaussian"),
    ({"tied": True}, "tied"),
    ({"groups": (("boolean", 0, 1),)}, "mixed"),
  ],
)
def test_models_without_an_output_layer_or_with_bounded_latents_are_refused(options, words):
  with pytest.raises(errors.UserError, match=words):
    built("dense", **options)
