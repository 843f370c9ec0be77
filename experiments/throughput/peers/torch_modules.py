"""The four models in PyTorch, as encoder and decoder modules that plain PyTorch and pythae share.

Images are [B, 784] for the dense models and the attention model, [B, 1, 28, 28] for the convolutional one.
"""

import itertools

import torch
from torch import nn
from torch.nn import functional

from experiments.throughput.problem import LATENT, PIXELS, SIDE, WIDTHS

PATCH, WIDTH, HIDDEN, HEADS, TOKENS = 7, 64, 256, 4, 16  # of the attention model; 16 patches, queries and memories each


def encoder(name):
  """Images -> codes [B, 32]; for the VAE the posterior's means, then logarithms of variances, [B, 64]."""
  if name == "cnn":
    stages = [nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*stages, nn.Flatten(), nn.Linear(32 * 5 * 5, LATENT))
  if name == "attention":
    return AttentionEncoder()
  return perceptron(PIXELS, *WIDTHS[name], 2 * LATENT if name == "vae" else LATENT)


def decoder(name):
  """Codes [B, 32] -> logits of the images' shape."""
  if name == "cnn":
    smallest = [nn.Linear(LATENT, 32 * 5 * 5), nn.ReLU(), nn.Unflatten(1, (32, 5, 5))]
    return nn.Sequential(*smallest, nn.ConvTranspose2d(32, 16, 3, 2), nn.ReLU(), nn.ConvTranspose2d(16, 1, 8, 2))
  if name == "attention":
    return AttentionDecoder()
  return perceptron(LATENT, *WIDTHS[name][::-1], PIXELS)


def perceptron(*sizes):
  """Linear layers of these sizes with ReLU between them."""
  layers = [[nn.Linear(inputs, outputs), nn.ReLU()] for inputs, outputs in itertools.pairwise(sizes)]
  return nn.Sequential(*[module for layer in layers for module in layer][:-1])


class Attention(nn.Module):
  """Multi-head attention with the library's fused kernel; neither queries nor keys nor values have a bias."""

  def __init__(self):
    super().__init__()
    self.query = nn.Linear(WIDTH, WIDTH, bias=False)
    self.key_value = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
    self.out = nn.Linear(WIDTH, WIDTH)

  def forward(self, x, memory):
    """Queries [B or 1, N, width] that look at `memory` [B, M, width] -> [B, N, width]."""
    query = self.query(x).unflatten(-1, (HEADS, -1)).expand(len(memory), -1, -1, -1)
    key, value = self.key_value(memory).unflatten(-1, (2, HEADS, -1)).unbind(2)
    found = functional.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (query, key, value)))
    return self.out(found.transpose(1, 2).flatten(2))


class Block(nn.Module):
  """Self-attention, then a hidden layer, each behind a norm and beside a residual: [B, N, width] -> the same."""

  def __init__(self):
    super().__init__()
    self.before, self.between = norm(), norm()
    self.attention = Attention()
    self.hidden = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU("tanh"), nn.Linear(HIDDEN, WIDTH))

  def forward(self, h):
    """[B, N, width] -> [B, N, width]."""
    normed = self.before(h)
    h = h + self.attention(normed, normed)
    return h + self.hidden(self.between(h))


class AttentionEncoder(nn.Module):
  """[B, 784] -> patches and their positions -> a block -> the latent queries look at them -> [B, 32]."""

  def __init__(self):
    super().__init__()
    self.embedding = nn.Linear(PATCH**2, WIDTH)
    self.positions = nn.Parameter(0.02 * torch.randn(TOKENS, WIDTH))
    self.block, self.norm, self.pool = Block(), norm(), Attention()
    self.queries = nn.Parameter(torch.randn(1, TOKENS, WIDTH))
    self.code = nn.Linear(TOKENS * WIDTH, LATENT)

  def forward(self, x):
    """Images [B, 784] -> codes [B, 32]."""
    side = SIDE // PATCH
    patches = x.reshape(-1, side, PATCH, side, PATCH).transpose(2, 3).reshape(-1, TOKENS, PATCH**2)
    h = self.block(self.embedding(patches) + self.positions)
    return self.code(self.pool(self.queries, self.norm(h)).flatten(1))


class AttentionDecoder(nn.Module):
  """[B, 32] -> memory tokens -> a query of each patch looks at them -> two blocks -> logits [B, 784]."""

  def __init__(self):
    super().__init__()
    self.memory = nn.Linear(LATENT, TOKENS * WIDTH)
    self.positions = nn.Parameter(torch.randn(1, TOKENS, WIDTH))
    self.unpool = Attention()
    self.blocks = nn.Sequential(Block(), Block(), norm(), nn.Linear(WIDTH, PATCH**2))

  def forward(self, z):
    """Codes [B, 32] -> logits [B, 784]."""
    memory = self.memory(z).unflatten(1, (TOKENS, WIDTH))
    patches = self.blocks(self.positions + self.unpool(self.positions, memory))
    side = SIDE // PATCH
    return patches.reshape(-1, side, side, PATCH, PATCH).transpose(2, 3).reshape(-1, PIXELS)


def norm():
  """The norm by root mean square, with the epsilon of Flax."""
  return nn.RMSNorm(WIDTH, eps=1e-6)


def initialise(module):
  """Draws a layer's weights as Flax does, with variance 1 / inputs, and sets its biases to 0; for `Module.apply`."""
  if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
    weight = module.weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else module.weight
    nn.init.trunc_normal_(module.weight, std=weight[0].numel() ** -0.5)
    if module.bias is not None:
      nn.init.zeros_(module.bias)


def cross_entropy(logits, x):
  """Nats per image, summed over the pixels and averaged over the batch: []."""
  return functional.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


def gaussian_kl(mean, log_variance):
  """KL(N(mean, variance) || N(0, 1)) in nats per image, averaged over the batch: []."""
  return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum() / len(mean)
