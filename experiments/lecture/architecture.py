"""The claims about how an autoencoder is built, each a function that generates rows of the table.

A row is (what the lecture says, what was measured, in words, {name: numbers}). Where a claim is about training, the
numbers are those of three seeds and the words give their mean (least to greatest).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ae_jax import models
from ae_jax.ops import losses
from configs import cnn, dense
from experiments.lecture import fitting
from experiments.lecture.fitting import SEEDS, configured, mnist_5k
from experiments.shipped_configs.run import spread


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
    params = model.abstract_variables().params
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


def upsampling_costs():
  """Multiply-adds of upsampling and then convolving, against the transposed convolution."""
  taps = 3 * 3 * 32 * 16  # of a 3x3 kernel from 32 to 16 channels
  transposed, upsampled = 5 * 5 * taps, 11 * 11 * taps
  words = f"at the first stage, 5 -> 11, it takes {upsampled / transposed:.2f} times the multiply-adds"
  yield "upsampling and then convolving costs about the same", words, {"transposed": transposed, "upsampled": upsampled}


def affine_decoder():
  """The table without activations between the decoder's layers."""
  dataset, x = mnist_5k()
  ranks, errors = {}, {}
  for activation in ("identity", "relu"):
    config = configured(cnn, epochs=15, model__decoder_activation=activation)
    fitted = fitting.fit(config, dataset, SEEDS)
    logits = [one.logits(x).reshape(len(x), -1).astype(np.float64) for one in fitted]
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
  x[:, [0, 1, -2, -1]] = 0
  x[:, :, [0, 1, -2, -1]] = 0
  moved = np.roll(x, 1, axis=2)
  errors, shares = [], []
  for one in fitting.fit(configured(cnn, epochs=15), dataset, SEEDS):
    kernel = one.variables.params["encoder"]["Conv_0"]["kernel"]
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


DECODERS = {  # name: changes; parameters differ by less than a hundredth
  "transposed 4x4 s3": {"model__decoder_kernels": (3, 4), "model__decoder_strides": (2, 3)},
  "transposed 6x6 s3": {"model__decoder_kernels": (3, 6), "model__decoder_strides": (2, 3)},
  "nearest": {"model__decoder": "nearest", "model__decoder_kernels": (3, 4)},
  "bilinear": {"model__decoder": "bilinear", "model__decoder_kernels": (3, 4)},
  "subpixel": {"model__decoder": "subpixel", "model__decoder_kernels": (1, 1)},
}


def checkerboards():
  """The spectra of an untrained decoder's output and of the trained one's error at its last stage's period of 3."""
  dataset, x = mnist_5k()
  z = np.random.default_rng(0).normal(size=(500, 32)).astype(np.float32)
  found = {
    key: {} for key in ("untrained", "trained", "untrained_spectrum", "trained_spectrum", "parameters", "squared_error")
  }
  for name, changes in DECODERS.items():
    config = configured(cnn, epochs=8, **changes)
    fitted = fitting.fit(config, dataset, SEEDS)
    outputs = [fitting.untrained(config, dataset.shape, seed).apply("decode", z) for seed in SEEDS]
    errors = [one.reconstruct(x) - x for one in fitted]
    for key, images in {"untrained": outputs, "trained": errors}.items():
      power = [spectrum(one) for one in images]
      found[key][name] = [float(p[9] / np.sqrt(p[8] * p[10])) for p in power]
      found[f"{key}_spectrum"][name] = np.mean(power, axis=0).tolist()
    found["parameters"][name] = fitted[0].model.parameter_count()
    found["squared_error"][name] = [one.error(x) for one in fitted]
  cells = [f"{name} {spread(found['untrained'][name])} and {spread(found['trained'][name])}" for name in DECODERS]
  words = (
    "power at a period of 3 pixels over that of its neighbours, of an untrained decoder's output and of the error "
  )
  yield (
    "transposed convolutions give checkerboards, upsampling does not",
    f"{words}after 8 epochs: {'; '.join(cells)}: so they begin, and on digits training removes them",
    found,
  )


def spectrum(images):
  """Power of images [N, H, W, 1] per frequency (cycles in 27 pixels) along rows and columns: [14]."""
  window = images[:, :27, :27, 0]
  rows, columns = (np.square(np.abs(np.fft.rfft(window, axis=axis))).mean((0, 3 - axis)) for axis in (1, 2))
  return (rows + columns) / 2
