"""The training step of Flax's VAE example (google/flax, examples/vae), rewritten for the model of configs/vae.py.

A Python loop passes each batch to a jitted step and splits the random key at each step.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training import train_state

from experiments.throughput import problem
from experiments.throughput.problem import LATENT, PIXELS, WIDTHS


class Perceptron(nn.Module):
  """Dense layers of these sizes with ReLU between them."""

  sizes: tuple[int, ...]

  @nn.compact
  def __call__(self, x):
    """Maps [B, features] to [B, sizes[-1]]."""
    for size in self.sizes[:-1]:
      x = nn.relu(nn.Dense(size)(x))
    return nn.Dense(self.sizes[-1])(x)


class VAE(nn.Module):
  """VAE with a Gaussian posterior and one sample."""

  @nn.compact
  def __call__(self, x, key):
    """Returns logits [B, 784], posterior means [B, 32] and log variances [B, 32] of images [B, 784]."""
    mean, log_variance = jnp.split(Perceptron((*WIDTHS["vae"], 2 * LATENT))(x), 2, axis=1)
    z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
    return Perceptron((*WIDTHS["vae"][::-1], PIXELS))(z), mean, log_variance


@jax.jit
def train_step(state, x, key):
  """Takes one Adam step on the negative ELBO of images [B, 784]."""

  def loss(params):
    logits, mean, log_variance = state.apply_fn({"params": params}, x, key)
    nats = optax.sigmoid_binary_cross_entropy(logits, x).sum(1).mean()
    return nats + 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance).sum(1).mean()

  return state.apply_gradients(grads=jax.grad(loss)(state.params))


def build(name, batch_size, images, steps_per_call, recipe):
  """Builds the contestant of the example, which does not take part in the race."""
  data = problem.unit(images).reshape(-1, PIXELS)
  model, key = VAE(), jax.random.key(0)
  params = model.init(key, data[:1], key)["params"]
  adam = optax.adam(problem.LEARNING_RATE)
  holder = {"state": train_state.TrainState.create(apply_fn=model.apply, params=params, tx=adam), "key": key}

  def train(rows):
    for row in rows:
      holder["key"], noise = jax.random.split(holder["key"])
      holder["state"] = train_step(holder["state"], data[row], noise)
    jax.block_until_ready(holder["state"].params)

  return problem.Contestant(sum(leaf.size for leaf in jax.tree.leaves(params)), train, None, None)
