"""The claims about what an autoencoder learns: functions that generate rows of the table, as in `architecture`."""

import os
import pathlib
import statistics

import numpy as np
from sklearn import datasets as sklearn_datasets
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from ae_jax import data
from ae_jax.ops import losses
from configs import cnn, dense, linear, tied, unet
from experiments.lecture import fitting
from experiments.lecture.fitting import SEEDS, configured, mnist_5k
from experiments.shipped_configs.run import spread

LATENTS = (2, 4, 8, 16, 32, 64, 128)
MNIST = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "nowhere")) / "mnist"


def linear_is_pca():
  """The linear autoencoder beside PCA."""
  dataset, x = mnist_5k()
  dataset = fitting.made(dataset.train, dataset.test, "real")
  train = (dataset.train / 255).reshape(len(dataset.train), -1)
  flat = x.reshape(len(x), -1)
  pca = PCA(32, svd_solver="full").fit(train)
  wanted = fitting.squared_error(pca.inverse_transform(pca.transform(flat)), flat)
  errors, correlations = [], []
  for one in fitting.fit(configured(linear), dataset, SEEDS):
    errors.append(one.error(x))
    z, components = one.apply("encode", x), pca.transform(flat)
    correlations.append(float(np.abs(np.corrcoef(z.T, components.T)[:32, 32:]).max(1).mean()))
  words = (
    f"squared error {spread(errors, 3)}, PCA {wanted:.3f}; but a unit of its code correlates with the nearest "
    f"principal component only {spread(correlations)}"
  )
  yield (
    "a linear autoencoder is the same as PCA",
    words,
    {"squared_error": errors, "pca": wanted, "correlation": correlations},
  )


def latent_sizes():
  """The autoencoder against PCA at each size of the code."""
  dataset, x = mnist_5k()
  train, flat = (dataset.train / 255).reshape(len(dataset.train), -1), x.reshape(len(x), -1)
  pca = PCA(max(LATENTS), svd_solver="full").fit(train)
  curves = {"pca": [], "dense": []}
  for latent in LATENTS:
    codes = pca.transform(flat)
    codes[:, latent:] = 0
    curves["pca"].append(fitting.squared_error(pca.inverse_transform(codes), flat))
    fitted = fitting.fit(configured(dense, epochs=30, model__latent=latent), dataset, SEEDS)
    curves["dense"].append([one.error(x) for one in fitted])
  ratios = {
    latent: statistics.mean(e) / p for latent, e, p in zip(LATENTS, curves["dense"], curves["pca"], strict=True)
  }
  words = "squared error as a share of PCA's: " + ", ".join(f"{ratio:.0%} at {k}" for k, ratio in ratios.items())
  yield "an autoencoder is a nonlinear PCA, and better", words, {"latent": LATENTS, **curves}


def sheets():
  """Two sheets in space: {name: (points [N, 3], their coordinates on the sheet [N, 2])}, each point unit variance."""
  generator = np.random.default_rng(0)
  roll, angle = sklearn_datasets.make_swiss_roll(3000, random_state=0)
  flat = generator.uniform(-1, 1, size=(3000, 2))
  waves = generator.normal(scale=1.8, size=(2, 6))
  crumpled = np.c_[flat, np.zeros(3000)] + 0.3 * np.sin(flat @ waves + generator.uniform(0, 6, 6)) @ generator.normal(
    size=(6, 3)
  )
  found = {"crumpled paper": (crumpled, flat), "swiss roll": (roll, np.c_[angle, roll[:, 1]])}
  return {name: ((points - points.mean(0)) / points.std(), sheet) for name, (points, sheet) in found.items()}


def manifolds():
  """A 2-D sheet crumpled in 3-D, flattened by an autoencoder, and by PCA."""
  for name, (points, sheet) in sheets().items():
    points = points.astype(np.float32)
    dataset = fitting.made(points[:2000], points[2000:], "real")
    test, on_sheet = points[2000:], sheet[2000:]
    on_sheet = (on_sheet - on_sheet.mean(0)) / on_sheet.std(0)
    changes = {"model__latent": 2, "model__widths": (256, 128, 64), "model__activation": "gelu", "epochs": 400}
    config = configured(dense, **changes, objective__likelihood="gaussian", data__range="real")
    fitted = fitting.fit(config, dataset, SEEDS)
    pca = PCA(2).fit(points[:2000])
    flattened = {
      "pca": pca.transform(test),
      **{seed: one.apply("encode", test) for seed, one in zip(SEEDS, fitted, strict=True)},
    }
    trust = {key: float(trustworthiness(on_sheet, codes, n_neighbors=10)) for key, codes in flattened.items()}
    errors = [one.error(test) for one in fitted]
    pca_error = fitting.squared_error(pca.inverse_transform(flattened["pca"]), test)
    words = (
      f"{name}: squared error {spread(errors, 3)} against PCA's {pca_error:.3f}; neighbours in the code are neighbours "
      f"on the sheet to {spread([trust[seed] for seed in SEEDS])}, PCA {trust['pca']:.2f} (trustworthiness)"
    )
    best = SEEDS[int(np.argmax([trust[seed] for seed in SEEDS]))]
    drawn = {
      "points": test.tolist(),
      "sheet": on_sheet.tolist(),
      "code": flattened[best].tolist(),
      "pca": flattened["pca"].tolist(),
    }
    yield (
      "a sheet crumpled in space is flattened by an autoencoder",
      words,
      {
        "squared_error": errors,
        "pca_squared_error": pca_error,
        "trustworthiness": {str(key): value for key, value in trust.items()},
        "picture": {"name": name, **drawn},
      },
    )


