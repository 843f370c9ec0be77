"""The conditional VAE: with a constant label it equals the VAE, and all its methods need the label."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of, with_pictures

import ae_jax
from ae_jax import api, data, errors, models, objectives
from ae_jax.data import columns
from ae_jax.training import train

pytestmark = pytest.mark.quick_compile

OPTIONS = {"latent": 3, "widths": (6,), "decoder_widths": (), "activation": "tanh"}
SHAPE = (3, 2, 1)


def numbers(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_cvae_with_a_constant_label_is_the_vae():
  """The one-hot label selects a row of each first kernel, which acts as a bias: loss and gradient equal the VAE's."""
  conditional = models.build("cvae", SHAPE, labels=(4, 7), **OPTIONS)
  plain = models.build("dense", SHAPE, bottleneck="gaussian", tied=False, **OPTIONS)
  variables = conditional.init(jax.random.key(0))
  params = jax.tree.map(lambda leaf: leaf, variables.params)
  without = jax.tree.map(lambda leaf: leaf, params)
  for half, layer, inputs in (("encoder", "hidden_0", 6), ("decoder", "hidden_0", 3)):
    both = params[half][layer]
    kernel, row = both["kernel"][:inputs], both["kernel"][inputs + 1]  # label 7 is number 1
    without[half][layer] = {"kernel": kernel, "bias": both["bias"] + row}
  objective = {"name": "elbo", "likelihood": "gaussian", "noise": 0.5, "beta": 1.0, "free_bits": 0.0}
  keys = jax.random.split(jax.random.key(1), 5)
  batch = {"x": numbers(5, *SHAPE), "weight": jnp.ones(5), "label": jnp.ones(5, jnp.int32)}
  results = []
  for model, given in ((conditional, params), (plain, without)):
    loss = objectives.build(model=model, value_range="real", **objective)
    value = jax.value_and_grad(lambda p, m=model, o=loss: o(m, models.Variables(p), batch, keys)[0])
    results.append(value(given))
  (loss, gradient), (wanted, slope) = results
  assert float(loss) == pytest.approx(float(wanted), rel=1e-5)
  np.testing.assert_allclose(gradient["decoder"]["logits"]["kernel"], slope["decoder"]["logits"]["kernel"], atol=1e-4)
  hidden = gradient["encoder"]["hidden_0"]
  np.testing.assert_allclose(hidden["kernel"][:6], slope["encoder"]["hidden_0"]["kernel"], rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(hidden["kernel"][7], slope["encoder"]["hidden_0"]["bias"], rtol=1e-3, atol=1e-4)
  assert not np.asarray(hidden["kernel"][6]).any()  # the row of the label that does not occur


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A run on digits, two epochs."""
  config = config_of("cvae", "digits")
  config.update_from_flattened_dict({"epochs": 2, "model.widths": (16,), "model.latent": 4, "batch_size": 128})
  config.evaluators = ("generation",)
  workdir = tmp_path_factory.mktemp("cvae") / "run"
  with jax.numpy_dtype_promotion("standard"), with_pictures():
    train.train_and_evaluate(config, workdir)
  return workdir


def test_run_takes_the_label_by_name(folder):
  run, digits = ae_jax.load(folder), data.load("digits", "", "unit")
  x, labels = digits.test[:6], digits.test_labels[:6]
  z = run.encode(x, label=labels)
  np.testing.assert_allclose(run.reconstruct(x, label=labels), run.decode(z, label=labels), atol=1e-5)
  np.testing.assert_allclose(run.decode(z, label=7), run.decode(z, label=np.full(6, 7)))
  assert np.abs(run.decode(z, label=7) - run.decode(z, label=1)).max() > 1e-3
  assert (folder / "pictures" / "samples_by_class.png").exists()


@pytest.mark.runs_optax
def test_labels_stream_with_the_examples(tmp_path):
  runs_of = {}
  for placement in ("memory", "stream"):
    config = config_of("cvae", "digits")
    config.update_from_flattened_dict({"epochs": 1, "model.widths": (16,), "model.latent": 4, "batch_size": 128})
    config.evaluators, config.data.placement = (), placement
    train.train_and_evaluate(config, tmp_path / placement)
    runs_of[placement] = ae_jax.load(tmp_path / placement)
  jax.tree.map(np.testing.assert_array_equal, *(run.variables for run in runs_of.values()))


@pytest.mark.parametrize(
  ("columns", "message"),
  [
    ({}, "label= is missing: this run was trained on x and label"),
    ({"lable": 1}, "the model of this run has no input 'lable'; its inputs are x, label"),
    ({"label": 10}, "label=10: is not a training label; known labels: 0, 1, 2"),
    ({"label": 1.5}, "must be an integer"),
    ({"label": [1, 2]}, "one for each of the 3 examples"),
  ],
)
def test_missing_or_unknown_column_is_refused_by_name(folder, columns, message):
  with pytest.raises(errors.UserError, match=message):
    ae_jax.load(folder).decode(np.zeros((3, 4)), **columns)


def test_run_without_labels_refuses_a_label():
  config = config_of("dense", "digits")
  model = models.build(shape=SHAPE, **{**config.model, "widths": (4,), "latent": 2})
  run = api.Run(jax.jit(model.init)(jax.random.key(0)), config, {}, [], model, 0)
  with pytest.raises(errors.UserError, match="has no input 'label'"):
    run.encode(np.zeros((1, *SHAPE), np.float32), label=1)


def dataset(labels, test_labels):
  x = np.zeros((4, 2, 2, 1), np.float32)
  return data.Dataset("made", "unit", x, x, labels, test_labels)


@pytest.mark.parametrize(
  ("labels", "test_labels", "message"),
  [
    (None, np.arange(4), "training examples of .* have no integer labels"),
    (np.arange(4), None, "test examples of .* have no integer labels"),
    (np.arange(4) / 2, np.arange(4), "training examples of .* have no integer labels"),
    (np.zeros(4, int), np.arange(4), "label=1: is not a training label"),
  ],
)
def test_data_without_labels_are_refused(labels, test_labels, message):
  with pytest.raises(errors.UserError, match=message):
    columns.label_values(dataset(labels, test_labels), "config.model.name='cvae'")


def test_labels_may_be_any_integers():
  labels = np.array([-1, 5, 5, 300])
  known = columns.label_values(dataset(labels, labels[::-1]), "here")
  assert known == (-1, 5, 300)
  np.testing.assert_array_equal(columns.class_indices(labels, known, 4), [0, 1, 1, 2])
