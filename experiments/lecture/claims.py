"""The lecture's claims, each as a function that generates rows of the table.

A row is (what the lecture says, what was measured, in words, {name: numbers}). Where a claim is about training, the
numbers are those of three seeds and the words give their mean (least to greatest).
"""

import math
import os
import pathlib
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import datasets as sklearn_datasets
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from ae_jax import data, losses, models
from configs import cnn, dense, linear, tied, unet
from experiments.lecture import fitting

SEEDS = (0, 1, 2)
LATENTS = (2, 4, 8, 16, 32, 64, 128)
MNIST = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "nowhere")) / "mnist"


def configured(module, **changes):
  """configs/NAME.py:mnist_5k with some keys changed, dotted by two underscores."""
  config = module.get_config("mnist_5k")
  config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
  return config


def spread(values, digits=2):
  """Mean (least to greatest)."""
  return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def mnist_5k():
  """The embedded images, and the test images as floats."""
  dataset = data.load("mnist_5k", "", "unit", -1)
  return dataset, fitting.test_examples(dataset)


def library():
  """The attention example of the first slides."""
  high, low = (100 * float(weight) for weight in jax.nn.softmax(jnp.asarray([90.0, 15.0]) / 10))
  yield "softmax of the scores (90, 15) / 10 is (85 %, 15 %)", f"({high:.3f} %, {low:.3f} %)", {"percent": [high, low]}


def sizes():
  """The transposed convolutions of the lecture's table."""

  def side(before, kernel, stride, padding):
    return (before - 1) * stride - 2 * padding + kernel

  lecture = [side(5, 3, 2, 1), side(11, 3, 3, 1)]
  right = [side(5, 3, 2, 0), side(11, 8, 2, 0)]
  words = f"they give {lecture[0]} and {lecture[1]}; 3x3 s2 p0 and 8x8 s2 p0 give {right[0]} and {right[1]}"
  yield "ConvT 3x3 s2 p1: 5 -> 11; ConvT 3x3 s3 p1: 11 -> 28", words, {"lecture": lecture, "right": right}


def untrained():
  """The losses that the slides print."""
  x, y = np.random.default_rng(0).uniform(size=(2, 4000, 784)).astype(np.float32)
  model = models.build(shape=(28, 28, 1), **dense.get_config().model)
  logits = model.reconstruct(model.init(jax.random.key(0)), jnp.asarray(x.reshape(-1, 28, 28, 1)))
  nats = float(losses.bernoulli_nats(logits, y).mean()) / 784
  normal = np.random.default_rng(1).normal(size=(4000, 784))
  mse = float(np.square(normal).mean())
  words = (
    f"an untrained net on random pixels has BCE {nats:.4f} (ln 2 = {math.log(2):.4f}), and E[x^2] of normal data is "
    f"{mse:.4f}"
  )
  yield "losses 0.6947 (BCE) and 0.9957 (MSE)", words, {"bce": nats, "mse": mse}


def size_of_models():
  """Parameters and multiply-adds of the dense and the convolutional autoencoder."""
  multiply_adds = {
    "dense": 2 * (784 * 256 + 256 * 32),
    "cnn": 26 * 26 * 9 * 16 + 11 * 11 * 9 * 16 * 32 + 2 * 800 * 32 + 5 * 5 * 9 * 32 * 16 + 11 * 11 * 64 * 16,
  }
  counts = {}
  for name, module in {"dense": dense, "cnn": cnn}.items():
    model = models.build(shape=(28, 28, 1), **module.get_config().model)
    params = jax.eval_shape(model.init, jax.random.key(0))
    around = sum(leaf.size for leaf in jax.tree.leaves((params["encoder"]["code"], params["decoder"].get("Dense_0"))))
    counts[name] = {
      "parameters": model.parameter_count(),
      "around_the_code": around,
      "multiply_adds": multiply_adds[name],
    }
  small, large = counts["cnn"], counts["dense"]
  share = small["around_the_code"] / small["parameters"]
  ratio = small["multiply_adds"] / large["multiply_adds"]
  words = (
    f"{small['parameters']:,} against {large['parameters']:,} parameters, but {share:.0%} of them are the two dense "
    f"layers around its code, and it takes {ratio:.2f} times the multiply-adds ({small['multiply_adds']:,} against "
    f"{large['multiply_adds']:,})"
  )
  yield "the CNN is far smaller because its weights are shared", words, counts


def affine_decoder():
  """The table without activations between the decoder's layers."""
  dataset, x = mnist_5k()
  ranks, errors = {}, {}
  for activation in ("identity", "relu"):
    config = configured(cnn, epochs=15, model__decoder_activation=activation)
    fitted = fitting.fit(config, dataset, SEEDS)
    logits = [one.apply("__call__", x).reshape(len(x), -1).astype(np.float64) for one in fitted]
    values = [np.linalg.svd(matrix, compute_uv=False) for matrix in logits]
    ranks[activation] = [int((v > 1e-5 * v[0]).sum()) for v in values]
    errors[activation] = [one.error(x) for one in fitted]
  words = (
    f"then it is one affine map: its logits on 1,000 digits have rank {max(ranks['identity'])} (latent + 1 = 33), with "
    f"ReLU {min(ranks['relu'])} or more; squared error {spread(errors['identity'])} against {spread(errors['relu'])}"
  )
  yield "no activation between the decoder's layers", words, {"rank": ranks, "squared_error": errors}


