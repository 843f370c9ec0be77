import functools

import jax
import numpy as np
import pytest

from ae_jax import errors, models, objectives
from ae_jax.data import ranges
from ae_jax.objectives import corruptions
from ae_jax.ops import losses

pytestmark = pytest.mark.quick_compile

SHAPE = (6, 5, 1)
KEYS = jax.random.split(jax.random.key(0), 4)


def dense_of(**options):
  defaults = {"latent": 3, "widths": (7,), "decoder_widths": (), "activation": "tanh", "bottleneck": "identity"}
  return models.build("dense", SHAPE, **{**defaults, "tied": False, **options})


@pytest.fixture
def model():
  return dense_of()


def batch_of(size, seed=0):
  x = np.random.default_rng(seed).uniform(size=(size, *SHAPE)).astype(np.float32)
  return {"x": x, "weight": np.ones(size, np.float32)}


CASES = [("bernoulli", "unit"), ("gaussian", "unit"), ("gaussian", "symmetric"), ("gaussian", "real")]


@pytest.mark.parametrize(("likelihood", "value_range"), CASES)
def test_reconstruction_loss_matches_numpy(model, likelihood, value_range):
  objective = objectives.build("reconstruction", model, value_range, likelihood=likelihood)
  variables, batch = model.init(jax.random.key(0)), batch_of(4)
  logits = np.asarray(model.decode(variables, model.encode(variables, batch["x"]).z), np.float64)
  x = batch["x"].astype(np.float64)
  sigmoid = 1 / (1 + np.exp(-logits))
  if likelihood == "bernoulli":
    exact = -(x * np.log(sigmoid) + (1 - x) * np.log(1 - sigmoid))
  else:
    exact = np.square({"unit": sigmoid, "symmetric": np.tanh(logits), "real": logits}[value_range] - x)
  loss, (terms, _) = objective(model, variables, batch, KEYS)
  np.testing.assert_allclose(loss, exact.sum() / 4, rtol=1e-5)
  assert terms == {{"bernoulli": "nats", "gaussian": "squared_error"}[likelihood]: loss}


@pytest.mark.parametrize(("likelihood", "value_range"), CASES)
def test_loss_and_gradient_ignore_duplication_and_padding(model, likelihood, value_range):
  objective = objectives.build("reconstruction", model, value_range, likelihood=likelihood)
  variables, batch = model.init(jax.random.key(0)), batch_of(4)
  doubled = {key: np.concatenate([value, value]) for key, value in batch.items()}
  padding = batch_of(3, seed=9)
  padded = {"x": np.concatenate([batch["x"], padding["x"]]), "weight": np.repeat(np.float32([1, 0]), [4, 3])}
  keys = jax.random.split(jax.random.key(2), 8)
  gradient = jax.value_and_grad(lambda v, b: objective(model, v, b, keys[: len(b["x"])])[0])
  expected = gradient(variables, batch)
  for other in (doubled, padded):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradient(variables, other), expected
    )


@pytest.mark.parametrize("value_range", ["symmetric", "real"])
def test_bernoulli_needs_the_unit_range(model, value_range):
  with pytest.raises(errors.UserError, match=r"config\.data\.range"):
    objectives.build("reconstruction", model, value_range, likelihood="bernoulli")


NOISE = {"corruption": "masking", "level": 0.4, "alpha": 1.0, "beta": 1.0}


def loss_of(objective, model, variables, batch, seed=0):
  keys = jax.random.split(jax.random.key(seed), len(batch["x"]))
  return jax.jit(functools.partial(objective, model))(variables, batch, keys)


@pytest.mark.parametrize("corruption", corruptions.CORRUPTIONS)
def test_denoising_reconstructs_the_clean_example_and_equals_reconstruction_without_noise(model, corruption):
  variables, batch = model.init(jax.random.key(0)), batch_of(4)
  plain = objectives.build("reconstruction", model, "unit", likelihood="bernoulli")
  none, some = (
    objectives.build("denoising", model, "unit", likelihood="bernoulli", **{**NOISE, "corruption": corruption, **level})
    for level in ({"level": 0.0}, {})
  )
  expected = loss_of(plain, model, variables, batch)[0]
  np.testing.assert_allclose(loss_of(none, model, variables, batch)[0], expected, rtol=1e-6)
  noisy, _ = corruptions.corrupt(corruption, KEYS, batch["x"], 0.4, ranges.SPANS["unit"])
  exact = losses.bernoulli_nats(model.reconstruct(variables, noisy), batch["x"]).mean()
  np.testing.assert_allclose(loss_of(some, model, variables, batch)[0], exact, rtol=2e-2)
  assert loss_of(some, model, variables, batch)[0] != loss_of(some, model, variables, batch, seed=1)[0]


