"""Encoders and decoders of the models in PyTorch, shared by plain PyTorch and pythae.

Images are [B, C, H, W] for the convolutional models and [B, 784] for the others.
"""

import itertools
import math

import torch
from torch import nn
from torch.nn import functional

from experiments.throughput.problem import CHANNELS, LARGE, LATENT, PIXELS, SIDE, WIDTHS, shape

PATCH, WIDTH, HIDDEN, HEADS, TOKENS = (
  7,
  64,
  256,
  4,
  16,
)  # attention model: 16 patches, 16 latent queries, 16 memory tokens


def encoder(name):
  """Returns the encoder: images -> latents [B, 32]; for the VAE, posterior means and log variances [B, 64]."""
  if name in CHANNELS:
    pairs = itertools.pairwise((shape(name)[-1], *CHANNELS[name]))
    stages = [[nn.Conv2d(inputs, outputs, 3), nn.ReLU(), nn.MaxPool2d(2)] for inputs, outputs in pairs]
    layers = [module for stage in stages for module in stage]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(math.prod(smallest(name)), LATENT))
  if name == "attention":
    return AttentionEncoder()
  return perceptron(PIXELS, *WIDTHS[name], 2 * LATENT if name == "vae" else LATENT)


def decoder(name):
  """Returns the decoder: latents [B, 32] -> logits in the shape of the images."""
  if name in CHANNELS:
    small = smallest(name)
    first = [nn.Linear(LATENT, math.prod(small)), nn.ReLU(), nn.Unflatten(1, small)]
    if name in LARGE:  # 6 -> 12 -> 29 -> 64, or 14 -> 28 -> 61 -> 128
      first += [nn.ConvTranspose2d(128, 64, 3, 2, padding=1, output_padding=1), nn.ReLU()]
      return nn.Sequential(*first, nn.ConvTranspose2d(64, 32, 7, 2), nn.ReLU(), nn.ConvTranspose2d(32, 3, 8, 2))
    return nn.Sequential(*first, nn.ConvTranspose2d(32, 16, 3, 2), nn.ReLU(), nn.ConvTranspose2d(16, 1, 8, 2))
  if name == "attention":
    return AttentionDecoder()
  return perceptron(LATENT, *WIDTHS[name][::-1], PIXELS)


def smallest(name):
  """Returns the shape (C, H, W) of the last stage of a convolutional encoder."""
  side = shape(name)[0]
  for _ in CHANNELS[name]:
    side = (side - 2) // 2
  return CHANNELS[name][-1], side, side


def perceptron(*sizes):
  """Returns linear layers of these sizes with ReLU between them."""
  layers = [[nn.Linear(inputs, outputs), nn.ReLU()] for inputs, outputs in itertools.pairwise(sizes)]
  return nn.Sequential(*[module for layer in layers for module in layer][:-1])


class Attention(nn.Module):
  """Multi-head attention with PyTorch's fused kernel; queries, keys and values have no bias."""

  def __init__(self):
    super().__init__()
    self.query = nn.Linear(WIDTH, WIDTH, bias=False)
    self.key_value = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
    self.out = nn.Linear(WIDTH, WIDTH)

  def forward(self, x, memory):
    """Attends from queries [B or 1, N, width] to `memory` [B, M, width]; returns [B, N, width]."""
    query = self.query(x).unflatten(-1, (HEADS, -1)).expand(len(memory), -1, -1, -1)
    key, value = self.key_value(memory).unflatten(-1, (2, HEADS, -1)).unbind(2)
    heads = functional.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (query, key, value)))
    return self.out(heads.transpose(1, 2).flatten(2))


class Block(nn.Module):
  """Pre-norm transformer block: self-attention and a hidden layer, each with a residual connection."""

  def __init__(self):
    super().__init__()
    self.attention_norm, self.hidden_norm = norm(), norm()
    self.attention = Attention()
    self.hidden = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU("tanh"), nn.Linear(HIDDEN, WIDTH))

  def forward(self, h):
    """Maps tokens [B, N, width] to [B, N, width]."""
    normed = self.attention_norm(h)
    h = h + self.attention(normed, normed)
    return h + self.hidden(self.hidden_norm(h))


class AttentionEncoder(nn.Module):
  """Patches with positions, a block, cross-attention from the latent queries, and a linear layer."""

  def __init__(self):
    super().__init__()
    self.embedding = nn.Linear(PATCH**2, WIDTH)
    self.positions = nn.Parameter(0.02 * torch.randn(TOKENS, WIDTH))
    self.block, self.norm, self.pool = Block(), norm(), Attention()
    self.queries = nn.Parameter(torch.randn(1, TOKENS, WIDTH))
    self.code = nn.Linear(TOKENS * WIDTH, LATENT)

  def forward(self, x):
    """Maps images [B, 784] to latents [B, 32]."""
    side = SIDE // PATCH
    patches = x.reshape(-1, side, PATCH, side, PATCH).transpose(2, 3).reshape(-1, TOKENS, PATCH**2)
    h = self.block(self.embedding(patches) + self.positions)
    return self.code(self.pool(self.queries, self.norm(h)).flatten(1))


class AttentionDecoder(nn.Module):
  """Memory tokens, cross-attention from the patches' queries, two blocks, and a linear layer."""

  def __init__(self):
    super().__init__()
    self.memory = nn.Linear(LATENT, TOKENS * WIDTH)
    self.positions = nn.Parameter(torch.randn(1, TOKENS, WIDTH))
    self.unpool = Attention()
    self.blocks = nn.Sequential(Block(), Block(), norm(), nn.Linear(WIDTH, PATCH**2))

  def forward(self, z):
    """Maps latents [B, 32] to logits [B, 784]."""
    memory = self.memory(z).unflatten(1, (TOKENS, WIDTH))
    patches = self.blocks(self.positions + self.unpool(self.positions, memory))
    side = SIDE // PATCH
    return patches.reshape(-1, side, side, PATCH, PATCH).transpose(2, 3).reshape(-1, PIXELS)


def norm():
  """Returns an RMS norm with the epsilon of Flax."""
  return nn.RMSNorm(WIDTH, eps=1e-6)


def initialise(module):
  """Initialises a layer as Flax does: weights of variance 1 / inputs and zero biases; for `Module.apply`."""
  if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
    weight = module.weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else module.weight
    nn.init.trunc_normal_(module.weight, std=weight[0].numel() ** -0.5)
    if module.bias is not None:
      nn.init.zeros_(module.bias)


def cross_entropy(logits, x):
  """Returns the nats [], summed over the pixels and averaged over the batch."""
  return functional.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


def gaussian_kl(mean, log_variance):
  """Returns KL(N(mean, variance) || N(0, 1)) in nats [], averaged over the batch."""
  return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum() / len(mean)
