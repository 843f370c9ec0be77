"""The lecture's claims about the architecture of autoencoders.

Each function checks one claim and yields rows (claim, measurement as text, {name: measured values}) of the README's
table. Results of training are given for three seeds as mean (minimum to maximum).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ae_jax import models
from ae_jax.ops import losses
from configs import cnn, dense
from experiments.lecture import fitting
from experiments.lecture.fitting import SEEDS, make_config, mnist_5k
from experiments.shipped_configs.run import spread


def library():
  """Checks the softmax of the attention example on the first slides."""
  high, low = (100 * float(weight) for weight in jax.nn.softmax(jnp.asarray([90.0, 15.0]) / 10))
  yield "softmax of the scores (90, 15) / 10 is (85 %, 15 %)", f"({high:.3f} %, {low:.3f} %)", {"percent": [high, low]}


def sizes():
  """Checks the output sizes of the transposed convolutions in the lecture's table."""

  def output_size(input_size, kernel, stride, padding):
    return (input_size - 1) * stride - 2 * padding + kernel

  lecture = [output_size(5, 3, 2, 1), output_size(11, 3, 3, 1)]
  right = [output_size(5, 3, 2, 0), output_size(11, 8, 2, 0)]
  measured = f"they give {lecture[0]} and {lecture[1]}; 3x3 s2 p0 and 8x8 s2 p0 give {right[0]} and {right[1]}"
  yield "ConvT 3x3 s2 p1: 5 -> 11; ConvT 3x3 s3 p1: 11 -> 28", measured, {"lecture": lecture, "right": right}


def untrained():
  """Measures the losses of an untrained model, to compare with those printed on the slides."""
  x, y = np.random.default_rng(0).uniform(size=(2, 4000, 784)).astype(np.float32)
  model = models.build(shape=(28, 28, 1), **dense.get_config().model)
  logits = model.reconstruct(model.init(jax.random.key(0)), jnp.asarray(x.reshape(-1, 28, 28, 1)))
  nats = float(losses.bernoulli_nats(logits, y).mean()) / 784
  normal = np.random.default_rng(1).normal(size=(4000, 784))
  mse = float(np.square(normal).mean())
  measured = (
    f"an untrained net on random pixels has BCE {nats:.4f} (ln 2 = {math.log(2):.4f}), and E[x^2] of normal data is "
    f"{mse:.4f}"
  )
  yield "losses 0.6947 (BCE) and 0.9957 (MSE)", measured, {"bce": nats, "mse": mse}


def size_of_models():
  """Compares parameters and multiply-adds of the dense and the convolutional autoencoder."""
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
  measured = (
    f"{small['parameters']:,} against {large['parameters']:,} parameters, but {share:.0%} of them are the two dense "
    f"layers around its latent code, and it takes {ratio:.2f} times the multiply-adds "
    f"({small['multiply_adds']:,} against {large['multiply_adds']:,})"
  )
  yield "the CNN is far smaller because its weights are shared", measured, counts


def upsampling_costs():
  """Compares the multiply-adds of upsampling followed by a convolution with those of a transposed convolution."""
  taps = 3 * 3 * 32 * 16  # 3x3 kernel, 32 to 16 channels
  transposed, upsampled = 5 * 5 * taps, 11 * 11 * taps
  measured = f"at the first stage, 5 -> 11, it takes {upsampled / transposed:.2f} times the multiply-adds"
  yield (
    "upsampling and then convolving costs about the same",
    measured,
    {"transposed": transposed, "upsampled": upsampled},
  )


def affine_decoder():
  """Measures rank and error of a decoder without activations between its layers."""
  dataset, x = mnist_5k()
  ranks, errors = {}, {}
  for activation in ("identity", "relu"):
    config = make_config(cnn, epochs=15, model__decoder_activation=activation)
    fitted = fitting.fit(config, dataset, SEEDS)
    logits = [model.logits(x).reshape(len(x), -1).astype(np.float64) for model in fitted]
    values = [np.linalg.svd(matrix, compute_uv=False) for matrix in logits]
    ranks[activation] = [int((v > 1e-5 * v[0]).sum()) for v in values]
    errors[activation] = [model.error(x) for model in fitted]
  measured = (
    f"the decoder is then one affine map: its logits on 1,000 digits have rank {max(ranks['identity'])} (latent + 1 = "
    f"33), with ReLU {min(ranks['relu'])} or more; squared error {spread(errors['identity'])} against "
    f"{spread(errors['relu'])}"
  )
  yield "no activation between the decoder's layers", measured, {"rank": ranks, "squared_error": errors}


