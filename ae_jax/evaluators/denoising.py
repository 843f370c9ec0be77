"""How much of a noise a model takes away, for noises that it was and was not trained on."""

import jax
import numpy as np

from ae_jax import corruptions, losses
from ae_jax.data import ranges
from ae_jax.evaluators import reconstruction

NOISES = (
  ("gaussian", 0.25),
  ("gaussian", 0.5),
  ("masking", 0.25),
  ("masking", 0.5),
  ("salt_and_pepper", 0.1),
  ("salt_and_pepper", 0.25),
)


def check(model, dataset):
  """It applies to any model."""
  del model, dataset


def per_example(model, params, batch, keys, value_range):
  """Squared error of the noisy input and of its reconstruction, both against the clean example: [B] per noise."""
  found = {}
  for number, (name, level) in enumerate(NOISES):
    noise_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
    noisy, _ = corruptions.corrupt(name, noise_keys, batch["x"], level, ranges.BYTE_SPANS[value_range])
    restored = losses.OUTPUT_ACTIVATIONS[value_range](model.reconstruct(params, noisy))
    found[f"noisy/{name}_{level:g}"] = losses.squared_error(noisy, batch["x"])
    found[f"restored/{name}_{level:g}"] = losses.squared_error(restored, batch["x"])
  return found


def metrics(values, dataset):
  """Generates PSNR in dB of the noisy input and of what the model makes of it, per noise."""
  elements = np.prod(dataset.shape)
  for name, level in NOISES:
    for way, key in {"in": "noisy", "out": "restored"}.items():
      mse = values[f"{key}/{name}_{level:g}"].mean(dtype=np.float64) / elements
      yield f"test/psnr_{way}/{name}_{level:g}", reconstruction.psnr(float(mse), dataset.peak)


def rulers(dataset, latent):
  """None."""
  del dataset, latent
  yield from ()
