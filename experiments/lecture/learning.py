"""The lecture's claims about what autoencoders learn; functions as in `architecture`."""

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
from experiments.lecture.fitting import SEEDS, make_config, mnist_5k
from experiments.shipped_configs.run import spread

LATENTS = (2, 4, 8, 16, 32, 64, 128)
MNIST = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "nowhere")) / "mnist"


def linear_is_pca():
  """Compares the linear autoencoder with PCA."""
  dataset, x = mnist_5k()
  dataset = fitting.array_dataset(dataset.train, dataset.test, "real")
  train = (dataset.train / 255).reshape(len(dataset.train), -1)
  flat = x.reshape(len(x), -1)
  pca = PCA(32, svd_solver="full").fit(train)
  pca_error = fitting.squared_error(pca.inverse_transform(pca.transform(flat)), flat)
  errors, correlations = [], []
  for model in fitting.fit(make_config(linear), dataset, SEEDS):
    errors.append(model.error(x))
    z, components = model.apply("encode", x), pca.transform(flat)
    correlations.append(float(np.abs(np.corrcoef(z.T, components.T)[:32, 32:]).max(1).mean()))
  measured = (
    f"squared error {spread(errors, 3)}, PCA {pca_error:.3f}; but the correlation of a latent with the nearest "
    f"principal component is only {spread(correlations)}"
  )
  yield (
    "a linear autoencoder is the same as PCA",
    measured,
    {"squared_error": errors, "pca": pca_error, "correlation": correlations},
  )


def latent_sizes():
  """Compares the dense autoencoder with PCA at each latent size."""
  dataset, x = mnist_5k()
  train, flat = (dataset.train / 255).reshape(len(dataset.train), -1), x.reshape(len(x), -1)
  pca = PCA(max(LATENTS), svd_solver="full").fit(train)
  curves = {"pca": [], "dense": []}
  for latent in LATENTS:
    scores = pca.transform(flat)
    scores[:, latent:] = 0
    curves["pca"].append(fitting.squared_error(pca.inverse_transform(scores), flat))
    fitted = fitting.fit(make_config(dense, epochs=30, model__latent=latent), dataset, SEEDS)
    curves["dense"].append([model.error(x) for model in fitted])
  ratios = {
    latent: statistics.mean(e) / p for latent, e, p in zip(LATENTS, curves["dense"], curves["pca"], strict=True)
  }
  measured = "squared error as a share of PCA's: " + ", ".join(f"{ratio:.0%} at {k}" for k, ratio in ratios.items())
  yield "an autoencoder is a nonlinear PCA, and better", measured, {"latent": LATENTS, **curves}


def sheets():
  """Returns two sheets in space, {name: (points [N, 3] of unit variance, coordinates on the sheet [N, 2])}."""
  generator = np.random.default_rng(0)
  roll, angle = sklearn_datasets.make_swiss_roll(3000, random_state=0)
  flat = generator.uniform(-1, 1, size=(3000, 2))
  waves = generator.normal(scale=1.8, size=(2, 6))
  crumpled = np.c_[flat, np.zeros(3000)] + 0.3 * np.sin(flat @ waves + generator.uniform(0, 6, 6)) @ generator.normal(
    size=(6, 3)
  )
  surfaces = {"crumpled paper": (crumpled, flat), "swiss roll": (roll, np.c_[angle, roll[:, 1]])}
  return {name: ((points - points.mean(0)) / points.std(), sheet) for name, (points, sheet) in surfaces.items()}


def manifolds():
  """Flattens 2-D sheets in 3-D space by an autoencoder and by PCA."""
  for name, (points, sheet) in sheets().items():
    points = points.astype(np.float32)
    dataset = fitting.array_dataset(points[:2000], points[2000:], "real")
    test, on_sheet = points[2000:], sheet[2000:]
    on_sheet = (on_sheet - on_sheet.mean(0)) / on_sheet.std(0)
    changes = {"model__latent": 2, "model__widths": (256, 128, 64), "model__activation": "gelu", "epochs": 400}
    config = make_config(dense, **changes, objective__likelihood="gaussian", data__range="real")
    fitted = fitting.fit(config, dataset, SEEDS)
    pca = PCA(2).fit(points[:2000])
    flattened = {
      "pca": pca.transform(test),
      **{seed: model.apply("encode", test) for seed, model in zip(SEEDS, fitted, strict=True)},
    }
    trust = {key: float(trustworthiness(on_sheet, codes, n_neighbors=10)) for key, codes in flattened.items()}
    errors = [model.error(test) for model in fitted]
    pca_error = fitting.squared_error(pca.inverse_transform(flattened["pca"]), test)
    measured = (
      f"{name}: squared error {spread(errors, 3)} against PCA's {pca_error:.3f}; trustworthiness of the latent code "
      f"{spread([trust[seed] for seed in SEEDS])}, of PCA {trust['pca']:.2f}"
    )
    best = SEEDS[int(np.argmax([trust[seed] for seed in SEEDS]))]
    picture = {
      "points": test.tolist(),
      "sheet": on_sheet.tolist(),
      "code": flattened[best].tolist(),
      "pca": flattened["pca"].tolist(),
    }
    yield (
      "a sheet crumpled in space is flattened by an autoencoder",
      measured,
      {
        "squared_error": errors,
        "pca_squared_error": pca_error,
        "trustworthiness": {str(key): value for key, value in trust.items()},
        "picture": {"name": name, **picture},
      },
    )