def test_emphasised_loss_weights_corrupted_and_other_elements(model):
  variables, batch = model.init(jax.random.key(0)), batch_of(4)

  def value(alpha, beta):
    options = {**NOISE, "alpha": alpha, "beta": beta}
    return float(
      loss_of(objectives.build("denoising", model, "unit", likelihood="gaussian", **options), model, variables, batch)[
        0
      ]
    )

  assert value(2.0, 0.3) == pytest.approx(2.0 * value(1.0, 0.0) + 0.3 * value(0.0, 1.0), rel=1e-5)
  share = value(1.0, 0.0) / value(1.0, 1.0)
  assert 0.2 < share < 0.6  # of the loss, with level 0.4
  everything = {**NOISE, "corruption": "gaussian", "beta": 0.0}
  gaussian = objectives.build("denoising", model, "unit", likelihood="gaussian", **everything)
  assert loss_of(gaussian, model, variables, batch)[0] > 0


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_layerwise_gradient_covers_the_layer_and_its_decoder_layer_alone(layer):
  model = dense_of(widths=(7, 5), activation="sigmoid")
  options = {"likelihood": "bernoulli", "corruption": "masking", "level": 0.3}
  objective = objectives.build("layerwise", model, "unit", layer=layer, **options)
  variables = model.init(jax.random.key(0))
  gradient = jax.grad(lambda v: loss_of(objective, model, v, batch_of(4))[0])(variables).params
  moved = {
    half: {name for name, leaf in part.items() if np.abs(leaf["kernel"]).sum() > 0} for half, part in gradient.items()
  }
  up, down = ["hidden_0", "hidden_1", "code"], ["logits", "hidden_1", "hidden_0"]
  assert moved == {"encoder": {up[layer]}, "decoder": {down[layer]}}


def test_layerwise_equals_denoising_for_a_model_of_one_layer():
  model = dense_of(widths=())
  variables, batch = model.init(jax.random.key(0)), batch_of(4)
  options = {"likelihood": "bernoulli", "corruption": "masking", "level": 0.3}
  one = objectives.build("layerwise", model, "unit", layer=0, **options)
  other = objectives.build("denoising", model, "unit", alpha=1.0, beta=1.0, **options)
  expected = loss_of(other, model, variables, batch)[0]  # masks of [30] and of [6, 5, 1] are the same draws
  np.testing.assert_allclose(loss_of(one, model, variables, batch)[0], expected, rtol=1e-6)


def test_elbo_with_beta_and_free_bits_matches_its_terms():
  model = dense_of(bottleneck="gaussian")
  variables, batch = model.init(jax.random.key(0)), batch_of(4)

  def value(free_bits, beta=1.0):
    options = {"noise": 1.0, "beta": beta, "free_bits": free_bits}
    return loss_of(objectives.build("elbo", model, "unit", likelihood="bernoulli", **options), model, variables, batch)

  loss, (terms, _) = value(0.0)
  np.testing.assert_allclose(loss, terms["nats"] + terms["kl"], rtol=1e-6)
  np.testing.assert_allclose(value(0.0, beta=4.0)[0], terms["nats"] + 4 * terms["kl"], rtol=1e-6)
  np.testing.assert_allclose(value(50.0)[0], terms["nats"] + 3 * 50.0, rtol=1e-6)


ELBO = {"likelihood": "bernoulli", "noise": 1.0, "beta": 1.0, "free_bits": 0.0}
SPARSE = {"likelihood": "bernoulli", "penalty": "kl", "weight": 1.0, "target": 0.05}
CONTRACTIVE = {"likelihood": "bernoulli", "weight": 1.0, "probes": 0}
DENOISING = {"likelihood": "bernoulli", **NOISE}
LAYERWISE = {"likelihood": "bernoulli", "corruption": "masking", "level": 0.1, "layer": 0}