def translation():
  """Invariance, or equivariance of the convolutions alone."""
  dataset, x = mnist_5k()
  x = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))[:, 2:-2, 2:-2]
  x[:, [0, 1, -2, -1]] = 0
  x[:, :, [0, 1, -2, -1]] = 0
  moved = np.roll(x, 1, axis=2)
  errors, shares = [], []
  for one in fitting.fit(configured(cnn, epochs=15), dataset, SEEDS):
    kernel = one.params["encoder"]["Conv_0"]["kernel"]
    maps, moved_maps = (
      np.asarray(jax.lax.conv_general_dilated(a, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")))
      for a in (x[:200], moved[:200])
    )
    errors.append(float(np.abs(moved_maps[:, :, 1:] - maps[:, :, :-1]).max()))
    z, z_moved = one.apply("encode", x), one.apply("encode", moved)
    between = np.square(z[:, None, :] - z[None, :200]).sum(-1)
    shares.append(math.sqrt(np.square(z_moved - z).sum(1).mean() / between.mean()))
  words = (
    f"equivariance, of the convolution alone: shifted by a pixel, its output is shifted (to {max(errors):.0e}); but "
    f"the code moves {spread([100 * share for share in shares], 0)} % of the distance between two digits"
  )
  yield "convolutions make it translation invariant", words, {"convolution": errors, "code": shares}


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


DECODERS = {  # name: changes; all but subpixel have the same parameters per kernel
  "transposed 4x4 s3": {"model__decoder_kernels": (3, 4), "model__decoder_strides": (2, 3)},
  "transposed 6x6 s3": {"model__decoder_kernels": (3, 6), "model__decoder_strides": (2, 3)},
  "nearest 4x4": {"model__decoder": "nearest", "model__decoder_kernels": (3, 4)},
  "bilinear 4x4": {"model__decoder": "bilinear", "model__decoder_kernels": (3, 4)},
  "subpixel 4x4": {"model__decoder": "subpixel", "model__decoder_kernels": (3, 4)},
}


def checkerboards():
  """The spectrum of the reconstruction error at the period of the last stage, three pixels, for each decoder."""
  dataset, x = mnist_5k()
  energies, spectra, counts, errors = {}, {}, {}, {}
  for name, changes in DECODERS.items():
    fitted = fitting.fit(configured(cnn, epochs=8, **changes), dataset, SEEDS)
    counts[name] = fitted[0].model.parameter_count()
    errors[name] = [one.error(x) for one in fitted]
    power = [error_spectrum(one.reconstruct(x) - x) for one in fitted]
    energies[name] = [float(p[9] / np.sqrt(p[8] * p[10])) for p in power]
    spectra[name] = np.mean(power, axis=0).tolist()
  words = "; ".join(f"{name} {spread(values)}" for name, values in energies.items())
  yield (
    "transposed convolutions give checkerboards, upsampling does not",
    f"power of the error at a period of 3 pixels over that of its neighbours: {words}",
    {"peak": energies, "spectrum": spectra, "parameters": counts, "squared_error": errors},
  )


def error_spectrum(error):
  """Power of images [N, H, W, 1] per frequency (cycles in 27 pixels) along rows and columns: [14]."""
  window = error[:, :27, :27, 0]
  rows, columns = (np.square(np.abs(np.fft.rfft(window, axis=axis))).mean((0, 3 - axis)) for axis in (1, 2))
  return (rows + columns) / 2


def upsampling_costs():
  """Multiply-adds of upsampling and then convolving, against the transposed convolution."""
  taps = 3 * 3 * 32 * 16  # of a 3x3 kernel from 32 to 16 channels
  transposed, upsampled = 5 * 5 * taps, 11 * 11 * taps
  words = f"at the first stage, 5 -> 11, it takes {upsampled / transposed:.2f} times the multiply-adds"
  yield "upsampling and then convolving costs about the same", words, {"transposed": transposed, "upsampled": upsampled}


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
  dataset = data.load("mnist", "", "unit", -1) if full else data.load("mnist_5k", "", "unit", -1)
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
    nats[likelihood] = [float(losses.bernoulli_nats(one.apply("__call__", x), x).mean()) for one in fitted]
  words = (
    f"trained with BCE: squared error {spread(errors['bernoulli'])}, {spread(nats['bernoulli'])} nats; with MSE: "
    f"{spread(errors['gaussian'])}, {spread(nats['gaussian'])} nats"
  )
  yield "BCE for data in [0, 1], MSE for real data", words, {"squared_error": errors, "nats": nats}


def sheets():
  """Two sheets in space: {name: (points [N, 3], their coordinates on the sheet [N, 2])}, each point unit variance."""
  generator = np.random.default_rng(0)
  roll, angle = sklearn_datasets.make_swiss_roll(3000, random_state=0)
  flat = generator.uniform(-1, 1, size=(3000, 2))
  waves = generator.normal(scale=2.2, size=(2, 6))
  crumpled = np.c_[flat, np.zeros(3000)] + 0.35 * np.sin(flat @ waves + generator.uniform(0, 6, 6)) @ generator.normal(
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
    changes = {"model__latent": 2, "model__widths": (128, 128), "model__activation": "gelu", "epochs": 150}
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


CLAIMS = (
  library,
  sizes,
  untrained,
  size_of_models,
  upsampling_costs,
  affine_decoder,
  translation,
  linear_is_pca,
  latent_sizes,
  manifolds,
  skips,
  checkerboards,
  permuted_pixels,
  tied_weights,
  training_losses,
)