def skips():
  """Measures a skip at has_mnist resolution: with clean input it bypasses the bottleneck, in denoising it helps."""
  dataset, x = mnist_5k()
  order = np.random.default_rng(0).permutation(len(x))
  noisy = x + np.random.default_rng(1).normal(scale=0.5, size=x.shape).astype(np.float32)
  clean = {"objective": {"name": "reconstruction", "likelihood": "bernoulli"}}
  errors, shuffled, decibels = {}, {}, {}
  for kind in ("additive", "none"):
    config = make_config(unet, epochs=8, model__skips=kind)
    decibels[kind] = [fitting.psnr(model.reconstruct(noisy), x) for model in fitting.fit(config, dataset, SEEDS)]
    with config.unlocked():
      config.objective = clean["objective"]
    fitted = fitting.fit(config, dataset, SEEDS)
    errors[kind] = [model.error(x) for model in fitted]
    codes = [model.apply("encode", x)[order] for model in fitted]
    outputs = [model.output(model.apply("decode_beside", z, x)) for model, z in zip(fitted, codes, strict=True)]
    shuffled[kind] = [fitting.squared_error(x_hat, x) for x_hat in outputs]
  measured = (
    f"clean input: with the skip, squared error {spread(errors['additive'])}, and {spread(shuffled['additive'])} with "
    f"the latent codes of other digits; without it, {spread(errors['none'])} and {spread(shuffled['none'])}"
  )
  yield "skip connections are the heart of an autoencoder", measured, {"squared_error": errors, "shuffled": shuffled}
  measured = (
    f"PSNR of restored digits (noise 0.5): {spread(decibels['additive'])} dB with the skip, "
    f"{spread(decibels['none'])} without"
  )
  yield "skip connections help denoising", measured, {"psnr": decibels}


def permuted_pixels():
  """Trains on images whose pixels are permuted by one fixed permutation."""
  dataset, x = mnist_5k()
  order = np.random.default_rng(0).permutation(784)

  def permute(images):
    return images.reshape(len(images), 784)[:, order].reshape(images.shape)

  permuted = fitting.array_dataset(permute(dataset.train), permute(dataset.test), "unit")
  errors = {}
  for name, module in {"dense": dense, "cnn": cnn}.items():
    config = make_config(module, epochs=15)
    errors[name] = [model.error(x) for model in fitting.fit(config, dataset, SEEDS)]
    errors[f"{name}, permuted"] = [model.error(permute(x)) for model in fitting.fit(config, permuted, SEEDS)]
  measured = "squared error " + "; ".join(f"{name} {spread(values)}" for name, values in errors.items())
  yield "a dense net does not see the image's structure, a CNN does", measured, errors


def tied_weights():
  """Compares tied with untied weights at three sizes of the training set, with the same number of steps."""
  has_mnist = MNIST.exists()
  dataset = data.load("mnist", "", "unit") if has_mnist else data.load("mnist_5k", "", "unit")
  x, errors = fitting.test_examples(dataset), {}
  for size in (1_000, 10_000, 60_000) if has_mnist else (1_000, 4_000):
    subset = fitting.array_dataset(dataset.train[:size], dataset.test, "unit")
    for name, module in {"tied": tied, "untied": dense}.items():
      config = make_config(module, epochs=max(1, 300_000 // size))
      errors[f"{name}, {size:,}"] = [model.error(x) for model in fitting.fit(config, subset, SEEDS)]
  measured = "squared error " + "; ".join(f"{name} {spread(values)}" for name, values in errors.items())
  yield "tied weights halve the parameters and regularise", measured, errors


def training_losses():
  """Compares training with cross-entropy and training with squared error."""
  dataset, x = mnist_5k()
  errors, nats = {}, {}
  for likelihood in ("bernoulli", "gaussian"):
    fitted = fitting.fit(make_config(dense, epochs=30, objective__likelihood=likelihood), dataset, SEEDS)
    errors[likelihood] = [model.error(x) for model in fitted]
    nats[likelihood] = [float(losses.bernoulli_nats(model.logits(x), x).mean()) for model in fitted]
  measured = (
    f"trained with BCE: squared error {spread(errors['bernoulli'])}, {spread(nats['bernoulli'])} nats; with MSE: "
    f"{spread(errors['gaussian'])}, {spread(nats['gaussian'])} nats"
  )
  yield "BCE for data in [0, 1], MSE for real data", measured, {"squared_error": errors, "nats": nats}
