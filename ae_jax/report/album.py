"""Which pictures a trained run leaves: those that every run has, and what its data and its model have to show."""

import jax
import numpy as np

from ae_jax import corruptions
from ae_jax.data import ranges
from ae_jax.evaluators import denoising
from ae_jax.report import pictures, words

SHOWN = 16  # test examples in a picture
SAMPLED = 64  # draws from the prior


def draw(run, dataset, rulers, folder):
  """Draws the pictures of a run (`ae_jax.runs.Run`) into a folder, from test examples at even distances."""
  folder.mkdir(exist_ok=True)
  shown = np.linspace(0, len(dataset.test) - 1, min(SHOWN, len(dataset.test))).astype(int)
  examples = ranges.normalise(dataset.test[shown], dataset.value_range)
  pictures.curves(folder / "curves.png", run.history, rulers)
  if run.model.can("posterior"):
    nats = [value for name, value in run.metrics.items() if name.startswith("test/kl_dimension/")]
    pictures.posterior_kl(folder / "posterior_kl.png", nats)
  _KINDS[examples.ndim](run, examples, folder)


def _series(run, examples, folder):
  title, attention = words.error_beside_pca(run.metrics), run.attention(examples)
  pictures.series(folder / "reconstructions.png", examples, run.reconstruct(examples), title)
  if attention:
    pictures.attention_to_series(folder / "attention.png", examples, attention)


def _images(run, examples, folder):
  title, value_range, attention = words.error_beside_pca(run.metrics), run.config.data.range, run.attention(examples)
  pictures.reconstructions(folder / "reconstructions.png", examples, run.reconstruct(examples), value_range, title)
  if attention:
    pictures.attention_to_images(folder / "attention.png", examples, attention, value_range)
  if run.model.can("posterior"):
    z = np.random.default_rng(run.config.seed).normal(size=(SAMPLED, run.config.model.latent))
    pictures.samples(folder / "samples.png", run.decode(z), value_range, "decoded draws from the prior")
  if "denoising" in run.config.evaluators:
    rows, keys = {"test images": examples}, jax.random.split(jax.random.key(run.config.seed), len(examples))
    for name, level in denoising.NOISES:
      noisy = np.asarray(corruptions.corrupt(name, keys, examples, level, ranges.BYTE_SPANS[value_range])[0])
      rows |= {f"{name} {level:g}": noisy, f"{name} {level:g} restored": run.apply("reconstruct", noisy)}
    pictures.rows_of_images(folder / "denoising.png", rows, value_range, "noisy test images, and what becomes of them")


_KINDS = {3: _series, 4: _images}
