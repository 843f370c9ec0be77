"""The VQ-VAE: its codebook is the k-means of the encoder's vectors, its gradient is straight-through."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of
from sklearn.cluster import KMeans

from ae_jax import api, errors, models
from ae_jax.models import vqvae

pytestmark = pytest.mark.quick_compile

GRID, LATENT, SIZE = (2, 2), 3, 5


class Frozen(nn.Module):
  """The identity: an encoder whose vectors are its input [B, 2, 2, 3], or a decoder whose logits are its input."""

  @nn.compact
  def __call__(self, x, dropout=None):
    return x


def frozen(decay=0.0, revive_below=0.0, commitment=0.25):
  module = vqvae.VQVAE(Frozen(), Frozen(), GRID, LATENT, SIZE, commitment, decay, revive_below)
  return models.Model(module, (*GRID, LATENT), False)


def vectors(count, seed=0):
  """Returns vectors around five centres, [count, 2, 2, 3]."""
  generator = np.random.default_rng(seed)
  centres = 4 * generator.normal(size=(5, LATENT))[generator.integers(0, 5, count * 4)]
  return (centres + generator.normal(size=centres.shape)).reshape(count, *GRID, LATENT).astype(np.float32)


def state_of(codebook):
  codebook = jnp.asarray(codebook, jnp.float32)
  return {"codebook": codebook, "counts": jnp.ones(SIZE), "sums": codebook, "examples": jnp.float32(1)}


def stepped(model, state, x, keys=None, weight=None):
  """Returns the state after a step on the examples, and their encoding."""
  given = {"weight": np.ones(len(x), np.float32) if weight is None else weight}
  encoding = model.encode(models.Variables({}, state), x, given, keys=keys, train=keys is not None)
  return model.update_state(state, encoding.statistics), encoding


@pytest.mark.parametrize("decay", [0.0, 0.8])
def test_codebook_of_a_frozen_encoder_converges_to_k_means(decay):
  x, model = vectors(60), frozen(decay)
  flat = x.reshape(-1, LATENT)
  start = flat[np.random.default_rng(1).permutation(len(flat))[:SIZE]]
  step, state = jax.jit(lambda state: stepped(model, state, x)[0]), state_of(start)
  for _ in range(30 if decay == 0.0 else 200):
    state = step(state)
  wanted = KMeans(SIZE, init=start, n_init=1, tol=0.0, max_iter=300).fit(flat)
  np.testing.assert_allclose(state["codebook"], wanted.cluster_centers_, atol=1e-3)
  np.testing.assert_array_equal(np.sort(np.bincount(wanted.labels_)), np.sort(np.round(state["counts"])))


def test_latents_are_the_nearest_entries_and_the_gradient_is_straight_through():
  x, model = vectors(7), frozen()
  variables = models.Variables({}, state_of(vectors(2, 1).reshape(-1, LATENT)[:SIZE]))
  codebook = np.asarray(variables.state["codebook"])
  nearest = np.square(x[..., None, :] - codebook).sum(-1).argmin(-1)
  encoding = model.encode(variables, x)
  np.testing.assert_array_equal(encoding.indices, nearest)
  np.testing.assert_allclose(encoding.z, codebook[nearest], atol=1e-5)
  np.testing.assert_array_equal(model.lookup(variables, nearest), codebook[nearest])
  np.testing.assert_array_equal(model.nearest_codes(variables, x), codebook[nearest])
  probe = np.random.default_rng(3).normal(size=x.shape).astype(np.float32)
  slope = jax.grad(lambda x: jnp.vdot(model.encode(variables, x).z, probe))(x)
  np.testing.assert_allclose(slope, probe, rtol=1e-6)


def test_commitment_gradient_matches_finite_differences():
  model, x = frozen(commitment=0.7), jnp.asarray(vectors(3), jnp.float32)
  variables = models.Variables({}, state_of(vectors(2, 1).reshape(-1, LATENT)[:SIZE]))
  penalty = lambda x: model.encode(variables, x).penalties["commitment"].sum()
  slope = jax.grad(penalty)(x)
  direction = np.random.default_rng(4).normal(size=x.shape).astype(np.float32)
  along = (penalty(x + 1e-2 * direction) - penalty(x - 1e-2 * direction)) / 2e-2
  assert float(jnp.vdot(slope, direction)) == pytest.approx(float(along), rel=1e-3)
  codes = variables.state["codebook"][model.encode(variables, x).indices]
  np.testing.assert_allclose(slope, 2 * 0.7 * (x - codes), rtol=1e-5)


def test_statistics_are_sums_over_examples_without_padding():
  x, model, keys = vectors(12), frozen(), jax.random.split(jax.random.key(0), 12)
  state = state_of(x.reshape(-1, LATENT)[:SIZE])

  def sums(rows, weight):
    given = {"weight": np.float32(weight)}
    return model.encode(models.Variables({}, state), x[rows], given, keys=keys[rows], train=True).statistics

  whole = sums(slice(None), [1] * 10 + [0] * 2)
  parts = jax.tree.map(jnp.add, sums(slice(0, 7), [1] * 7), sums(slice(7, 10), [1] * 3))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), whole, parts)
  assert float(whole["examples"]) == 10
  assert float(whole["counts"].sum()) == 10 * 4


def test_dead_entry_restarts_at_a_vector_of_the_batch():
  x, model = vectors(8), frozen(decay=0.5, revive_below=0.2)
  state = state_of(np.r_[x.reshape(-1, LATENT)[: SIZE - 1], [[100.0] * LATENT]])  # no vector is near the last entry
  for step in range(60):
    keys = jax.random.split(jax.random.key(step), 8)
    new, encoding = stepped(model, state, x, keys)
    counts = (state["counts"] + encoding.statistics["counts"]) / 2
    dead = bool(counts[-1] < 0.2 * counts.mean())
    offered = round(float(encoding.statistics["offers"][-1])) == 1
    moved = bool((np.abs(new["codebook"][-1]) < 50).all())
    assert moved == (dead and offered)
    if moved:
      break
    state = new
  assert moved
  distances = np.square(x.reshape(-1, LATENT) - np.asarray(new["codebook"][-1])).sum(1)
  assert distances.min() < 1e-6
  assert float(new["counts"][-1]) == 1.0
  np.testing.assert_array_equal(new["sums"][-1], new["codebook"][-1])


def test_no_candidates_without_keys():
  x, model = vectors(8), frozen(revive_below=0.2)
  _, encoding = stepped(model, state_of(x.reshape(-1, LATENT)[:SIZE]), x)
  assert not np.asarray(encoding.statistics["offers"]).any()


@pytest.fixture(scope="module")
def run():
  """Returns a run with random weights on images of 9 x 8."""
  config = config_of("vqvae", "digits")
  config.model.update(channels=(4, 6), latent=3, codebook_size=16)
  model = models.build(shape=(9, 8, 1), **config.model)
  return api.Run(jax.jit(model.init)(jax.random.key(0)), config, {}, [], model, 0)


def test_run_encodes_to_indices_and_decodes_them(run):
  x = np.random.default_rng(0).uniform(size=(5, 9, 8, 1)).astype(np.float32)
  indices, z = run.encode_indices(x), run.encode(x)
  assert indices.shape == (5, 2, 2)
  assert z.shape == (5, 2, 2, 3)
  assert run.model.code.bits == 4 * 4
  np.testing.assert_allclose(run.decode_indices(indices), run.decode(z), atol=1e-5)
  np.testing.assert_allclose(run.reconstruct(x), run.decode(z), atol=1e-5)
  assert run.reconstruct(x).shape == x.shape
  assert run.encode_indices(x[:0]).shape == (0, 2, 2)


@pytest.mark.parametrize(
  ("indices", "message"),
  [
    (np.zeros((2, 3, 2), int), r"must be integers of shape \[N, 2, 2\]"),
    (np.zeros((2, 2, 2)), "must be integers of shape"),
    (np.full((1, 2, 2), 16), "from 16 to 16; must be from 0 to 15"),
  ],
)
def test_invalid_indices_are_refused(run, indices, message):
  with pytest.raises(errors.UserError, match=message):
    run.decode_indices(indices)


@pytest.mark.parametrize("name", ["encode_indices", "decode_indices"])
def test_real_latent_code_has_no_indices(name):
  config = config_of("dense", "digits")
  fake_run = api.Run(models.Variables({}), config, {}, [], models.build(shape=(8, 8, 1), **config.model), 0)
  with pytest.raises(errors.UserError, match="continuous, not discrete"):
    getattr(fake_run, name)(np.zeros((1, 3)))


@pytest.mark.parametrize(
  ("option", "value", "message"),
  [
    ("codebook_size", 1, "codebook_size=1: must be an integer from 2"),
    ("decay", 1.0, "decay=1.0: must be"),
    ("revive_below", -0.1, "revive_below"),
    ("commitment", -1.0, "commitment"),
    ("channels", (4, 4, 4, 4), "stages"),
  ],
)
def test_invalid_options_are_refused(option, value, message):
  config = config_of("vqvae", "digits")
  with pytest.raises(errors.UserError, match=message):
    models.build(shape=(8, 8, 1), **{**config.model, option: value})
