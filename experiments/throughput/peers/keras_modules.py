"""The four models in Keras 3, whatever its backend: images [B, 28, 28, 1] for the convolutional one, else [B, 784]."""

import functools

import keras
from keras import layers, ops

from experiments.throughput.problem import LATENT, PIXELS, SIDE, WIDTHS

PATCH, WIDTH, HIDDEN, HEADS, TOKENS = 7, 64, 256, 4, 16  # of the attention model; 16 patches, queries and memories each


# With the initialisation of Flax; the kernel of a transposed convolution has its inputs behind its outputs.
Dense = functools.partial(layers.Dense, kernel_initializer="lecun_normal")
Conv = functools.partial(layers.Conv2D, activation="relu", kernel_initializer="lecun_normal")


class Autoencoder(keras.Model):
  """The model and its objective: images -> nats [], with the KL for the VAE."""

  def __init__(self, name):
    super().__init__()
    self.variational = name == "vae"
    self.encoder, self.decoder = encoder(name), decoder(name)
    self.seed_generator = keras.random.SeedGenerator(0)

  def call(self, x):
    """Images -> nats per image, summed over the pixels and averaged over the batch: []."""
    code, kl = self.encoder(x), 0.0
    if self.variational:
      mean, log_variance = ops.split(code, 2, axis=1)
      code = mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.seed_generator)
      kl = 0.5 * ops.sum(ops.square(mean) + ops.exp(log_variance) - 1 - log_variance)
    nats = ops.sum(ops.binary_crossentropy(x, self.decoder(code), from_logits=True))
    return (nats + kl) / x.shape[0]

  def reconstruct(self, x):
    """Images -> [0, 1], of their shape."""
    return ops.sigmoid(self.decoder(self.encoder(x)[:, :LATENT]))


def encoder(name):
  """Images -> codes [B, 32]; for the VAE the posterior's means, then logarithms of variances, [B, 64]."""
  if name == "cnn":
    stages = [Conv(16, 3), layers.MaxPool2D(2)]
    stages += [Conv(32, 3), layers.MaxPool2D(2)]
    return keras.Sequential([keras.Input((SIDE, SIDE, 1)), *stages, layers.Flatten(), Dense(LATENT)])
  if name == "attention":
    return attention_encoder()
  return perceptron(PIXELS, *WIDTHS[name], 2 * LATENT if name == "vae" else LATENT)


def decoder(name):
  """Codes [B, 32] -> logits of the images' shape."""
  if name == "cnn":
    smallest = [Dense(32 * 5 * 5, activation="relu"), layers.Reshape((5, 5, 32))]
    larger = [transposed(16, 3, activation="relu"), transposed(1, 8)]
    return keras.Sequential([keras.Input((LATENT,)), *smallest, *larger])
  if name == "attention":
    return attention_decoder()
  return perceptron(LATENT, *WIDTHS[name][::-1], PIXELS)


def transposed(features, kernel, **options):
  """A transposed convolution of stride 2 that is initialised by the number of its inputs, as the others are."""
  initial = keras.initializers.VarianceScaling(mode="fan_out")
  return layers.Conv2DTranspose(features, kernel, 2, kernel_initializer=initial, **options)


def perceptron(inputs, *sizes):
  """Dense layers of these sizes with ReLU between them."""
  hidden = [Dense(size, activation="relu") for size in sizes[:-1]]
  return keras.Sequential([keras.Input((inputs,)), *hidden, Dense(sizes[-1])])


class Attention(layers.Layer):
  """Multi-head attention by `ops.dot_product_attention`; neither queries nor keys nor values have a bias."""

  def __init__(self):
    super().__init__()
    self.query = Dense(WIDTH, use_bias=False)
    self.key_value = Dense(2 * WIDTH, use_bias=False)
    self.out = Dense(WIDTH)

  def call(self, x, memory):
    """Queries [B, N, width] that look at `memory` [B, M, width] -> [B, N, width]."""
    heads = (-1, TOKENS, HEADS, WIDTH // HEADS)
    key, value = ops.split(self.key_value(memory), 2, axis=-1)
    found = ops.dot_product_attention(*(ops.reshape(part, heads) for part in (self.query(x), key, value)))
    return self.out(ops.reshape(found, (-1, TOKENS, WIDTH)))


class Table(layers.Layer):
  """Learned tokens [1, 16, width], added to those that it is called on or, with `only`, in their place."""

  def __init__(self, deviation, only=False):
    super().__init__()
    self.only = only
    initial = keras.initializers.RandomNormal(stddev=deviation, seed=0)
    self.table = self.add_weight(shape=(1, TOKENS, WIDTH), initializer=initial)

  def call(self, h):
    """[B, 16, width] -> [B, 16, width]."""
    return self.table + (ops.zeros_like(h) if self.only else h)


def block(h):
  """Self-attention, then a hidden layer, each behind a norm and beside a residual: [B, N, width] -> the same."""
  normed = norm(h)
  h = h + Attention()(normed, normed)
  hidden = Dense(HIDDEN)(norm(h))
  return h + Dense(WIDTH)(ops.gelu(hidden, approximate=True))


def norm(h):
  """The norm by root mean square, with the epsilon of Flax."""
  return layers.RMSNormalization(epsilon=1e-6)(h)


def attention_encoder():
  """[B, 784] -> patches and their positions -> a block -> the latent queries look at them -> [B, 32]."""
  x, side = keras.Input((PIXELS,)), SIDE // PATCH
  squares = ops.swapaxes(ops.reshape(x, (-1, side, PATCH, side, PATCH)), 2, 3)
  patches = ops.reshape(squares, (-1, TOKENS, PATCH**2))
  h = norm(block(Table(0.02)(Dense(WIDTH)(patches))))
  pooled = Attention()(Table(1.0, only=True)(h), h)
  return keras.Model(x, Dense(LATENT)(ops.reshape(pooled, (-1, TOKENS * WIDTH))))


def attention_decoder():
  """[B, 32] -> memory tokens -> a query of each patch looks at them -> two blocks -> logits [B, 784]."""
  z, side = keras.Input((LATENT,)), SIDE // PATCH
  memory = ops.reshape(Dense(TOKENS * WIDTH)(z), (-1, TOKENS, WIDTH))
  positions = Table(1.0, only=True)(memory)
  h = norm(block(block(positions + Attention()(positions, memory))))
  patches = ops.reshape(Dense(PATCH**2)(h), (-1, side, side, PATCH, PATCH))
  return keras.Model(z, ops.reshape(ops.swapaxes(patches, 2, 3), (-1, PIXELS)))
