"""Arrays in, one number per example out. Reconstruction terms come with the output activation they belong to."""

import math

import jax
import jax.numpy as jnp
import numpy as np

SSIM_WINDOW = 11  # pixels on a side of the window of `structural_similarity`

# The output activation follows the range of the data: [0, 1], [-1, 1], or any real number.
OUTPUT_ACTIVATIONS = {"unit": jax.nn.sigmoid, "symmetric": jnp.tanh, "real": lambda logits: logits}


def flat(x):
  """[B, ...] -> [B, elements]. Losses work on flat arrays: XLA's sums over [B, 28, 28, 1] run several times slower."""
  return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def sum_over_elements(function, *arrays, batch_last):
  """An elementwise function of arrays [B, ...], summed over each example: [B].

  With `batch_last` it is computed on [elements, B], which spares transposing what lies so in memory.
  """
  if batch_last:
    return function(*(jnp.moveaxis(x, 0, -1).reshape(-1, x.shape[0]) for x in arrays)).sum(0)  # [B]
  return function(*(flat(x) for x in arrays)).sum(1)  # [B]


@jax.custom_jvp
def binary_cross_entropy_with_logits(logits, targets):
  """-x log p - (1 - x) log(1 - p) in nats per element, p = sigmoid(logits); finite at any finite logit.

  The derivative is written out, sigmoid(logits) - x: the automatic one costs a second pass of exp and log1p.
  """
  return jnp.maximum(logits, 0.0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))


@binary_cross_entropy_with_logits.defjvp
def _(primals, tangents):
  logits, targets = primals
  logits_dot, targets_dot = tangents
  value = binary_cross_entropy_with_logits(logits, targets)
  return value, (jax.nn.sigmoid(logits) - targets) * logits_dot - logits * targets_dot


def bernoulli_nats(logits, x):
  """-log Bernoulli(x | sigmoid(logits)) in nats per example, x in [0, 1]: [B, ...] -> [B]."""
  return binary_cross_entropy_with_logits(flat(logits), flat(x)).sum(-1)  # [B]


def bernoulli_entropy(x):
  """The least that `bernoulli_nats` can be, in nats per example, reached at sigmoid(logits) = x: [B, ...] -> [B]."""
  x = flat(x)
  return -(jax.scipy.special.xlogy(x, x) + jax.scipy.special.xlog1py(1.0 - x, -x)).sum(-1)  # [B]


def squared_error(x_hat, x):
  """|x_hat - x|^2 per example, in the square of the data's unit: [B, ...] -> [B]."""
  return jnp.square(flat(x_hat) - flat(x)).sum(-1)  # [B]


def gaussian_nats(error, elements, noise):
  """Returns -log N(x | x_hat, noise^2) in nats from the squared error over `elements` numbers; noise is a deviation."""
  return 0.5 * error / noise**2 + elements * (0.5 * math.log(2 * math.pi) + jnp.log(noise))


def structural_similarity(x_hat, x, peak):
  """SSIM per image, the mean over windows and channels: [B, H, W, C] -> [B] (Wang et al. 2004).

  `peak` is the width of the range, which begins at 0: to the luminance of SSIM black is 0. The window is a gaussian of
  deviation 1.5 on 11 x 11 pixels; those that stick out of the image do not count, and there must be one that does not.
  """
  over_rows, over_columns = (_gaussian_windows(side).astype(x.dtype) for side in x.shape[1:3])
  local = lambda images: jnp.einsum("ih,bhw,jw->bij", over_rows, images, over_columns)
  a, b = (images.transpose(0, 3, 1, 2).reshape(-1, *x.shape[1:3]) for images in (x_hat, x))
  level_a, level_b = (images.mean((1, 2), keepdims=True) for images in (a, b))
  a, b = a - level_a, b - level_b  # so that the variances below are no small differences of large numbers
  mean_a, mean_b = local(a), local(b)
  covariance = local(a * b) - mean_a * mean_b
  variances = local(jnp.square(a) + jnp.square(b)) - jnp.square(mean_a) - jnp.square(mean_b)
  mean_a, mean_b = mean_a + level_a, mean_b + level_b
  c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
  luminance = (2.0 * mean_a * mean_b + c1) / (jnp.square(mean_a) + jnp.square(mean_b) + c1)
  return (luminance * (2.0 * covariance + c2) / (variances + c2)).reshape(x.shape[0], -1).mean(1)  # [B]


def _gaussian_windows(side):
  """The weights [side - 10, side] of the pixels of a line in each window that fits into it."""
  window = np.exp(-0.5 * np.square(np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2) / 1.5**2)
  rows = np.arange(side - SSIM_WINDOW + 1)[:, None]
  weights = np.zeros((len(rows), side))
  weights[rows, rows + np.arange(SSIM_WINDOW)] = window / window.sum()
  return weights


def gaussian_kl(mean, log_variance):
  """KL(N(mean, variance) || N(0, 1)) in nats per dimension, [B, latent] (Kingma & Welling 2014, appendix B)."""
  return 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance)


def bernoulli_kl(rho, rho_hat):
  """KL(Bernoulli(rho) || Bernoulli(rho_hat)) in nats, elementwise; finite also where a unit is always off or on."""
  inside = jnp.clip(rho_hat, 1e-6, 1.0 - 1e-6)
  return rho * (jnp.log(rho) - jnp.log(inside)) + (1.0 - rho) * (jnp.log1p(-rho) - jnp.log1p(-inside))


def jacobian_norm(encode, x):
  """The squared Frobenius norm of dz/dx per example, exact: [B, ...] -> [B] (Rifai et al. 2011).

  `encode` takes each example of x by itself to a code [B, latent]. One pass backward per dimension of the code, or one
  forward per element of x if those are fewer.
  """
  z, pullback = jax.vjp(encode, x)
  (latent,), elements = z.shape[1:], math.prod(x.shape[1:])
  if latent <= elements:
    rows = jax.vmap(lambda e: pullback(jnp.broadcast_to(e[None], z.shape))[0])(jnp.eye(latent, dtype=z.dtype))
    return jnp.square(rows.reshape(latent, x.shape[0], elements)).sum((0, 2))  # [B]
  basis = jnp.eye(elements, dtype=x.dtype).reshape(elements, 1, *x.shape[1:])
  columns = jax.vmap(lambda e: jax.jvp(encode, (x,), (jnp.broadcast_to(e, x.shape),))[1])(basis)
  return jnp.square(columns).sum((0, 2))  # [B]


def jacobian_norm_estimate(encode, x, keys, probes):
  """An unbiased estimate of `jacobian_norm` from random signs v, the mean of |J^T v|^2: [B, ...] -> [B].

  `keys` [B] holds a key for each example; each of the `probes` costs one pass backward (Hutchinson 1990).
  """
  z, pullback = jax.vjp(encode, x)
  signs = jax.vmap(lambda key: jax.random.rademacher(key, (*z.shape[1:], probes), z.dtype), out_axes=-1)(keys)
  signs = jnp.moveaxis(signs, 0, -1)  # [probes, B, latent]; drawn unit by unit, whose signs do not depend on how many
  return jax.vmap(lambda v: jnp.square(flat(pullback(v)[0])).sum(-1))(signs).mean(0)  # [B]