def skips():
  """A skip at full resolution: on clean input the bottleneck is not used, in denoising it helps."""
  dataset, x = mnist_5k()
  order = np.random.default_rng(0).permutation(len(x))
  noisy = x + np.random.default_rng(1).normal(scale=0.5, size=x.shape).astype(np.float32)
  clean = {"objective": {"name": "reconstruction", "likelihood": "bernoulli"}}
  errors, shuffled, decibels = {}, {}, {}
  for kind in ("additive", "none"):
    config = configured(unet, epochs=8, model__skips=kind)
    decibels[kind] = [fitting.psnr(one.reconstruct(noisy), x) for one in fitting.fit(config, dataset, SEEDS)]
    with config.unlocked():
      config.objective = clean["objective"]
    fitted = fitting.fit(config, dataset, SEEDS)
    errors[kind] = [one.error(x) for one in fitted]
    codes = [one.apply("encode", x)[order] for one in fitted]
    outputs = [one.output(one.apply("decode_beside", z, x)) for one, z in zip(fitted, codes, strict=True)]
    shuffled[kind] = [fitting.squared_error(x_hat, x) for x_hat in outputs]
  words = (
    f"clean input, with the skip: squared error {spread(errors['additive'])}, and {spread(shuffled['additive'])} with "
    f"the codes of other digits; without it {spread(errors['none'])} and {spread(shuffled['none'])}"
  )
  yield "skip connections are the heart of an autoencoder", words, {"squared_error": errors, "shuffled": shuffled}
  words = (
    f"PSNR of restored digits (noise 0.5): {spread(decibels['additive'])} dB with the skip, "
    f"{spread(decibels['none'])} without"
  )
  yield "skip connections help denoising", words, {"psnr": decibels}


def permuted_pixels():
  """One fixed permutation of the pixels of all images."""
  dataset, x = mnist_5k()
  order = np.random.default_rng(0).permutation(784)

  def permute(images):
    return images.reshape(len(images), 784)[:, order].reshape(images.shape)

  permuted = fitting.made(permute(dataset.train), permute(dataset.test), "unit")
  errors = {}
  for name, module in {"dense": dense, "cnn": cnn}.items():
    config = configured(module, epochs=15)
    errors[name] = [one.error(x) for one in fitting.fit(config, dataset, SEEDS)]
    errors[f"{name}, permuted"] = [one.error(permute(x)) for one in fitting.fit(config, permuted, SEEDS)]
  words = "squared error " + "; ".join(f"{name} {spread(values)}" for name, values in errors.items())
  yield "a dense net does not see the image's structure, a CNN does", words, errors


def tied_weights():
  """Tied against untied weights at three sizes of the training set, after equally many steps."""
  full = MNIST.exists()
  dataset = data.load("mnist", "", "unit") if full else data.load("mnist_5k", "", "unit")
  x, errors = fitting.test_examples(dataset), {}
  for size in (1_000, 10_000, 60_000) if full else (1_000, 4_000):
    part = fitting.made(dataset.train[:size], dataset.test, "unit")
    for name, module in {"tied": tied, "untied": dense}.items():
      config = configured(module, epochs=max(1, 300_000 // size))
      errors[f"{name}, {size:,}"] = [one.error(x) for one in fitting.fit(config, part, SEEDS)]
  words = "squared error " + "; ".join(f"{name} {spread(values)}" for name, values in errors.items())
  yield "tied weights halve the parameters and regularise", words, errors


def training_losses():
  """Training with cross-entropy against training with squared error."""
  dataset, x = mnist_5k()
  errors, nats = {}, {}
  for likelihood in ("bernoulli", "gaussian"):
    fitted = fitting.fit(configured(dense, epochs=30, objective__likelihood=likelihood), dataset, SEEDS)
    errors[likelihood] = [one.error(x) for one in fitted]
    nats[likelihood] = [float(losses.bernoulli_nats(one.logits(x), x).mean()) for one in fitted]
  words = (
    f"trained with BCE: squared error {spread(errors['bernoulli'])}, {spread(nats['bernoulli'])} nats; with MSE: "
    f"{spread(errors['gaussian'])}, {spread(nats['gaussian'])} nats"
  )
  yield "BCE for data in [0, 1], MSE for real data", words, {"squared_error": errors, "nats": nats}
