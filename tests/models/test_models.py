import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CONFIGS, config_of

from ae_jax import errors, models, objectives
from ae_jax.models import activations

pytestmark = pytest.mark.quick_compile

FAMILIES = {
  "dense": {"widths": (32,)},
  "vae": {"widths": (32,)},
  "cnn": {"channels": (4, 6), "decoder_kernels": (3, 3)},
  "unet": {"channels": (4, 6)},
  "attention": {"patch": 4, "width": 16, "hidden": 24, "heads": 2},
  "sequence": {},
}


def build(name, compute_dtype):
  config = config_of(name)
  shape = (40, 1) if name == "sequence" else (8, 8, 1)
  return models.build(shape=shape, compute_dtype=compute_dtype, **{**config.model, **FAMILIES[name]}), config


@pytest.mark.runs_optax  # Flax's RMSNorm promotes types
@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=pytest.mark.slow if name in ("unet", "sequence") else ()) for name in FAMILIES]
)
def test_bfloat16_changes_the_arithmetic_but_no_stored_dtype(name):
  """Parameters, latents, logits, loss and gradient are float32, and close to those of float32 arithmetic."""
  results = []
  for compute_dtype in ("float32", "bfloat16"):
    model, config = build(name, compute_dtype)
    likelihood = {"likelihood": config.objective.likelihood}
    options = (
      {"name": "elbo", "beta": 1.0, "free_bits": 0.0, "noise": 1.0} if name == "vae" else {"name": "reconstruction"}
    )
    objective = objectives.build(model=model, value_range=config.data.range, **options, **likelihood)
    if compute_dtype == "float32":
      initial = jax.jit(model.init)(jax.random.key(0))
    variables = jax.eval_shape(model.init, jax.random.key(0))
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(16, *model.shape)), jnp.float32)
    batch = {"x": x, "weight": jnp.ones(16)}
    step = jax.jit(jax.value_and_grad(lambda *a, m=model, o=objective: o(m, *a), has_aux=True))
    (loss, aux), gradient = step(initial, batch, jax.random.split(jax.random.key(1), 16))
    z = jax.eval_shape(model.encode, variables, x).z
    for leaf in jax.tree.leaves((variables, loss, aux, gradient, z, jax.eval_shape(model.decode, variables, z))):
      assert leaf.dtype == jnp.float32
    program = jax.jit(model.reconstruct).lower(variables, x).as_text()
    assert ("bf16" in program) == (compute_dtype == "bfloat16")
    flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])
    results.append((float(loss), flat))
  (exact, slope), (rounded, rounded_slope) = results
  assert 0 < abs(rounded - exact) < 0.01 * exact
  assert np.linalg.norm(rounded_slope - slope) < 0.1 * np.linalg.norm(slope)


def test_prior_is_computed_in_float32_for_any_compute_dtype():
  exact, rounded = (build("vae", compute_dtype)[0] for compute_dtype in ("float32", "bfloat16"))
  variables = jax.jit(exact.init)(jax.random.key(0))
  z, mean, log_variance = jax.random.normal(jax.random.key(1), (3, 5, exact.code.size))
  posterior = models.Gaussian(mean, log_variance)
  for call in (lambda m: m.kl_to_prior(variables, posterior, z), lambda m: m.log_prior(variables, z)):
    np.testing.assert_array_equal(call(rounded), call(exact))


DIGITS, SERIES = (8, 8, 1), (40, 2)
INITIALISED_MODELS = {
  "dense tied": (DIGITS, {"widths": (32,), "tied": True}),
  "cnn": (DIGITS, {"channels": (8, 16), "latent": 6}),
  "cnn tied": (DIGITS, {"channels": (8, 16), "latent": 6, "decoder": "tied"}),
  "attention": (
    DIGITS,
    {"patch": 2, "width": 16, "hidden": 24, "heads": 2, "queries": 7, "memory": 7, "decoder_depth": 1},
  ),
  "sequence recurrent": (SERIES, {"cell": "recurrent", "widths": (16,), "strides": (4,), "attention_width": 25}),
  "sequence convolutional": (
    SERIES,
    {"cell": "convolutional", "widths": (12, 16), "strides": (2, 2), "attention_width": 25},
  ),
}
DEVIATIONS = {  # initial standard deviation of the parameters that are neither kernels, biases nor scales
  "encoder/positions": 0.02,
  "decoder/positions": 1.0,
  "encoder/queries": 1.0,
  "encoder/body/place": 1.0,
  "encoder/score": 25**-0.5,
}


def check_first_values(path, leaf):
  """Asserts that a parameter has its layer's initialisation: kernels with variance 1 / fan-in (LeCun et al. 1998)."""
  name, rows, spread = path.split("/")[-1], leaf.shape[-2:], 5 * np.sqrt(2 / leaf.size)
  if name.startswith("recurrent_") and leaf.ndim == 2:
    np.testing.assert_allclose(leaf @ leaf.T, np.eye(rows[0]), atol=1e-5)
  elif "bias" in name:
    assert (leaf == 0).all(), path
  elif name == "scale":
    assert (leaf == 1).all(), path
  elif "kernel" in name:
    fan_in = rows[0] if "blocks" in path else np.prod(leaf.shape[:-1])
    assert np.square(leaf).mean() * fan_in == pytest.approx(1, abs=spread), path
  else:
    assert np.square(leaf / DEVIATIONS[path]).mean() == pytest.approx(1, abs=spread), path


@pytest.mark.runs_optax
@pytest.mark.parametrize("case", INITIALISED_MODELS)
def test_initial_parameters_have_the_variance_of_their_layer_and_depend_on_the_key(case):
  shape, options = INITIALISED_MODELS[case]
  model = models.build(shape=shape, **{**config_of(case.split()[0]).model, **options})
  init = jax.jit(model.init)
  keys = (jax.random.key(seed, impl="unsafe_rbg") for seed in (0, 1))  # compiles fastest
  params, other_params = (init(key).params for key in keys)
  leaves, others = jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(other_params)
  for (entries, leaf), other in zip(leaves, others, strict=True):
    path = "/".join(entry.key for entry in entries)
    check_first_values(path, np.asarray(leaf))
    assert (leaf != other).any() or (leaf.ndim < 3 and (leaf == leaf.ravel()[0]).all()), path


def test_unknown_compute_dtype_is_refused():
  with pytest.raises(errors.UserError, match=r"config\.compute_dtype='bfloat'.*did you mean 'bfloat16'"):
    build("dense", "bfloat")


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_model_is_equal_after_pickle(file):
  """Equality includes the hash, so that both share compiled functions."""
  shape = {"sequence": (64, 1), "table": (30,)}.get(file.stem, (28, 28, 1))
  model = models.build(shape=shape, **config_of(file.stem).model)
  restored = pickle.loads(pickle.dumps(model))
  assert (restored, hash(restored)) == (model, hash(model))


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_activation_survives_pickle_and_equals_jax_nn(name):
  function = activations.choose(name, "activation")
  assert pickle.loads(pickle.dumps(function)) is function
  x = jnp.linspace(-3, 3, 13)
  np.testing.assert_array_equal(function(x), getattr(jax.nn, name)(x))
