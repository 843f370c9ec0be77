"""The four models in Keras 3, for all backends.

Images are [B, 28, 28, 1] for the convolutional model and [B, 784] for the others.
"""

import functools

import keras
from keras import layers, ops

from experiments.throughput.problem import LATENT, PIXELS, SIDE, WIDTHS

PATCH, WIDTH, HIDDEN, HEADS, TOKENS = (
  7,
  64,
  256,
  4,
  16,
)  # attention model: 16 patches, 16 latent queries, 16 memory tokens


# Layers with the initialisation of Flax.
Dense = functools.partial(layers.Dense, kernel_initializer="lecun_normal")
Conv = functools.partial(layers.Conv2D, activation="relu", kernel_initializer="lecun_normal")


class Autoencoder(keras.Model):
  """A model and its objective."""

  def __init__(self, name):
    super().__init__()
    self.variational = name == "vae"
    self.encoder, self.decoder = encoder(name), decoder(name)
    self.seed_generator = keras.random.SeedGenerator(0)

  def call(self, x):
    """Returns the nats [] of images (negative ELBO for the VAE), summed over pixels and averaged over the batch."""
    z, kl = self.encoder(x), 0.0
    if self.variational:
      mean, log_variance = ops.split(z, 2, axis=1)
      z = mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.seed_generator)
      kl = 0.5 * ops.sum(ops.square(mean) + ops.exp(log_variance) - 1 - log_variance)
    nats = ops.sum(ops.binary_crossentropy(x, self.decoder(z), from_logits=True))
    return (nats + kl) / x.shape[0]

  def reconstruct(self, x):
    """Returns the reconstructions of images, in [0, 1]."""
    return ops.sigmoid(self.decoder(self.encoder(x)[:, :LATENT]))


def encoder(name):
  """Returns the encoder: images -> latents [B, 32]; for the VAE, posterior means and log variances [B, 64]."""
  if name == "cnn":
    stages = [Conv(16, 3), layers.MaxPool2D(2)]
    stages += [Conv(32, 3), layers.MaxPool2D(2)]
    return keras.Sequential([keras.Input((SIDE, SIDE, 1)), *stages, layers.Flatten(), Dense(LATENT)])
  if name == "attention":
    return attention_encoder()
  return perceptron(PIXELS, *WIDTHS[name], 2 * LATENT if name == "vae" else LATENT)


def decoder(name):
  """Returns the decoder: latents [B, 32] -> logits in the shape of the images."""
  if name == "cnn":
    smallest = [Dense(32 * 5 * 5, activation="relu"), layers.Reshape((5, 5, 32))]
    larger = [transposed(16, 3, activation="relu"), transposed(1, 8)]
    return keras.Sequential([keras.Input((LATENT,)), *smallest, *larger])
  if name == "attention":
    return attention_decoder()
  return perceptron(LATENT, *WIDTHS[name][::-1], PIXELS)


def transposed(features, kernel, **options):
  """Returns a transposed convolution of stride 2 whose initial variance is 1 / inputs, as in the other layers."""
  # Keras stores this kernel with outputs before inputs, so that its fan_out is the number of inputs.
  initial = keras.initializers.VarianceScaling(mode="fan_out")
  return layers.Conv2DTranspose(features, kernel, 2, kernel_initializer=initial, **options)


def perceptron(inputs, *sizes):
  """Returns dense layers of these sizes with ReLU between them."""
  hidden = [Dense(size, activation="relu") for size in sizes[:-1]]
  return keras.Sequential([keras.Input((inputs,)), *hidden, Dense(sizes[-1])])


class Attention(layers.Layer):
  """Multi-head attention by `ops.dot_product_attention`; queries, keys and values have no bias."""

  def __init__(self):
    super().__init__()
    self.query = Dense(WIDTH, use_bias=False)
    self.key_value = Dense(2 * WIDTH, use_bias=False)
    self.out = Dense(WIDTH)

  def call(self, x, memory):
    """Attends from queries [B, N, width] to `memory` [B, M, width]; returns [B, N, width]."""
    shape = (-1, TOKENS, HEADS, WIDTH // HEADS)
    key, value = ops.split(self.key_value(memory), 2, axis=-1)
    heads = ops.dot_product_attention(*(ops.reshape(part, shape) for part in (self.query(x), key, value)))
    return self.out(ops.reshape(heads, (-1, TOKENS, WIDTH)))


class Table(layers.Layer):
  """Learned tokens [1, 16, width], added to the input or, with `only`, replacing it."""

  def __init__(self, deviation, only=False):
    super().__init__()
    self.only = only
    initial = keras.initializers.RandomNormal(stddev=deviation, seed=0)
    self.table = self.add_weight(shape=(1, TOKENS, WIDTH), initializer=initial)

  def call(self, h):
    """Maps tokens [B, 16, width] to [B, 16, width]."""
    return self.table + (ops.zeros_like(h) if self.only else h)


def block(h):
  """Applies a pre-norm transformer block: self-attention and a hidden layer, each with a residual connection."""
  normed = norm(h)
  h = h + Attention()(normed, normed)
  hidden = Dense(HIDDEN)(norm(h))
  return h + Dense(WIDTH)(ops.gelu(hidden, approximate=True))


def norm(h):
  """Applies an RMS norm with the epsilon of Flax."""
  return layers.RMSNormalization(epsilon=1e-6)(h)


def attention_encoder():
  """Returns the encoder: patches with positions, a block, cross-attention from the latent queries, a dense layer."""
  x, side = keras.Input((PIXELS,)), SIDE // PATCH
  squares = ops.swapaxes(ops.reshape(x, (-1, side, PATCH, side, PATCH)), 2, 3)
  patches = ops.reshape(squares, (-1, TOKENS, PATCH**2))
  h = norm(block(Table(0.02)(Dense(WIDTH)(patches))))
  pooled = Attention()(Table(1.0, only=True)(h), h)
  return keras.Model(x, Dense(LATENT)(ops.reshape(pooled, (-1, TOKENS * WIDTH))))


def attention_decoder():
  """Returns the decoder: memory tokens, cross-attention from the patches' queries, two blocks, a dense layer."""
  z, side = keras.Input((LATENT,)), SIDE // PATCH
  memory = ops.reshape(Dense(TOKENS * WIDTH)(z), (-1, TOKENS, WIDTH))
  positions = Table(1.0, only=True)(memory)
  h = norm(block(block(positions + Attention()(positions, memory))))
  patches = ops.reshape(Dense(PATCH**2)(h), (-1, side, side, PATCH, PATCH))
  return keras.Model(z, ops.reshape(ops.swapaxes(patches, 2, 3), (-1, PIXELS)))
