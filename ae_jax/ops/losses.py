"""Loss terms and output activations. Loss terms are functions of arrays and return one number per example."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree, Shaped

_Array = jax.Array | np.ndarray
_Floats = Float[_Array, "batch ..."]

SSIM_WINDOW = 11  # side in pixels of the window of `structural_similarity`

# config.data.range -> output activation. The data are in [0, 1] for "unit", in [-1, 1] for "symmetric", and unbounded
# for "real".
OUTPUT_ACTIVATIONS = {"unit": jax.nn.sigmoid, "symmetric": jnp.tanh, "real": lambda logits: logits}


# Groups of elements in a row of a table: (kind, start, stop) describes the elements [start, stop). The kind "category"
# means one-hot elements with softmax outputs, and "boolean" means one element with a sigmoid output.
Groups = tuple[tuple[str, int, int], ...]


def grouped_outputs(logits: _Floats, activation: Callable, groups: Groups) -> Float[Array, "batch ..."]:
  """Applies a softmax or a sigmoid to the logits of each group, and `activation` to all other logits."""
  functions = {"category": jax.nn.softmax, "boolean": jax.nn.sigmoid}
  return _by_group(logits, groups, activation, lambda kind, part: functions[kind](part))


def mixed_nats(
  logits: Float[_Array, "batch elements"], x: Float[_Array, "batch elements"], groups: Groups
) -> jax.Array:
  """Returns -log p(x | logits) in nats for each element of the rows of a table.

  A number is Gaussian with the logit as mean and standard deviation 1. A boolean is Bernoulli with the sigmoid of the
  logit. A categorical column has a softmax over its one-hot elements; its cross-entropy is the sum of the returned
  values over these elements.
  """

  def cross_entropy(kind, pair):
    logits, x = pair
    return binary_cross_entropy_with_logits(logits, x) if kind == "boolean" else -x * jax.nn.log_softmax(logits)

  return _by_group(
    (logits, x), groups, lambda pair: gaussian_nats(jnp.square(pair[0] - pair[1]), 1, 1.0), cross_entropy
  )


def _by_group(arrays: PyTree, groups: Groups, of_numbers: Callable, of_group: Callable) -> jax.Array:
  """Applies `of_group(kind, elements)` to each group and `of_numbers(elements)` to all others; joins the results."""
  size, end, parts = jax.tree.leaves(arrays)[0].shape[-1], 0, []
  for kind, start, stop in (*groups, ("", None, None)):
    start = size if start is None else start
    if start > end:
      parts.append(of_numbers(jax.tree.map(lambda array, end=end, start=start: array[..., end:start], arrays)))
    if kind:
      parts.append(of_group(kind, jax.tree.map(lambda array, start=start, stop=stop: array[..., start:stop], arrays)))
      end = stop
  return jnp.concatenate(parts, axis=-1)


def flat(x: Shaped[_Array, "batch ..."]) -> Shaped[_Array, "batch elements"]:
  """Flattens each example; XLA's sums over [B, 28, 28, 1] are several times slower than sums over flat arrays."""
  return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def sum_over_elements(
  function: Callable[..., jax.Array], *arrays: Shaped[_Array, "batch ..."], batch_last: bool
) -> Shaped[Array, " batch"]:
  """Applies an elementwise function to the arrays and sums the result over the elements of each example.

  If `batch_last`, arrays are reshaped to [elements, B], which avoids a transpose if they have this layout in memory.
  """
  if batch_last:
    return function(*(jnp.moveaxis(x, 0, -1).reshape(-1, x.shape[0]) for x in arrays)).sum(0)  # [B]
  return function(*(flat(x) for x in arrays)).sum(1)  # [B]


@jax.custom_jvp
def binary_cross_entropy_with_logits(logits: _Array | float, targets: _Array | float) -> jax.Array:
  """Returns -x log p - (1 - x) log(1 - p) in nats for each element, with p = sigmoid(logits) and targets x.

  The result is finite for any finite logit. The derivative sigmoid(logits) - x is defined explicitly, because automatic
  differentiation needs a second pass of exp and log1p.
  """
  return jnp.maximum(logits, 0.0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))


@binary_cross_entropy_with_logits.defjvp
def _(primals, tangents):
  logits, targets = primals
  logits_dot, targets_dot = tangents
  value = binary_cross_entropy_with_logits(logits, targets)
  return value, (jax.nn.sigmoid(logits) - targets) * logits_dot - logits * targets_dot


def bernoulli_nats(logits: _Floats, x: _Floats, mask: _Floats | None = None) -> Float[Array, " batch"]:
  """Returns -log Bernoulli(x | sigmoid(logits)) in nats per example, for x in [0, 1]; `mask` as in `squared_error`."""
  return _masked(binary_cross_entropy_with_logits(flat(logits), flat(x)), mask).sum(-1)


def bernoulli_entropy(x: _Floats, mask: _Floats | None = None) -> Float[Array, " batch"]:
  """Returns the minimum of `bernoulli_nats` over logits, in nats per example. It is reached at sigmoid(logits) = x."""
  x = flat(x)
  return -_masked(jax.scipy.special.xlogy(x, x) + jax.scipy.special.xlog1py(1.0 - x, -x), mask).sum(-1)


def squared_error(x_hat: _Floats, x: _Floats, mask: _Floats | None = None) -> Float[Array, " batch"]:
  """Returns the squared error |x_hat - x|^2 per example, in squared units of the data.

  Elements whose `mask` is 0 are omitted from the sum.
  """
  return _masked(jnp.square(flat(x_hat) - flat(x)), mask).sum(-1)


def _masked(values: Float[Array, "batch elements"], mask: _Floats | None) -> Float[Array, "batch elements"]:
  return values if mask is None else values * flat(mask)


