import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from skimage import metrics

from ae_jax.ops import losses

pytestmark = pytest.mark.quick_compile

LOGITS = np.linspace(-30, 30, 241, dtype=np.float32)
TARGETS = np.random.default_rng(0).uniform(size=241).astype(np.float32)


def test_cross_entropy_matches_its_definition_in_double_precision():
  logits, x = LOGITS.astype(np.float64), TARGETS.astype(np.float64)
  exact = x * np.logaddexp(0, -logits) + (1 - x) * np.logaddexp(0, logits)
  np.testing.assert_allclose(
    losses.binary_cross_entropy_with_logits(LOGITS, TARGETS), exact, rtol=1e-6, atol=4e-6
  )  # 30 in float32


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("argument", [0, 1])
def test_cross_entropy_and_its_derivatives_match_optax(order, argument):
  ours, theirs = losses.binary_cross_entropy_with_logits, optax.sigmoid_binary_cross_entropy
  for _ in range(order):
    ours, theirs = jax.grad(ours, argument), jax.grad(theirs, argument)
  np.testing.assert_allclose(jax.vmap(ours)(LOGITS, TARGETS), jax.vmap(theirs)(LOGITS, TARGETS), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("logit", [-1e30, -90.0, 0.0, 90.0, 1e30])
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_cross_entropy_is_finite_at_extreme_logits(logit, target):
  value, slope = jax.value_and_grad(losses.binary_cross_entropy_with_logits)(logit, target)
  assert np.isfinite([value, slope]).all()
  assert -1 <= slope <= 1


def test_entropy_is_the_minimum_of_the_cross_entropy(images):
  x = images.astype(np.float32) / np.float32(255)
  interior = np.clip(x, 1e-6, 1 - 1e-6)
  minimum = losses.bernoulli_nats(jnp.log(interior) - jnp.log1p(-interior), x)
  np.testing.assert_allclose(losses.bernoulli_entropy(x), minimum, rtol=1e-4)
  assert (losses.bernoulli_nats(jnp.zeros(x.shape), x) > minimum).all()


def test_entropy_of_binary_data_is_zero():
  assert losses.bernoulli_entropy(jnp.asarray([[0.0, 1.0, 1.0]])) == 0


def test_losses_sum_over_the_elements_of_each_example(images):
  x = images.astype(np.float32) / np.float32(255)
  logits = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
  for loss in (losses.bernoulli_nats, losses.squared_error):
    one_by_one = [sum(float(loss(a.reshape(1, 1), b.reshape(1, 1))[0]) for a, b in zip(u.flat, v.flat, strict=True))
                  for u, v in zip(logits, x, strict=True)]  # fmt: skip
    np.testing.assert_allclose(loss(logits, x), one_by_one, rtol=1e-5)


def test_sum_over_elements_does_not_depend_on_batch_last():
  rng = np.random.default_rng(0)
  a, b, c = (jnp.asarray(rng.normal(size=(5, 3, 4, 2)), jnp.float32) for _ in range(3))
  term = lambda a, b, c: jnp.square(a - b) * c
  wanted = term(a, b, c).sum((1, 2, 3))
  for batch_last in (False, True):
    np.testing.assert_allclose(losses.sum_over_elements(term, a, b, c, batch_last=batch_last), wanted, rtol=1e-5)


def test_gaussian_kl_matches_monte_carlo_and_is_zero_at_the_prior():
  mean, log_variance = jnp.float32([0.7, -1.0, 0.0]), jnp.float32([0.5, -1.5, 0.0])
  kl = losses.gaussian_kl(mean, log_variance)
  deviation = np.exp(0.5 * np.asarray(log_variance, np.float64))
  z = np.asarray(mean, np.float64) + deviation * np.random.default_rng(0).normal(size=(200_000, 3))
  ratio = -0.5 * ((z - np.asarray(mean)) / deviation) ** 2 - np.log(deviation) + 0.5 * z**2
  assert (np.abs(ratio.mean(0) - kl) <= 4 * ratio.std(0) / np.sqrt(200_000) + 1e-7).all()
  assert kl[2] == 0


def test_bernoulli_kl_matches_its_definition_and_is_finite_at_zero_and_one():
  rho_hat = jnp.float32([0.0, 0.01, 0.05, 0.5, 1.0])
  kl = losses.bernoulli_kl(0.05, rho_hat)
  inside = np.float64([0.01, 0.5])
  exact = 0.05 * np.log(0.05 / inside) + 0.95 * np.log(0.95 / (1 - inside))
  np.testing.assert_allclose(kl[jnp.asarray([1, 3])], exact, rtol=1e-4)
  assert abs(float(kl[2])) < 1e-6
  assert np.isfinite(kl).all()
  assert np.isfinite(jax.grad(lambda r: losses.bernoulli_kl(0.05, r).sum())(rho_hat)).all()


def ssim_by_scikit_image(x_hat, x, peak):
  """Returns scikit-image's SSIM of each image, with the window of Wang et al. (2004)."""
  settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": peak}
  return [metrics.structural_similarity(*pair, channel_axis=-1, **settings) for pair in zip(x_hat, x, strict=True)]


@pytest.mark.parametrize("shape", [(28, 28, 1), (11, 11, 1), (12, 30, 3)])
@pytest.mark.parametrize("peak", [1.0, 2.0])
def test_ssim_matches_scikit_image(shape, peak):
  rng = np.random.default_rng(0)
  x = peak * rng.uniform(size=(4, *shape)).astype(np.float32)
  noise = rng.normal(size=x.shape).astype(np.float32)
  for level in (0.02, 0.2, 1.0):
    x_hat = np.clip(x + np.float32(level * peak) * noise, 0, peak)
    ssim = losses.structural_similarity(x_hat, x, peak)
    np.testing.assert_allclose(ssim, ssim_by_scikit_image(x_hat, x, peak), atol=2e-6)


def test_ssim_of_constant_images_is_the_luminance_term():
  x, x_hat = (np.full((1, 16, 14, 1), value, np.float32) for value in (0.3, 0.7))
  luminance = (2 * 0.3 * 0.7 + 1e-4) / (0.3**2 + 0.7**2 + 1e-4)
  assert losses.structural_similarity(x_hat, x, 1.0)[0] == pytest.approx(luminance, abs=1e-6)
  assert ssim_by_scikit_image(*np.float64([x_hat, x]), 1.0)[0] == pytest.approx(luminance, abs=1e-6)


def test_ssim_is_symmetric_and_one_for_the_same_image():
  x, y = np.random.default_rng(0).uniform(size=(2, 5, 20, 13, 3)).astype(np.float32)
  np.testing.assert_allclose(losses.structural_similarity(x, x, 1.0), 1.0, atol=1e-6)
  forward, backward = (losses.structural_similarity(*pair, 1.0) for pair in ((x, y), (y, x)))
  np.testing.assert_allclose(forward, backward, atol=1e-6)
