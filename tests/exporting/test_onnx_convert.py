"""ONNX and StableHLO files of each model family compute the same, although one has products where one convolves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FAMILIES
from made_exports import made

from ae_jax import errors
from ae_jax.exporting import onnx_convert, onnx_files, parts, stablehlo

pytestmark = pytest.mark.quick_compile

SMALL = {"latent": 3, "channels": (3, 4), "decoder_kernels": (3, 2)}
OTHERS = {
  "subpixel": ("cnn", SMALL | {"decoder": "subpixel", "activation": "gelu"}),
  "bilinear": ("cnn", SMALL | {"decoder": "bilinear", "bottleneck": "fsq5", "linear_path": "none"}),
  "tied convolutions": ("cnn", SMALL | {"decoder": "tied", "bottleneck": "tanh", "linear_path": "none"}),
  "linear path": ("dense", {"latent": 3, "widths": (8,), "linear_path": "pca"}),
  "table": ("table", {"latent": 3, "width": 8}),
  "tied": ("tied", {"latent": 3, "widths": (8,), "decoder_widths": (8,)}),
}
OTHER_DATA = {"sequence": ((20, 2), "real"), "table": ((6,), "real")}
CASES = {name: (name, options) for name, (options, _) in FAMILIES.items()} | OTHERS


def joined(run):
  """Returns a part whose result is all results of the run: latents, reconstructions and scores."""
  encoder, decoder, scorer = (each.function for each in parts.parts_of(run))
  x = parts.parts_of(run)[0].inputs

  def function(x):
    z = encoder(x)
    flat = [each.reshape(x.shape[0], -1) for each in (z, decoder(z))]
    return jnp.concatenate([*flat, scorer(x)[:, None]], axis=1)

  return parts.Part("all", function, x, "all")


@pytest.mark.parametrize("case", CASES)
def test_onnx_and_stablehlo_agree_for_any_batch(case):
  name, options = CASES[case]
  shape, value_range = OTHER_DATA.get(name, ((12, 10, 1), "unit"))
  part = joined(made(name, shape, options.items(), value_range))
  as_onnx, as_stablehlo = onnx_convert.convert(part), stablehlo.convert(part)
  x = np.random.default_rng(2).uniform(0, 1, (5, *shape)).astype(np.float32)
  expected = stablehlo.call(as_stablehlo, [x])
  found = onnx_files.call(as_onnx, [x])
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(onnx_files.call(as_onnx, [x[3:4]]), found[3:4], rtol=1e-5, atol=1e-5)
  assert np.ptp(expected, axis=0).max() > 1e-2


def test_an_operation_without_a_rule_is_named():
  x = {"x": jax.ShapeDtypeStruct((3,), np.dtype(np.float32))}
  part = parts.Part("encoder", lambda x: jnp.sort(x, axis=1), x, "z")
  with pytest.raises(
    errors.UserError, match=r"cannot export the operation 'sort' of this model; export with the 'stablehlo' format"
  ):
    onnx_convert.convert(part)


RULES = {
  "logarithms": lambda x: jnp.log1p(x) + jnp.expm1(x) + jnp.log(1 + x) + x**3,
  "comparisons": lambda x: jnp.where((x > 0.5) & ~(x >= 0.9) | (x != x), x, -x),
  "reductions": lambda x: (x - x.max(1, keepdims=True)) / x.min(1, keepdims=True) + x.sum(1)[:, None],
  "positions": lambda x: x[:, ::-1][:, 1:6:2] + x.argmax(1)[:, None].astype(jnp.float32) - x[:, 2:3],
  "counted": lambda x: x + jnp.arange(6, dtype=jnp.float32)[None],
  "clipped": lambda x: jnp.clip(jnp.round(9 * x), 2.0, 5.0) * jnp.sign(x - 0.5),
  "products": lambda x: jnp.einsum("bi,bj->bij", x, x).reshape(-1, 36) @ jnp.eye(36, 4),
  "stacked": lambda x: jnp.stack([x, jnp.pad(x, ((0, 0), (2, 0)))[:, :6]], 1).reshape(-1, 12),
  "repeated": lambda x: jnp.repeat(x, 3, axis=0).reshape(-1, 18),
  "dilated": lambda x: jax.lax.conv_general_dilated(
    x.reshape(-1, 6, 1, 1), jnp.arange(6.0).reshape(3, 1, 1, 2), (2, 1), "SAME", rhs_dilation=(2, 1),
    dimension_numbers=("NHWC", "HWIO", "NHWC")),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_rules_compute_what_the_primitives_compute(rule):
  part = parts.Part("encoder", RULES[rule], {"x": jax.ShapeDtypeStruct((6,), np.dtype(np.float32))}, "z")
  x = np.random.default_rng(3).uniform(0.01, 1, (4, 6)).astype(np.float32)
  with jax.numpy_rank_promotion("allow"):
    found, expected = onnx_files.call(onnx_convert.convert(part), [x]), np.asarray(jax.jit(part.function)(x))
  assert found.dtype == expected.dtype
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
