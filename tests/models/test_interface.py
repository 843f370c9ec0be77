"""User-defined modules: training and evaluation use the projection and the prior that a module declares."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ae_jax import models, objectives
from ae_jax.evaluators import posterior
from ae_jax.models import dense
from ae_jax.objectives import bounds
from ae_jax.ops import losses
from ae_jax.system import distributed
from ae_jax.training import programs, steps
from ae_jax.training.state import init_state

SHAPE = (3, 2, 1)
OPTIONS = {"latent": 4, "widths": (6,), "decoder_widths": (), "activation": "tanh", "tied": False}


class UnitNorm(dense.Stack):
  """A dense autoencoder whose output kernel has unit norm for each hidden unit."""

  @property
  def has_projection(self):
    return True

  def project(self, params):
    kernel = params["decoder"]["logits"]["kernel"]
    unit = kernel / jnp.linalg.norm(kernel, axis=1, keepdims=True)
    logits = {**params["decoder"]["logits"], "kernel": unit}
    return {**params, "decoder": {**params["decoder"], "logits": logits}}


class Shifted(models.AutoencoderModule):
  """A linear Gaussian model: posterior N(x, 1), decoder z, and the prior N(3, 1) instead of N(0, 1)."""

  @property
  def code_spec(self):
    return models.CodeSpec((6,))

  @property
  def has_posterior(self):
    return True

  def encode(self, x, batch=None, dropout=None):
    mean = losses.flat(x)
    return models.Encoding(mean, models.Gaussian(mean, jnp.zeros_like(mean)))

  def decode(self, z, batch=None, dropout=None):
    return z.reshape(-1, *SHAPE)

  def log_prior(self, z):
    return super().log_prior(z - 3.0)

  def sample_prior(self, key, count):
    return 3.0 + super().sample_prior(key, count)

  def kl_to_prior(self, posterior, z):
    return losses.gaussian_kl(posterior.mean - 3.0, posterior.log_variance)


def unit_norm_model(**options):
  """Returns the model of `UnitNorm`."""
  module = dense.build(SHAPE, bottleneck="identity", **OPTIONS)
  fields = {f.name: getattr(module, f.name) for f in dataclasses.fields(module) if f.name not in ("parent", "name")}
  return models.Model(UnitNorm(**fields), SHAPE, False, **options)


@functools.cache
def stepped(devices, kind):
  """Returns the state after two steps on a number of devices."""
  model, mesh = unit_norm_model(), distributed.mesh(jax.devices()[:devices])
  static = {"model": model, "optimizer": optax.with_extra_args_support(optax.sgd(0.1))}
  replicated, split = distributed.replicated(mesh), distributed.sharded(mesh, axis=1)
  key = distributed.put(jax.random.key(0), replicated)
  init = functools.partial(init_state, **static)
  shardings = distributed.state_shardings(mesh, jax.eval_shape(init, key), kind)
  state = distributed.auto(init, (key,), shardings)(key)
  data = distributed.put({"x": np.random.default_rng(0).uniform(size=(8, 6)).astype(np.float32)}, replicated)
  batches = [np.arange(8, dtype=np.int32).reshape(2, 4), np.ones((2, 4), np.float32)]
  arguments = (state, data, *(distributed.put(array, split) for array in batches), key)
  static["objective"] = objectives.build("reconstruction", model, "unit", likelihood="bernoulli")
  static["data_parallel"] = distributed.build_data_parallel(mesh, state.params, kind)
  results = (shardings, replicated, replicated)
  return programs.compile_program(steps.train_chunk, arguments, results, value_range="unit", microbatches=1, **static)(
    *arguments
  )[0]


@pytest.mark.quick_compile
@pytest.mark.runs_optax
@pytest.mark.parametrize(("devices", "kind"), [(1, "replicated"), (2, "replicated"), (2, "sharded")])
def test_projection_follows_each_update_on_any_number_of_devices(devices, kind):
  state = stepped(devices, kind)
  kernel = np.asarray(state.params["decoder"]["logits"]["kernel"])
  np.testing.assert_allclose(np.linalg.norm(kernel, axis=1), 1.0, rtol=1e-5)
  single = stepped(1, "replicated")
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state.params, single.params)


def test_objective_metrics_likelihood_and_samples_use_the_prior_of_the_model():
  model, variables = models.Model(Shifted(), SHAPE, False), models.Variables({})
  x = jnp.full((5, *SHAPE), 3.0)  # the posterior mean equals the prior mean
  keys = jax.random.split(jax.random.key(0), 5)
  batch = {"x": x, "weight": jnp.ones(5)}
  elbo = objectives.build("elbo", model, "real", likelihood="gaussian", noise=1.0, beta=1.0, free_bits=0.0)
  _, aux = elbo(model, variables, batch, keys)
  assert float(aux.terms["kl"]) == 0.0
  assert float(elbo(model, variables, {**batch, "x": x + 1}, keys)[1].terms["kl"]) == pytest.approx(6 * 0.5)
  metrics = posterior.per_example(model, variables, {**batch, "x": x + 1}, keys, "real", None)
  np.testing.assert_allclose(metrics["posterior_kl"], 0.5, rtol=1e-6)
  samples = np.asarray(model.sample_prior(variables, jax.random.key(1), 4000))
  np.testing.assert_allclose(samples.mean(0), 3.0, atol=0.1)
  log_weights = functools.partial(bounds.log_weights, model, samples=64)
  weights = log_weights(variables, x, {}, keys, log_likelihood=lambda logits, x: jnp.zeros(len(x)))
  np.testing.assert_allclose(weights, 0.0, atol=1e-4)  # p(z) / q(z | x) = 1 for every sample