def gaussian_nats(
  error: Float[_Array, "*shape"], elements: int | Float[_Array, "*shape"], noise: float | jax.Array
) -> Float[Array, "*shape"]:
  """Returns -log N(x | x_hat, noise^2) in nats for each squared error |x_hat - x|^2.

  Args:
    error: Squared error, summed over the elements of an example.
    elements: Number of elements in the sum.
    noise: Standard deviation of the Gaussian.
  """
  return 0.5 * error / noise**2 + elements * (0.5 * math.log(2 * math.pi) + jnp.log(noise))


def structural_similarity(
  x_hat: Float[_Array, "batch height width channels"], x: Float[_Array, "batch height width channels"], peak: float
) -> Float[Array, " batch"]:
  """Returns the structural similarity (SSIM) of each image, averaged over windows and channels (Wang et al. 2004).

  The window is a Gaussian with standard deviation 1.5 on 11 x 11 pixels. Only windows inside the image are used, so the
  image must have at least 11 x 11 pixels. Pixels must be in [0, peak], because the luminance term assumes that black
  is 0.
  """
  over_rows, over_columns = (_gaussian_windows(side).astype(x.dtype) for side in x.shape[1:3])
  local = lambda images: jnp.einsum("ih,bhw,jw->bij", over_rows, images, over_columns)
  a, b = (images.transpose(0, 3, 1, 2).reshape(-1, *x.shape[1:3]) for images in (x_hat, x))
  level_a, level_b = (images.mean((1, 2), keepdims=True) for images in (a, b))
  a, b = a - level_a, b - level_b  # avoids cancellation in the variances below
  mean_a, mean_b = local(a), local(b)
  covariance = local(a * b) - mean_a * mean_b
  variances = local(jnp.square(a) + jnp.square(b)) - jnp.square(mean_a) - jnp.square(mean_b)
  mean_a, mean_b = mean_a + level_a, mean_b + level_b
  c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
  luminance = (2.0 * mean_a * mean_b + c1) / (jnp.square(mean_a) + jnp.square(mean_b) + c1)
  return (luminance * (2.0 * covariance + c2) / (variances + c2)).reshape(x.shape[0], -1).mean(1)


def _gaussian_windows(side: int) -> Float[np.ndarray, "windows side"]:
  """Returns the weights [side - 10, side] of all 1D Gaussian windows inside a line of `side` pixels, one row each."""
  window = np.exp(-0.5 * np.square(np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2) / 1.5**2)
  rows = np.arange(side - SSIM_WINDOW + 1)[:, None]
  weights = np.zeros((len(rows), side))
  weights[rows, rows + np.arange(SSIM_WINDOW)] = window / window.sum()
  return weights


def gaussian_kl(mean: Float[_Array, "*shape"], log_variance: Float[_Array, "*shape"]) -> Float[Array, "*shape"]:
  """Returns KL(N(mean, variance) || N(0, 1)) in nats for each dimension (Kingma & Welling 2014, appendix B)."""
  return 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance)


def bernoulli_kl(rho: float | jax.Array, rho_hat: Float[_Array, "*shape"]) -> Float[Array, "*shape"]:
  """Returns KL(Bernoulli(rho) || Bernoulli(rho_hat)) in nats for each element.

  `rho_hat` is clipped to [1e-6, 1 - 1e-6], so the result is finite for a unit that is always off or always on.
  """
  inside = jnp.clip(rho_hat, 1e-6, 1.0 - 1e-6)
  return rho * (jnp.log(rho) - jnp.log(inside)) + (1.0 - rho) * (jnp.log1p(-rho) - jnp.log1p(-inside))


def jacobian_norm(encode: Callable[[Array], Array], x: _Floats) -> Float[Array, " batch"]:
  """Returns the exact squared Frobenius norm of dz/dx for each example (Rifai et al. 2011).

  This takes one backward pass per latent dimension. If an example has fewer elements than latents, it takes one
  forward-mode pass per element instead.

  Args:
    encode: Function from examples to latents [B, latent]. Each latent vector must depend only on its own example.
    x: Examples.
  """
  z, pullback = jax.vjp(encode, x)
  (latent,), elements = z.shape[1:], math.prod(x.shape[1:])
  if latent <= elements:
    rows = jax.vmap(lambda e: pullback(jnp.broadcast_to(e[None], z.shape))[0])(jnp.eye(latent, dtype=z.dtype))
    return jnp.square(rows.reshape(latent, x.shape[0], elements)).sum((0, 2))
  basis = jnp.eye(elements, dtype=x.dtype).reshape(elements, 1, *x.shape[1:])
  columns = jax.vmap(lambda e: jax.jvp(encode, (x,), (jnp.broadcast_to(e, x.shape),))[1])(basis)
  return jnp.square(columns).sum((0, 2))


def jacobian_norm_estimate(
  encode: Callable[[Array], Array], x: _Floats, keys: Key[Array, " batch"], probes: int
) -> Float[Array, " batch"]:
  """Returns an unbiased estimate of `jacobian_norm` (Hutchinson 1990).

  The estimate is the mean of |J^T v|^2 over `probes` random sign vectors v, where J is the Jacobian dz/dx. Each sign
  vector takes one backward pass. The sign vectors of an example depend only on its key.
  """
  z, pullback = jax.vjp(encode, x)
  signs = jax.vmap(lambda key: jax.random.rademacher(key, (*z.shape[1:], probes), z.dtype), out_axes=-1)(keys)
  # [probes, B, latent]. The signs are drawn with the latent axis first, so the signs of a latent unit do not depend on
  # the latent size.
  signs = jnp.moveaxis(signs, 0, -1)
  return jax.vmap(lambda v: jnp.square(flat(pullback(v)[0])).sum(-1))(signs).mean(0)
