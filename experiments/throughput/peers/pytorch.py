"""PyTorch, eager and compiled: images as floats in memory, batches gathered by index, fused Adam, no data loader."""

import numpy as np
import torch
from torch import nn

from experiments.throughput import problem
from experiments.throughput.peers import torch_modules

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cuda":
  torch.set_float32_matmul_precision("high")  # TF32, which XLA and cuDNN use by default


class Loss(nn.Module):
  """Model and objective in one module, so that both are compiled together."""

  def __init__(self, name):
    super().__init__()
    self.variational = name == "vae"
    self.encoder, self.decoder = torch_modules.encoder(name), torch_modules.decoder(name)

  def forward(self, x):
    """Returns the nats [] of images, for the VAE the negative ELBO."""
    if not self.variational:
      return torch_modules.cross_entropy(self.decoder(self.encoder(x)), x)
    mean, log_variance = self.encoder(x).chunk(2, 1)
    z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
    return torch_modules.cross_entropy(self.decoder(z), x) + torch_modules.gaussian_kl(mean, log_variance)

  def reconstruct(self, x):
    """Returns the reconstructions of images, in [0, 1]."""
    return torch.sigmoid(self.decoder(self.encoder(x)[:, : problem.LATENT]))


def build(name, batch_size, images, steps_per_call, recipe, compiled=False, mode="default"):
  """Builds the contestant of PyTorch; `mode` is that of `torch.compile`."""
  torch.manual_seed(0)
  module = Loss(name).apply(torch_modules.initialise).to(DEVICE)
  loss = torch.compile(module, dynamic=False, mode=mode) if compiled else module
  return contestant(name, batch_size, images, recipe, module, loss)


def contestant(name, batch_size, images, recipe, module, loss, shape=None):
  """Builds a contestant with a PyTorch training loop.

  Args:
    name: Name of the model.
    batch_size: Number of images per step.
    images: Training images as bytes [N, H, W, C].
    recipe: Whether to use the learning rate of the race's recipe.
    module: Module whose parameters are trained.
    loss: Function of images that returns the loss [].
    shape: Function (name, bytes [N, H, W, C]) -> floats in the module's layout; default: PyTorch's layout.
  """
  torch.set_num_threads(problem.cores())
  to_device = lambda images: torch.from_numpy((shape or shaped)(name, images)).to(DEVICE)
  data = to_device(images)
  optimizer = torch.optim.Adam(module.parameters(), problem.LEARNING_RATE, fused=True)
  schedule = _recipe(optimizer, len(images) // batch_size) if recipe else None

  def train(rows):
    for row in torch.from_numpy(rows).long().to(DEVICE):
      value = loss(data[row])
      optimizer.zero_grad()
      value.backward()
      optimizer.step()
      if schedule:
        schedule.step()
    value.item()  # waits for the device

  @torch.no_grad()
  def squared_error(part):
    x = to_device(part)
    return (module.reconstruct(x) - x).square().sum() / len(x)

  return problem.Contestant(
    sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
    train,
    lambda test: problem.mean_in_parts(squared_error, test),
    lambda number: problem.epoch(len(images), batch_size, number),
  )


def shaped(name, images):
  """Converts bytes [N, H, W, C] to floats [N, C, H, W], or [N, 784] for a model without convolutions."""
  if name in problem.CHANNELS:
    return np.ascontiguousarray(np.moveaxis(problem.unit(images), -1, 1))
  return problem.unit(images).reshape(-1, problem.PIXELS)


def _recipe(optimizer, steps_per_epoch):
  factor = lambda step: problem.learning_rate(step, steps_per_epoch) / problem.LEARNING_RATE
  return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
