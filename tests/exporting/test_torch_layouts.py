"""Weights in PyTorch's layouts, against its layers as its documentation defines them, and against PyTorch itself."""

import itertools
import re
import types

import numpy as np
import pytest
from conftest import FAMILIES, ROOT
from made_exports import made

import ae_jax
from ae_jax import errors

pytestmark = pytest.mark.quick_compile
RANDOM = np.random.default_rng(0)
CNN = {"latent": 32, "channels": (16, 32), "decoder_kernels": (3, 8), "decoder_strides": (2, 2), "linear_path": "none"}


def conv(x, weight, bias):
  """torch.nn.functional.conv2d for x [N, C, H, W] and weight [out, C, kh, kw]."""
  windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (2, 3))  # [N, C, H', W', kh, kw]
  return np.einsum("nchwuv,ocuv->nohw", windows, weight) + bias[:, None, None]


def conv_transpose(x, weight, bias, stride, padding=0, output_padding=0):
  """torch.nn.functional.conv_transpose2d for x [N, C, H, W] and weight [C, out, kh, kw]."""
  (height, width), kernel = x.shape[2:], weight.shape[2:]
  sides = [stride * (side - 1) + k + output_padding for side, k in zip(x.shape[2:], kernel, strict=True)]
  full = np.zeros((len(x), weight.shape[1], *sides))
  for i, j, u, v in itertools.product(range(height), range(width), range(kernel[0]), range(kernel[1])):
    full[:, :, stride * i + u, stride * j + v] += x[:, :, i, j] @ weight[:, :, u, v]
  end = [side - padding for side in full.shape[2:]]
  return full[:, :, padding : end[0], padding : end[1]] + bias[:, None, None]


def pool(x):
  """torch.nn.functional.max_pool2d(x, 2)."""
  n, c, h, w = x.shape
  return x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))


relu = lambda x: np.maximum(x, 0)
sigmoid = lambda x: 1 / (1 + np.exp(-x))