def translation():
  """Measures the effect of a shift by one pixel on a convolution and on the latent code."""
  dataset, x = mnist_5k()
  x[:, [0, 1, -2, -1]] = 0
  x[:, :, [0, 1, -2, -1]] = 0
  shifted = np.roll(x, 1, axis=2)
  errors, shares = [], []
  for model in fitting.fit(make_config(cnn, epochs=15), dataset, SEEDS):
    kernel = model.variables.params["encoder"]["Conv_0"]["kernel"]
    maps, shifted_maps = (
      np.asarray(jax.lax.conv_general_dilated(a, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")))
      for a in (x[:200], shifted[:200])
    )
    errors.append(float(np.abs(shifted_maps[:, :, 1:] - maps[:, :, :-1]).max()))
    z, z_shifted = model.apply("encode", x), model.apply("encode", shifted)
    squared_distances = np.square(z[:, None, :] - z[None, :200]).sum(-1)
    shares.append(math.sqrt(np.square(z_shifted - z).sum(1).mean() / squared_distances.mean()))
  measured = (
    "only the convolution is equivariant: a shift of its input by a pixel shifts its output (difference "
    f"{max(errors):.0e}); but the latent code moves by {spread([100 * share for share in shares], 0)} % of the "
    "distance between two digits"
  )
  yield "convolutions make it translation invariant", measured, {"convolution": errors, "code": shares}


DECODERS = {  # name -> changed keys; numbers of parameters differ by less than 1 %
  "transposed 4x4 s3": {"model__decoder_kernels": (3, 4), "model__decoder_strides": (2, 3)},
  "transposed 6x6 s3": {"model__decoder_kernels": (3, 6), "model__decoder_strides": (2, 3)},
  "nearest": {"model__decoder": "nearest", "model__decoder_kernels": (3, 4)},
  "bilinear": {"model__decoder": "bilinear", "model__decoder_kernels": (3, 4)},
  "subpixel": {"model__decoder": "subpixel", "model__decoder_kernels": (1, 1)},
}


def checkerboards():
  """Measures checkerboards: spectral power at the period of the last stage's stride, 3 pixels.

  Measured in the output of untrained decoders and in the reconstruction error of trained ones.
  """
  dataset, x = mnist_5k()
  z = np.random.default_rng(0).normal(size=(500, 32)).astype(np.float32)
  values = {
    key: {} for key in ("untrained", "trained", "untrained_spectrum", "trained_spectrum", "parameters", "squared_error")
  }
  for name, changes in DECODERS.items():
    config = make_config(cnn, epochs=8, **changes)
    fitted = fitting.fit(config, dataset, SEEDS)
    outputs = [fitting.initialised(config, dataset.shape, seed).apply("decode", z) for seed in SEEDS]
    errors = [model.reconstruct(x) - x for model in fitted]
    for key, images_of_seeds in {"untrained": outputs, "trained": errors}.items():
      power = [spectrum(images) for images in images_of_seeds]
      values[key][name] = [float(p[9] / np.sqrt(p[8] * p[10])) for p in power]
      values[f"{key}_spectrum"][name] = np.mean(power, axis=0).tolist()
    values["parameters"][name] = fitted[0].model.parameter_count()
    values["squared_error"][name] = [model.error(x) for model in fitted]
  cells = [f"{name} {spread(values['untrained'][name])} and {spread(values['trained'][name])}" for name in DECODERS]
  measured = (
    "power at a period of 3 pixels relative to the neighbouring frequencies, in the output of an untrained decoder and "
    f"in the error after 8 epochs: {'; '.join(cells)}; training on digits removes the initial checkerboards"
  )
  yield "transposed convolutions give checkerboards, upsampling does not", measured, values


def spectrum(images):
  """Returns the power spectrum [14] of images [N, H, W, 1], the mean over rows and columns; cycles in 27 pixels."""
  window = images[:, :27, :27, 0]
  rows, columns = (np.square(np.abs(np.fft.rfft(window, axis=axis))).mean((0, 3 - axis)) for axis in (1, 2))
  return (rows + columns) / 2