@pytest.mark.parametrize(
  ("name", "options", "model_options", "message"),
  [
    ("denoising", {**DENOISING, "level": 1.2}, {}, "config.objective.level=1.2: must be a number from 0 to 1"),
    ("denoising", {**DENOISING, "level": -0.1}, {}, "config.objective.level=-0.1: must be"),
    ("denoising", {**DENOISING, "corruption": "gausian"}, {}, "did you mean 'gaussian'"),
    ("denoising", {**DENOISING, "alpha": -1.0}, {}, "config.objective.alpha=-1.0"),
    ("elbo", ELBO, {}, "needs config.model.bottleneck='gaussian'"),
    ("elbo", {**ELBO, "noise": 0.0}, {"bottleneck": "gaussian"}, "config.objective.noise=0.0: must be a positive"),
    ("elbo", {**ELBO, "beta": float("nan")}, {"bottleneck": "gaussian"}, "config.objective.beta=nan"),
    ("sparse", SPARSE, {}, "needs config.model.bottleneck='sigmoid'"),
    ("sparse", {**SPARSE, "target": 1.0}, {"bottleneck": "sigmoid"}, "config.objective.target=1.0: must be a number"),
    ("elbo", {**ELBO, "noise": 1e300}, {"bottleneck": "gaussian"}, "config.objective.noise=1e+300: must be a positive"),
    ("elbo", {**ELBO, "noise": "1"}, {"bottleneck": "gaussian"}, "config.objective.noise='1': must be a positive"),
    ("elbo", {**ELBO, "beta": 10**400}, {"bottleneck": "gaussian"}, "must be a number of at least 0"),
    ("sparse", SPARSE, {"tied": True, "activation": "sigmoid"}, "needs config.model.bottleneck='sigmoid'"),
    ("sparse", {**SPARSE, "target": "0.1"}, {"bottleneck": "sigmoid"}, "objective.target='0.1': must be"),
    ("sparse", {**SPARSE, "penalty": ["l1"]}, {}, "config.objective.penalty=['l1'] is unknown"),
    ("sparse", {**SPARSE, "penalty": "l2"}, {}, "config.objective.penalty='l2' is unknown"),
    ("contractive", {**CONTRACTIVE, "probes": -1}, {}, "config.objective.probes=-1"),
    ("contractive", {**CONTRACTIVE, "probes": True}, {}, "config.objective.probes=True"),
    ("layerwise", LAYERWISE, {"tied": True}, "needs config.model.name='dense'"),
    ("layerwise", LAYERWISE, {"decoder_widths": (3, 3)}, "decoder_widths=()"),
    ("layerwise", {**LAYERWISE, "layer": 2}, {}, "config.objective.layer=2: must be an integer from 0 to 1"),
    ("layerwise", {**LAYERWISE, "layer": 1}, {}, "needs config.model.activation='sigmoid'"),
    ("reconstruction", {"likelihood": "bernoulli", "beta": 1.0}, {}, "config.objective.beta is not an option of"),
  ],
)
def test_invalid_options_are_refused(name, options, model_options, message):
  with pytest.raises(errors.UserError) as refusal:
    objectives.build(name, dense_of(**model_options), "unit", **options)
  assert message in str(refusal.value)


def test_latent_larger_than_the_example_needs_a_regulariser():
  with pytest.raises(errors.UserError, match=r"config\.model\.latent=31: larger than the 30 elements of an example"):
    objectives.check_bottleneck("reconstruction", models.CodeSpec((31,)), SHAPE)
  objectives.check_bottleneck("reconstruction", models.CodeSpec((30,)), SHAPE)
  objectives.check_bottleneck("sparse", models.CodeSpec((31,)), SHAPE)


@pytest.mark.parametrize("options", [{}, {"tied": True, "activation": "relu"}])
def test_sparsity_kl_is_that_of_the_mean_activations_over_the_batch(options):
  model = dense_of(bottleneck="sigmoid", **options)
  variables, batch = model.init(jax.random.key(0)), batch_of(4)
  loss, (terms, _) = loss_of(
    objectives.build("sparse", model, "unit", **{**SPARSE, "weight": 2.0}), model, variables, batch
  )
  mean = np.asarray(jax.jit(model.encode)(variables, batch["x"]).z, np.float64).mean(0)
  kl = 0.05 * np.log(0.05 / mean) + 0.95 * np.log(0.95 / (1 - mean))
  np.testing.assert_allclose(terms["sparsity_kl"], kl.sum(), rtol=1e-5)
  np.testing.assert_allclose(loss, terms["nats"] + 2 * kl.sum(), rtol=1e-5)


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("denoising", {**DENOISING, "alpha": 10**30, "level": 1}),
    ("contractive", {**CONTRACTIVE, "weight": 10**30}),
    ("sparse", {**SPARSE, "penalty": "l1", "weight": 10**30}),
    ("elbo", {**ELBO, "beta": 10**30}),
  ],
)
def test_large_integers_act_as_floats(name, options):
  model = dense_of(bottleneck="gaussian" if name == "elbo" else "sigmoid")
  variables, batch = model.init(jax.random.key(0)), batch_of(4)
  results = [
    loss_of(objectives.build(name, model, "unit", **given), model, variables, batch)[0]
    for given in (options, {key: float(value) if isinstance(value, int) else value for key, value in options.items()})
    if name != "contractive" or given is options  # its probes must stay an integer
  ]
  assert np.isfinite(results).all()
  assert results[0] == results[-1] > 1e20
