import functools
import itertools
import math
import types

import jax
import jax.numpy as jnp
import pytest
from conftest import CONFIGS, config_of
from jax import lax

from ae_jax import models, objectives
from ae_jax.models import attention, cost
from ae_jax.ops import convolutions
from ae_jax.training import optimizers

DENSE = {"latent": 32, "widths": (256,), "decoder_widths": (), "activation": "relu", "bottleneck": "identity"}
OPTIMIZER = {"learning_rate": 1e-3, "schedule": "cosine", "warmup_epochs": 1.0, "weight_decay": 0.0, "clip_norm": 0.0}


def array(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def counted(function, *arguments, platform=None):
  return cost.multiply_adds(cost.contractions(jax.make_jaxpr(function)(*arguments), platform))


def total(function):
  return lambda *arguments: jnp.square(function(*arguments)).sum()


def optimizer_of(name="adam"):
  return optimizers.optimizer_factory(name, **OPTIMIZER, epochs=2, steps_per_epoch=10)()


def dense_of(shape=(28, 28, 1), **options):
  return models.build("dense", shape, **{**DENSE, "tied": False, **options})


def cost_of(model, batch_size=8, name="reconstruction", value_range="unit", platform=None, **options):
  objective = objectives.build(name, model, value_range, **{"likelihood": "bernoulli", **options})
  return cost.step_cost(model, objective, optimizer_of(), batch_size, platform=platform)


MEAN = 2  # multiply-adds of the mean over the batch and of its gradient, per example


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("widths", [(), (256,), (64, 48, 40)])
def test_dense_layers_cost_three_products_in_training_and_the_first_layer_two(widths, tied):
  model = dense_of(widths=widths, tied=tied)
  sides = (784, *widths, 32)
  forward = 2 * sum(a * b for a, b in itertools.pairwise(sides))
  step_cost = cost_of(model)
  assert step_cost.forward == forward
  assert step_cost.training == 3 * forward - sides[0] * sides[1] + MEAN
  assert step_cost.parameters == model.parameter_count()


CONVS = [((9, 8), (3, 3), (2, 5)), ((5, 7), (2, 5), (4, 1)), ((6, 6), (6, 1), (1, 3))]


@pytest.mark.parametrize("platform", [None, "cpu"])
@pytest.mark.parametrize(("size", "kernel", "channels"), CONVS)
def test_convolution_costs_its_taps_per_output_and_twice_that_in_the_backward_pass(size, kernel, channels, platform):
  x, k = array(channels[0], *size, 3), array(*kernel, *channels)
  outputs = math.prod(side - taps + 1 for side, taps in zip(size, kernel, strict=True))
  wanted = 3 * outputs * math.prod(kernel) * math.prod(channels)
  assert counted(convolutions.conv, x, k, platform=platform) == wanted
  assert counted(jax.value_and_grad(total(convolutions.conv), (0, 1)), x, k, platform=platform) == 3 * wanted
  assert counted(jax.value_and_grad(total(convolutions.conv), 1), x, k, platform=platform) == 2 * wanted


@pytest.mark.parametrize(
  ("size", "kernel", "stride", "wanted"),
  [
    ((5, 4), (3, 3), 2, (11, 9)),
    ((5, 4), (3, 2), 2, (10, 8)),
    ((11, 11), (8, 8), 2, (28, 28)),
    ((3, 3), (2, 2), 3, (8, 8)),
  ],
)
def test_transposed_convolution_counts_only_products_inside_its_output(size, kernel, stride, wanted):
  def products_along(side, taps, after):
    crop = (stride * (side - 1) + taps - after + 1) // 2
    return sum(0 <= stride * i + u - crop < after for i in range(side) for u in range(taps))

  products = math.prod(products_along(*sides) for sides in zip(size, kernel, wanted, strict=True)) * 2 * 5 * 3
  function = functools.partial(convolutions.conv_transpose, stride=stride, size=wanted)
  x, k = array(2, *size, 3), array(*kernel, 2, 5)
  assert counted(function, x, k) == products
  assert counted(jax.value_and_grad(total(function), (0, 1)), x, k) == 3 * products
  uncropped = convolutions.transposed_size(size, kernel, stride)
  whole = functools.partial(convolutions.conv_transpose, stride=stride, size=uncropped)
  assert counted(whole, x, k) == math.prod(size) * math.prod(kernel) * 2 * 5 * 3


@pytest.mark.parametrize(
  "options",
  [
    {"padding": "VALID"},
    {"padding": "SAME"},
    {"padding": [(3, 0), (-1, 2)]},
    {"padding": "SAME", "window_strides": (2, 3)},
    {"padding": [(2, 2), (1, 4)], "lhs_dilation": (2, 3)},
    {"padding": "SAME", "rhs_dilation": (2, 1)},
    {"padding": "SAME", "feature_group_count": 2},
    {"padding": "SAME", "batch_group_count": 2},
  ],
)
def test_convolution_matches_xla_cost_analysis(options):
  options = {"window_strides": (1, 1), **options}
  function = functools.partial(lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)
  x, k = array(4, 9, 8, 6), array(3, 2, 6 // options.get("feature_group_count", 1), 10)
  assert 2 * counted(function, x, k) == jax.jit(function).lower(x, k).cost_analysis()["flops"]


@pytest.mark.parametrize(("queries", "keys", "blocks"), [(7, 9, 1), (12, 12, 1), (40, 11, 3)])
def test_attention_costs_scores_and_weighted_values(queries, keys, blocks):
  q, kv = array(2, queries, 4, 5), array(2, keys, 4, 5)
  block = -(-queries // blocks)
  attend = functools.partial(attention.attend, block=block)
  products = 2 * 2 * 4 * (blocks * block) * keys * 5  # with the padding of the last block
  assert counted(attend, q, kv, kv) == products
  back = counted(jax.value_and_grad(total(attend), (0, 1, 2)), q, kv, kv)
  assert 3 * products <= back <= 4 * products
  assert (back == 3 * products) == (blocks == 1)  # blocks are recomputed


@pytest.mark.parametrize("length", [1, 6])
def test_scan_costs_its_length_and_while_loop_with_products_is_refused(length):
  x, w = array(3, 4), array(4, 4)

  def loop(x, w):
    return lax.scan(lambda h, _: (jnp.tanh(h @ w), None), x, length=length)[0]

  def endless(x, w):
    return lax.while_loop(lambda h: h.sum() < 1.0, lambda h: h @ w, x)

  assert counted(loop, x, w) == length * 3 * 4 * 4
  assert counted(jax.value_and_grad(total(loop), (0, 1)), x, w) == 3 * length * 3 * 4 * 4
  with pytest.raises(NotImplementedError, match="'while'"):
    counted(endless, x, w)
  assert counted(lambda x: lax.while_loop(lambda h: h.sum() < 1.0, lambda h: h + 1.0, x), x) == 0


@pytest.mark.parametrize("function", [jnp.linalg.inv, jnp.linalg.eigh, jnp.linalg.cholesky, jnp.fft.fft])
def test_uncounted_linear_algebra_is_refused(function):
  with pytest.raises(NotImplementedError, match="cannot count"):
    counted(function, array(4, 4))


@pytest.mark.parametrize(("platform", "products"), [(None, 1), ("cuda", 1), ("tpu", 2), ("cpu", 3)])
def test_platform_selects_its_branch(platform, products):
  def power(x):
    return lax.platform_dependent(
      x, cpu=lambda x: x @ x.T @ x @ x.T, tpu=lambda x: x @ x.T @ x, default=lambda x: x @ x
    )

  assert counted(power, array(4, 4), platform=platform) == products * 64
  assert counted(jax.vmap(jax.value_and_grad(total(power))), array(5, 4, 4), platform=platform) == 3 * products * 5 * 64


def test_convolutional_model_costs_less_by_the_textbook_than_on_cpu():
  options = {key: value for key, value in config_of("cnn").model.items() if key != "name"}
  model = models.build("cnn", (28, 28, 1), **options)
  textbook, cpu = (cost_of(model, 2, platform=platform) for platform in (None, "cpu"))
  for name in ("forward", "training", "activation_bytes", "traffic_bytes"):
    assert getattr(textbook, name) < getattr(cpu, name)
  smallest = 26 * 26 * 9 * 16 + 10 * 10 * 9 * 16 * 32 + 2 * 800 * 32 + 5 * 5 * 9 * 32 * 16 + 11 * 11 * 64 * 16
  assert smallest <= textbook.forward < 1.2 * smallest  # the difference: pixels that pooling drops
  assert textbook.training == 3 * textbook.forward - 26 * 26 * 9 * 16 + MEAN


@pytest.mark.parametrize("length", [1, 6])
def test_traffic_of_a_scan_is_the_sum_over_its_iterations(length):
  batch, width = 5, 3
  through = lambda w, x: lax.scan(lambda h, _: (jnp.tanh(h @ w), None), x, length=length)[0]
  model = types.SimpleNamespace(
    shape=(width,),
    abstract_columns=lambda rows: {},
    abstract_variables=lambda: models.Variables(array(width, width)),
    reconstruct=lambda variables, x, given: through(variables.params, x),
  )
  objective = lambda model, v, batch, keys, train: (jnp.square(model.reconstruct(v, batch["x"], batch)).sum(), {})
  step_cost = cost.step_cost(model, objective, optimizer_of("sgd"), batch)
  product = 4 * (2 * batch * width + width**2)  # bytes of its operands and its result
  assert step_cost.traffic_bytes == length * 3 * product
  assert (step_cost.forward, step_cost.training) == (length * width**2, 3 * length * width**2)


@pytest.mark.parametrize(("platform", "products"), [(None, 1), ("cpu", 2)])
def test_platform_selects_its_branch_inside_a_scan(platform, products):
  body = functools.partial(lax.platform_dependent, cpu=lambda h: h @ h @ h, default=lambda h: h @ h)
  loop = lambda x: lax.scan(lambda h, _: (body(h), None), x, length=3)[0]
  assert counted(loop, array(4, 4), platform=platform) == 3 * products * 4**3


def test_products_over_different_axes_are_not_merged():
  along = lambda *axes: lambda x: lax.dot_general(x, x, (((axes[0],), (axes[1],)), ((), ())))
  assert counted(lambda x: along(1, 0)(x) + along(1, 1)(x), array(4, 4)) == 2 * 4**3
  assert counted(lambda x: along(1, 1)(x) + along(1, 1)(x), array(4, 4)) == 4**3


def test_bytes_depend_on_the_dtype():
  arrays = [jax.ShapeDtypeStruct((3, 4), jnp.bfloat16), array(5), jax.ShapeDtypeStruct((2,), jnp.int8)]
  assert cost.bytes_of(arrays) == 3 * 4 * 2 + 5 * 4 + 2
  x = jax.ShapeDtypeStruct((3, 4), jnp.bfloat16)
  assert cost.kept_bytes(lambda w, x: (w * x).sum(), x, x) == 3 * 4 * 2


def test_cond_counts_the_most_expensive_branch_and_identical_products_count_once():
  x = array(4, 4)
  either = lambda x: lax.cond(x.sum() > 0, lambda x: x @ x, lambda x: x @ x @ x, x)
  assert counted(either, x) == 2 * 64
  assert counted(lambda x: (x @ x) + jax.jit(jnp.matmul)(x, x), x) == 64
  assert counted(lambda x: (x @ x) + (x @ x.T), x) == 2 * 64


def test_checkpoint_keeps_less_and_recomputes():
  layers = lambda w, x: jnp.tanh(jnp.tanh(x @ w) @ w).sum()
  w, x = array(6, 6), array(5, 6)
  plain, recomputed = (counted(jax.grad(f), w, x) for f in (layers, jax.checkpoint(layers)))
  assert plain == (2 + 3) * 5 * 6 * 6  # forward; both kernels and the one inner activation
  assert plain < recomputed <= plain + 2 * 5 * 6 * 6
  assert cost.kept_bytes(jax.checkpoint(layers), w, x) == 4 * 5 * 6
  assert cost.kept_bytes(layers, w, x) >= 3 * 4 * 5 * 6


def test_linear_autoencoder_matches_closed_form():
  model = dense_of(widths=(), activation="identity")
  batch, pixels, latent = 16, 784, 32
  step_cost = cost_of(model, batch, value_range="real", likelihood="gaussian")
  weights = 4 * (2 * pixels * latent + pixels + latent)
  assert step_cost.gradient_bytes == weights
  kept = batch * (pixels + latent + pixels + 1) + 1  # x, z, x_hat - x, and the examples' weights with their sum
  assert step_cost.activation_bytes == 4 * kept / batch
  product = batch * pixels + pixels * latent + batch * latent
  assert step_cost.traffic_bytes == 4 * (5 * product + 2 * (2 * batch + 1))


@pytest.mark.parametrize(("latent", "probes"), [(6, 0), (6, 1), (6, 4), (16, 0)])
def test_contractive_costs_a_second_order_pass_per_direction(latent, probes):
  model = dense_of((5, 5, 1), latent=latent, widths=(), bottleneck="sigmoid", tied=True)
  plain = cost_of(model)
  step_cost = cost_of(model, name="contractive", weight=0.1, probes=probes)
  directions = probes or latent  # each a backward product with two for its gradient; once, the encoder's gradient
  assert step_cost.training - plain.training == (3 * directions + 1) * latent * 25 + MEAN
  assert step_cost.forward == plain.forward


@pytest.mark.parametrize(("name", "copies"), [("adam", 3), ("rmsprop", 2), ("sgd", 1)])
def test_state_is_copies_of_the_parameters_and_one_or_two_counters(name, copies):
  model = dense_of((4, 4, 1))
  objective = objectives.build("reconstruction", model, "unit", likelihood="bernoulli")
  step_cost = cost.step_cost(model, objective, optimizer_of(name), 8)
  assert step_cost.state_bytes - copies * 4 * step_cost.parameters in (4, 8)
  real = jax.jit(lambda key: optimizer_of(name).init(model.init(key).params))(jax.random.key(0))
  assert step_cost.state_bytes == step_cost.gradient_bytes + sum(leaf.nbytes for leaf in jax.tree.leaves(real))


def stages_of(name):
  """Returns the model of a config for examples of the default shape, and the objective of each stage."""
  config = config_of(name)
  shape = {"sequence": (140, 1), "table": (30,)}.get(name, (28, 28, 1))
  model = models.build(shape=shape, **config.model)
  objective_options = [*(stage["objective"] for stage in config.stages), config.objective]
  return model, [
    objectives.build(model=model, value_range=config.data.range, **options) for options in objective_options
  ]


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_config_and_stage_has_a_cost(file):
  model, stages = stages_of(file.stem)
  for objective in stages:
    step_cost = cost.step_cost(model, objective, optimizer_of(), 4)
    assert step_cost.parameters == model.parameter_count()
    assert 0 < step_cost.training < 5 * step_cost.forward
    assert step_cost.activation_bytes > 4 * math.prod(model.shape) / 8
    assert step_cost.traffic_bytes > 0


@pytest.mark.parametrize("name", ["contractive", "dense"])
def test_cost_is_proportional_to_the_batch_size(name):
  model, (objective,) = stages_of(name)
  small, large = (cost.step_cost(model, objective, optimizer_of(), size) for size in (4, 8))
  assert (small.forward, small.training) == (large.forward, large.training)
  assert small.activation_bytes - large.activation_bytes == 4 / 4 - 4 / 8  # the sum of the examples' weights
  assert small.traffic_bytes < large.traffic_bytes < 2 * small.traffic_bytes  # parameters are read once per step
  assert (small.state_bytes, small.gradient_bytes) == (large.state_bytes, large.gradient_bytes)


def test_learned_queries_are_projected_once_per_batch():
  model, _ = stages_of("attention")
  variables = jax.eval_shape(model.init, jax.random.key(0))
  one, two, three = (counted(model.reconstruct, variables, array(size, *model.shape)) for size in (1, 2, 3))
  assert three - two == two - one
  assert one - (two - one) == 2 * 16 * 64 * 64  # 16 queries of width 64 in the encoder and in the decoder


@pytest.mark.parametrize("name", ["cnn", "dense", "sequence", "vae"])
def test_reconstruction_costs_encoder_plus_decoder(name):
  model, _ = stages_of(name)
  variables, x = jax.eval_shape(model.init, jax.random.key(0)), array(3, *model.shape)
  z = jax.eval_shape(model.encode, variables, x).z
  parts = counted(model.encode, variables, x), counted(model.decode, variables, z)
  assert counted(model.reconstruct, variables, x) == sum(parts)
  assert min(parts) > 0


@pytest.mark.parametrize("name", ["dense", "sparse"])
def test_step_matches_the_flops_of_the_compiled_program(name):
  model, (objective,) = stages_of(name)
  size = 32
  variables = jax.eval_shape(model.init, jax.random.key(0))
  batch = {"x": array(size, *model.shape), "weight": array(size)}
  keys = jax.random.split(jax.random.key(0), size)
  step = jax.jit(jax.value_and_grad(functools.partial(objective, model), has_aux=True))
  flops = step.lower(variables, batch, keys).compile().cost_analysis()["flops"]
  predicted = 2 * size * cost.step_cost(model, objective, optimizer_of(), size).training
  assert 0.97 * flops < predicted < flops  # the rest is elementwise