def dense(state, x):
  """Linear layers with ReLU between them, in the order of the state_dict; the latents have none."""
  pairs, h = _pairs(state), x.reshape(len(x), -1)
  for number, (weight, bias) in enumerate(pairs):
    h = h @ weight.T + bias
    h = h if number in (len(pairs) // 2 - 1, len(pairs) - 1) else relu(h)
  return sigmoid(h).reshape(x.shape)


def _pairs(state):
  arrays = list(state.values())
  return list(zip(arrays[::2], arrays[1::2], strict=True))


def cnn(state, x, transposed, activation=relu):
  (w1, b1), (w2, b2), (w3, b3), (w4, b4), (w5, b5), (w6, b6) = _pairs(state)
  h = relu(pool(conv(relu(pool(conv(x, w1, b1))), w2, b2)))
  z = h.reshape(len(x), -1) @ w3.T + b3
  h = activation(z @ w4.T + b4).reshape(h.shape)
  return sigmoid(conv_transpose(activation(conv_transpose(h, w5, b5, **transposed[0])), w6, b6, **transposed[1]))


def random_state(shapes):
  """Returns random weights and biases in the order of a state_dict, with names that mean nothing."""
  state = {}
  for number, (shape, outputs) in enumerate(shapes):
    state[f"layers.{7 * number}.weight"] = np.float32(RANDOM.normal(size=shape) / np.prod(shape[1:]) ** 0.5)
    state[f"layers.{7 * number}.bias"] = np.float32(RANDOM.normal(size=outputs) / 3)
  return state


def check_round_trip(run, state):
  for ours, theirs in zip(run.to_torch().values(), state.values(), strict=True):
    np.testing.assert_array_equal(ours, theirs)


def test_the_dense_autoencoder_of_the_lecture_loads():
  state = random_state([((256, 784), 256), ((32, 256), 32), ((256, 32), 256), ((784, 256), 784)])
  run = ae_jax.from_torch(state, model="dense", model__widths=(256,), model__latent=32)
  x = RANDOM.uniform(size=(4, 1, 28, 28)).astype(np.float32)
  np.testing.assert_allclose(run.reconstruct(x[:, 0])[..., 0], dense(state, x)[:, 0], atol=1e-5)
  check_round_trip(run, state)


@pytest.mark.parametrize(
  ("kernels", "strides", "transposed"),
  [
    ((3, 8), (2, 2), ({"stride": 2}, {"stride": 2})),
    ((3, 4), (2, 3), ({"stride": 2}, {"stride": 3, "padding": 3})),
    ((4, 6), (2, 3), ({"stride": 2, "padding": 1, "output_padding": 1}, {"stride": 3, "padding": 4})),
  ],
)
def test_the_convolutional_autoencoder_of_the_lecture_loads(kernels, strides, transposed):
  a, b = kernels
  shapes = [((16, 1, 3, 3), 16), ((32, 16, 3, 3), 32), ((32, 800), 32), ((800, 32), 800)]
  state = random_state([*shapes, ((32, 16, a, a), 16), ((16, 1, b, b), 1)])
  options = {"decoder_kernels": kernels, "decoder_strides": strides, "decoder_activation": "identity"}
  run = ae_jax.from_torch(state, model="cnn", **{f"model__{key}": value for key, value in (CNN | options).items()})
  x = RANDOM.uniform(size=(2, 1, 28, 28)).astype(np.float32)
  expected = cnn(state, x, transposed, activation=lambda h: h)
  np.testing.assert_allclose(run.reconstruct(x[:, 0])[..., 0], expected[:, 0], atol=1e-5)
  check_round_trip(run, state)


def test_examples_with_several_channels_have_their_channels_first_in_pytorch():
  run = made(shape=(4, 5, 3), changes={"latent": 2, "widths": (6,)}.items())
  x = RANDOM.uniform(size=(3, 3, 4, 5)).astype(np.float32)
  found = run.reconstruct(np.moveaxis(x, 1, -1))
  np.testing.assert_allclose(np.moveaxis(found, -1, 1), dense(run.to_torch(), x), atol=1e-5)


@pytest.mark.parametrize(
  ("name", "shape", "options"),
  [
    ("dense", (6,), {"latent": 2, "widths": (5, 4), "decoder_widths": (3,)}),
    ("dense", (9, 2), {"latent": 2, "widths": tuple(range(4, 16))}),  # hidden_10 comes after hidden_9
    ("vae", (4, 4, 2), {"latent": 2, "widths": (5,)}),
    ("cnn", (20, 2), {"latent": 2, "channels": (3, 4), "linear_path": "none"}),
    ("cnn", (12, 10, 2), {"latent": 2, "channels": (3, 4), "decoder": "subpixel", "linear_path": "none"}),
    ("cnn", (12, 10, 2), {"latent": 2, "channels": (3, 4), "decoder": "bilinear", "linear_path": "none"}),
  ],
)
def test_weights_return_unchanged(name, shape, options):
  run = made(name, shape, options.items())
  state = run.to_torch()
  assert list(state)[:2] == ["encoder.0.weight", "encoder.0.bias"]
  assert {array.ndim for key, array in state.items() if key.endswith("bias")} == {1}
  loaded = ae_jax.from_torch(state, shape, run.config)
  again = loaded.to_torch()
  assert [*again] == [*state]
  for key, array in state.items():
    np.testing.assert_array_equal(again[key], array)
  for ours, theirs in zip(_leaves(run.params), _leaves(loaded.params), strict=True):
    np.testing.assert_array_equal(ours, theirs)


def _leaves(tree):
  return [leaf for key in sorted(tree) for leaf in (_leaves(tree[key]) if isinstance(tree[key], dict) else [tree[key]])]


def test_weights_that_do_not_fit_are_named():
  run = made()
  state = run.to_torch()
  with pytest.raises(errors.UserError, match=r"there are 7 arrays, and the model has 4 layers"):
    ae_jax.from_torch(dict(list(state.items())[:7]), (6, 5, 1), run.config)
  wrong = state | {"encoder.1.weight": state["encoder.1.weight"].T}
  with pytest.raises(errors.UserError, match=r"'encoder.1.weight'\]: has the shape \(8, 3\), .* needs \(3, 8\)"):
    ae_jax.from_torch(wrong, (6, 5, 1), run.config)


@pytest.mark.parametrize("scale", ["standard", "quantile"])
def test_a_config_that_scales_the_data_is_refused(scale):
  run = made(value_range="real")
  run.config.data.scale = scale
  with pytest.raises(errors.UserError, match=f"config.data.scale='{scale}': .*; pass data__scale='none'"):
    ae_jax.from_torch(run.to_torch(), (6, 5, 1), run.config)
  changes = {"data__scale": "none", "objective__likelihood": "mixed"}
  with pytest.raises(errors.UserError, match=r"config.objective.likelihood='mixed'"):
    ae_jax.from_torch(run.to_torch(), (6, 5, 1), run.config, **changes)
  copy = ae_jax.from_torch(run.to_torch(), (6, 5, 1), run.config, data__scale="none")
  assert copy.config.data.scale == "none"
  x = RANDOM.normal(size=(3, 6, 5, 1)).astype(np.float32)
  np.testing.assert_array_equal(copy.encode(x), run.encode(x))


@pytest.mark.parametrize(
  ("name", "shape", "value_range", "options", "others"),
  [
    ("tied", (28, 28, 1), "unit", {}, {}),
    ("dense", (28, 28, 1), "unit", {"linear_path": "pca", "widths": (8,)}, {}),
    ("unet", (28, 28, 1), "unit", {}, {}),
    ("cvae", (6, 5, 1), "unit", {"latent": 2, "widths": (8,)}, {"labels": (0, 1, 2)}),
    ("sequence", (20, 2), "real", {"latent": 2}, {}),
    ("table", (6,), "real", {"latent": 2}, {}),
    ("vqvae", (12, 12, 1), "unit", FAMILIES["vqvae"][0], {}),
    ("attention", (12, 12, 1), "unit", FAMILIES["attention"][0], {}),
  ],
)
def test_other_families_are_refused_in_both_directions(name, shape, value_range, options, others):
  run = made(name, shape, options.items(), value_range, **others)
  with pytest.raises(errors.UserError, match="only dense and convolutional autoencoders"):
    run.to_torch()
  if not others:  # from_torch has no labels
    with pytest.raises(errors.UserError, match="only dense and convolutional autoencoders"):
      ae_jax.from_torch({}, shape, run.config, data__scale="none")


def test_the_modules_of_the_documentation_compute_the_same_in_pytorch():
  torch = pytest.importorskip("torch")
  page = (ROOT / "docs" / "how_to" / "pytorch.md").read_text()
  module = types.ModuleType("modules")
  for block in re.findall(r"^```\{code-block\} python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
    if "class " in block:
      exec(compile(block, "pytorch.md", "exec"), vars(module))
  x = RANDOM.uniform(size=(3, 28, 28, 1)).astype(np.float32)
  dense_run = made("dense", (28, 28, 1), {"latent": 32, "widths": (256,), "linear_path": "none"}.items())
  for run, network in (
    (dense_run, module.DenseAutoencoder()),
    (made("cnn", (28, 28, 1), CNN.items()), module.ConvAutoencoder()),
  ):
    network.load_state_dict({name: torch.from_numpy(array) for name, array in run.to_torch().items()})
    with torch.no_grad():
      found = network(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(found, run.reconstruct(x), atol=1e-5)
    loaded = ae_jax.from_torch(network.state_dict(), (28, 28, 1), run.config)
    np.testing.assert_array_equal(loaded.encode(x), run.encode(x))
