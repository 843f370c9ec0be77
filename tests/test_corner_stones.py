"""Known answers: properties of autoencoders that theory predicts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.stats
from jax.flatten_util import ravel_pytree
from sklearn.decomposition import PCA

from ae_jax import models, objectives
from ae_jax.data import ranges
from ae_jax.objectives import corruptions
from ae_jax.ops import losses

pytestmark = [pytest.mark.quick_compile, pytest.mark.usefixtures("double_precision")]

SHAPE, LATENT = (3, 4, 1), 3
X = np.random.default_rng(0).normal(size=(60, 12)) * np.linspace(2.0, 0.3, 12) @ scipy.linalg.orth(
  np.random.default_rng(1).normal(size=(12, 12))
) + np.linspace(-1, 1, 12)
PCA_ = PCA(LATENT, svd_solver="full").fit(X)
PCA_ERROR = np.square(X - PCA_.inverse_transform(PCA_.transform(X))).sum(1).mean()


def dense(**options):
  """A dense model with identity activations, unless other options are given."""
  defaults = {"latent": LATENT, "widths": (), "decoder_widths": (), "activation": "identity", "bottleneck": "identity"}
  return models.build("dense", SHAPE, **{**defaults, "tied": False, **options})


def doubles(tree):
  return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


def start(model, seed=0):
  """Variables in double precision."""
  return doubles(jax.jit(model.init)(jax.random.key(seed)))


def batch_of(x, shape=SHAPE):
  return {"x": jnp.asarray(x.reshape(-1, *shape)), "weight": jnp.ones(len(x), jnp.float64)}


def keys_for(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


def minimise(objective, model, variables, batch, keys):
  """The variables at the end of L-BFGS, and their loss."""
  flat, unflatten = ravel_pytree(variables)
  value = jax.jit(jax.value_and_grad(lambda v: objective(model, unflatten(v), batch, keys)[0]))
  options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-16, "gtol": 1e-11, "maxcor": 30}
  result = scipy.optimize.minimize(
    lambda v: tuple(map(np.asarray, value(v))), flat, jac=True, method="L-BFGS-B", options=options
  )
  return unflatten(jnp.asarray(result.x)), float(result.fun)


@functools.cache
def trained_linear(tied, widths=()):
  """A linear autoencoder at its optimum: (variables, loss, model)."""
  model = dense(tied=tied, widths=widths)
  objective = objectives.build("reconstruction", model, "real", likelihood="gaussian")
  return *minimise(objective, model, start(model, 3), batch_of(X), keys_for(60)), model


@pytest.mark.parametrize("tied", [False, True])
def test_linear_autoencoder_is_pca(tied):
  variables, loss, model = trained_linear(tied)
  assert abs(loss / PCA_ERROR - 1) < 1e-10
  decoded = np.asarray(model.decode(variables, jnp.eye(LATENT + 1, LATENT, dtype=jnp.float64))).reshape(-1, 12)
  directions = (decoded[:-1] - decoded[-1]).T  # columns: the effect of each latent unit
  assert scipy.linalg.subspace_angles(directions, PCA_.components_.T).max() < 1e-5


def test_linear_latents_are_a_linear_map_of_the_principal_components():
  variables, _, model = trained_linear(False)
  z, components = np.asarray(model.encode(variables, batch_of(X)["x"]).z), PCA_.transform(X)
  correlation = np.abs(np.corrcoef(z.T, components.T)[:LATENT, LATENT:])
  assert correlation.max(1).min() < 0.99  # no matching of units to components ...
  mixed = np.linalg.lstsq(np.c_[z, np.ones(60)], components, rcond=None)[0]
  np.testing.assert_allclose(np.c_[z, np.ones(60)] @ mixed, components, atol=1e-4)  # ... but a linear map of them


def test_tied_linear_encoder_is_orthonormal():
  """W^T W restricted to the subspace is the identity: tied weights leave a rotation, no scaling."""
  variables, _, _ = trained_linear(True)
  kernel = np.asarray(variables.params["kernel_0"])
  np.testing.assert_allclose(kernel.T @ kernel, np.eye(LATENT), atol=1e-4)


def test_stacked_linear_layers_are_one_linear_map():
  variables, loss, model = trained_linear(False, (7, 5))
  assert abs(loss / PCA_ERROR - 1) < 1e-6
  encode = lambda x: model.encode(variables, x).z
  a, b = (jnp.asarray(np.random.default_rng(seed).normal(size=(4, *SHAPE))) for seed in (1, 2))
  np.testing.assert_allclose(encode(a + b) + encode(0 * a), encode(a) + encode(b), atol=1e-9)


@pytest.mark.parametrize("tied", [False, True])
def test_rank_of_affine_decoder_logits_is_at_most_latent_plus_one(tied):
  model = dense(widths=(9,), tied=tied)
  z = jnp.asarray(np.random.default_rng(0).normal(size=(30, LATENT)))
  logits = np.asarray(model.decode(start(model), z)).reshape(30, 12)
  assert np.linalg.matrix_rank(logits) <= LATENT + 1
  assert np.linalg.matrix_rank(np.tanh(logits)) > LATENT + 1


def planted_ppca(noise, beta=1.0):
  """A linear VAE at the optimum of probabilistic PCA (Tipping & Bishop 1999; Lucas et al. 2019)."""
  model = dense(bottleneck="gaussian")
  spectrum = PCA_.explained_variance_ * 59 / 60  # of the maximum-likelihood covariance
  w = PCA_.components_.T * np.sqrt(spectrum - beta * noise**2)  # [12, LATENT]
  m = spectrum  # w^T w + beta noise^2, diagonal
  log_variance = np.log(beta * noise**2 / m)
  kernel = np.c_[w / m, np.zeros((12, LATENT))]
  code = {"kernel": kernel, "bias": np.r_[-PCA_.mean_ @ w / m, log_variance]}
  params = {"encoder": {"code": code}, "decoder": {"logits": {"kernel": w.T, "bias": PCA_.mean_}}}
  return model, doubles(models.Variables(params))


def elbo_of(model, noise, beta=1.0):
  return objectives.build("elbo", model, "real", likelihood="gaussian", noise=noise, beta=beta, free_bits=0.0)


def test_linear_vae_reaches_the_likelihood_of_probabilistic_pca():
  spectrum = np.linalg.eigvalsh(np.cov(X.T, bias=True))[::-1]
  noise = np.sqrt(spectrum[LATENT:].mean())
  model, variables = planted_ppca(noise)
  w = np.asarray(variables.params["decoder"]["logits"]["kernel"])
  covariance = w.T @ w + noise**2 * np.eye(12)
  likelihood = scipy.stats.multivariate_normal(PCA_.mean_, covariance).logpdf(X).mean()
  objective, batch = elbo_of(model, noise), batch_of(X)
  value = jax.jit(jax.vmap(jax.value_and_grad(lambda p, k: objective(model, p, batch, k)[0]), (None, 0)))
  draws, gradients = value(variables, jax.vmap(lambda key: jax.random.split(key, 60))(keys_for(3000)))
  error = draws.std() / np.sqrt(3000)
  assert error < 5e-3
  assert abs(-draws.mean() - likelihood) < 3 * error
  for gradient in jax.tree.leaves(gradients):  # the mean gradient vanishes at the optimum
    deviation = np.abs(gradient.mean(0)) / (gradient.std(0) / np.sqrt(3000) + 1e-9)
    assert deviation.max() < 5


def test_vae_approaches_the_autoencoder_as_beta_vanishes():
  errors_ = []
  for beta in (1.0, 0.1, 0.01, 1e-3, 1e-5):
    model, variables = planted_ppca(0.3, beta)
    objective = elbo_of(model, 0.3, beta)
    loss = jax.jit(lambda k, o=objective, m=model, p=variables: o(m, p, batch_of(X), k)[1].terms["nats"])
    nats = np.mean([loss(keys_for(60, seed)) for seed in range(30)])
    errors_.append((nats - 12 * np.log(0.3 * np.sqrt(2 * np.pi))) * 2 * 0.3**2)
  assert (np.diff(errors_) < 0).all()
  assert errors_[-1] == pytest.approx(PCA_ERROR, rel=1e-3)


def test_vae_without_noise_and_beta_equals_the_autoencoder():
  model, plain = dense(bottleneck="gaussian", widths=(5,), activation="tanh"), dense(widths=(5,), activation="tanh")
  variables = start(model)
  variables.params["encoder"]["code"]["bias"] = variables.params["encoder"]["code"]["bias"].at[LATENT:].set(-80.0)
  params = {**variables.params, "encoder": {**variables.params["encoder"]}}
  params["encoder"]["code"] = jax.tree.map(lambda a: a[..., :LATENT], variables.params["encoder"]["code"])
  batch, keys = batch_of(1 / (1 + np.exp(-X))), keys_for(60)
  vae = objectives.build("elbo", model, "unit", likelihood="bernoulli", noise=1.0, beta=0.0, free_bits=0.0)
  auto = objectives.build("reconstruction", plain, "unit", likelihood="bernoulli")
  a, a_gradient = jax.jit(jax.value_and_grad(lambda p: vae(model, p, batch, keys)[0]))(variables)
  b, b_gradient = jax.jit(jax.value_and_grad(lambda p: auto(plain, p, batch, keys)[0]))(models.Variables(params))
  np.testing.assert_allclose(a, b, rtol=1e-12)
  encoder = a_gradient.params["encoder"]
  encoder["code"] = jax.tree.map(lambda g: g[..., :LATENT], encoder["code"])
  jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, atol=1e-12), a_gradient, b_gradient)


def test_linear_denoising_autoencoder_is_ridge_regression():
  """Least squares on the same draws; for many draws S (S + sigma^2)^-1, the shrinkage of ridge (Bishop 1995)."""
  x = (X - X.mean(0))[:, :5]
  times, sigma = 2000, 0.8
  shape = (5, 1, 1)
  model = models.build(
    "dense", shape, latent=5, widths=(), decoder_widths=(), activation="identity", bottleneck="identity", tied=False
  )
  options = {"likelihood": "gaussian", "corruption": "gaussian", "level": sigma, "alpha": 1.0, "beta": 1.0}
  objective = objectives.build("denoising", model, "real", **options)
  repeated = np.tile(x, (times, 1))
  batch, keys = batch_of(repeated, shape), keys_for(len(repeated))
  variables, _ = minimise(objective, model, start(model), batch, keys)
  noisy = np.asarray(corruptions.corrupt("gaussian", keys, batch["x"], sigma, ranges.SPANS["real"])[0]).reshape(-1, 5)
  exact = np.linalg.lstsq(np.c_[noisy, np.ones(len(noisy))], repeated, rcond=None)[0]
  basis = jnp.asarray(np.r_[np.zeros((1, 5)), np.eye(5)].reshape(-1, *shape))
  rows = np.asarray(model.reconstruct(variables, basis)).reshape(-1, 5)
  np.testing.assert_allclose(rows[1:] - rows[0], exact[:-1], atol=1e-5)
  covariance = x.T @ x / 60
  np.testing.assert_allclose(exact[:-1], np.linalg.solve(covariance + sigma**2 * np.eye(5), covariance), atol=0.02)


def encoder_of(**options):
  model = dense(**{"widths": (6,), "activation": "tanh", **options})
  variables = start(model, 1)
  return lambda x: model.encode(variables, x).z


@pytest.mark.parametrize("latent", [3, 20])  # by backward passes, and by forward passes
def test_contractive_term_is_the_norm_of_the_jacobian(latent):
  encode, x = encoder_of(latent=latent), batch_of(X[:5])["x"]
  jacobian = jax.jit(jax.vmap(jax.jacfwd(lambda one: encode(one[None])[0])))(x)  # [5, latent, 3, 4, 1]
  norm = jax.jit(functools.partial(losses.jacobian_norm, encode))(x)
  np.testing.assert_allclose(norm, jnp.square(jacobian).sum((1, 2, 3, 4)), rtol=1e-12)


def test_contractive_term_of_one_sigmoid_layer_matches_its_closed_form():
  """sum_j (h_j (1 - h_j))^2 |W_j|^2 (Rifai et al. 2011, section 3)."""
  model = dense(bottleneck="sigmoid")
  variables, x = start(model), batch_of(X)["x"]
  h = np.asarray(model.encode(variables, x).z)
  closed = np.square(h * (1 - h)) @ np.square(np.asarray(variables.params["encoder"]["code"]["kernel"])).sum(0)
  np.testing.assert_allclose(losses.jacobian_norm(lambda x: model.encode(variables, x).z, x), closed, rtol=1e-12)


@pytest.mark.parametrize("probes", [1, 4])
def test_estimate_of_the_jacobian_norm_is_unbiased(probes):
  encode, x = encoder_of(), batch_of(X[:4])["x"]
  estimate = jax.jit(jax.vmap(lambda keys: losses.jacobian_norm_estimate(encode, x, keys, probes)))
  draws = np.asarray(estimate(jax.random.split(jax.random.key(0), (4000, 4))))
  error = draws.std(0) / np.sqrt(4000)
  assert (error > 0).all()
  assert (np.abs(draws.mean(0) - losses.jacobian_norm(encode, x)) < 3 * error).all()
  assert (np.abs(draws.mean(0) / losses.jacobian_norm(encode, x) - 1) < 0.05).all()


def test_gradient_of_tied_weights_is_the_sum_of_both_paths():
  options = {"widths": (6,), "activation": "tanh"}
  tied, plain = dense(tied=True, **options), dense(**options)
  variables = start(tied)
  params = variables.params
  first, second = params["kernel_0"], params["kernel_1"]

  def layer(kernel, bias):
    return {"kernel": kernel, "bias": bias}

  untied = {
    "encoder": {"hidden_0": layer(first, params["bias_0"]), "code": layer(second, params["bias_1"])},
    "decoder": {
      "hidden_0": layer(second.T, params["decoder_bias_1"]),
      "logits": layer(first.T, params["decoder_bias_0"]),
    },
  }
  batch, keys = batch_of(X), keys_for(60)

  def gradient(model, variables):
    objective = objectives.build("reconstruction", model, "real", likelihood="gaussian")
    return jax.jit(jax.value_and_grad(lambda p: objective(model, p, batch, keys)[0]))(variables)

  (a, (shared, _)), (b, (apart, _)) = gradient(tied, variables), gradient(plain, models.Variables(untied))
  np.testing.assert_allclose(a, b, rtol=1e-12)
  both = apart["encoder"]["hidden_0"]["kernel"] + apart["decoder"]["logits"]["kernel"].T
  np.testing.assert_allclose(shared["kernel_0"], both, rtol=1e-10)
  both = apart["encoder"]["code"]["kernel"] + apart["decoder"]["hidden_0"]["kernel"].T
  np.testing.assert_allclose(shared["kernel_1"], both, rtol=1e-10)


CASES = {  # objective: (options, model options, factors of the terms when the image doubles)
  "reconstruction": ({}, {}, {"nats": 2}),
  "denoising": ({"corruption": "masking", "level": 0.0, "alpha": 1.0, "beta": 0.7}, {}, {"nats": 2}),
  "l1": ({"penalty": "l1", "weight": 0.3, "target": 0.1}, {}, {"nats": 2, "l1": 1}),
  "kl": ({"penalty": "kl", "weight": 0.3, "target": 0.1}, {"bottleneck": "sigmoid"}, {"nats": 2, "sparsity_kl": 1}),
  "contractive": ({"weight": 0.3, "probes": 0}, {}, {"nats": 2, "jacobian": 0.5}),
  "elbo": ({"noise": 1.0, "beta": 1.0, "free_bits": 0.1}, {"bottleneck": "gaussian"}, {"nats": 2, "kl": 1}),
}
_OBJECTIVE = {"l1": "sparse", "kl": "sparse"}


def case(name, shape):
  options, model_options, factors = CASES[name]
  plain = {"latent": LATENT, "widths": (5,), "decoder_widths": (), "activation": "tanh", "bottleneck": "identity"}
  model = models.build("dense", shape, **{**plain, "tied": False, **model_options})
  objective = objectives.build(_OBJECTIVE.get(name, name), model, "unit", likelihood="bernoulli", **options)
  return model, objective, factors


@pytest.mark.parametrize("name", CASES)
def test_duplicated_batch_changes_no_objective(name):
  model, objective, _ = case(name, SHAPE)
  variables, batch, keys = start(model), batch_of(1 / (1 + np.exp(-X))), keys_for(60)
  twice = jax.tree.map(lambda rows: jnp.concatenate([rows, rows]), batch)
  value = jax.jit(jax.value_and_grad(lambda p, b, k: objective(model, p, b, k)[0]))
  once, doubled = value(variables, batch, keys), value(variables, twice, jnp.concatenate([keys, keys]))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), once, doubled)


@pytest.mark.parametrize("name", CASES)
def test_reconstruction_terms_scale_with_the_image_size_alone(name):
  """Each image twice side by side, with halved first weights: the same latents and twice the pixels."""
  model, objective, factors = case(name, SHAPE)
  large, large_objective, _ = case(name, (6, 4, 1))
  variables = start(model)
  first, last = variables.params["encoder"]["hidden_0"], variables.params["decoder"]["logits"]
  wide = {
    "encoder": {**variables.params["encoder"], "hidden_0": {**first, "kernel": jnp.tile(first["kernel"], (2, 1)) / 2}},
    "decoder": {
      **variables.params["decoder"],
      "logits": {"kernel": jnp.tile(last["kernel"], (1, 2)), "bias": jnp.tile(last["bias"], 2)},
    },
  }
  x, keys = 1 / (1 + np.exp(-X)), keys_for(60)
  _, (terms, _) = jax.jit(functools.partial(objective, model))(variables, batch_of(x), keys)
  batch = batch_of(np.tile(x, (1, 2)), (6, 4, 1))
  _, (doubled, _) = jax.jit(functools.partial(large_objective, large))(models.Variables(wide), batch, keys)
  assert terms.keys() == factors.keys()
  for term, factor in factors.items():
    np.testing.assert_allclose(doubled[term], factor * terms[term], rtol=1e-9)
