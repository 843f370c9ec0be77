import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of

from ae_jax import data, evaluators, models, objectives
from ae_jax.data import batch_schedule
from ae_jax.ops import randomness
from ae_jax.training import evaluation, steps

pytestmark = pytest.mark.quick_compile

SHAPE = (9, 8, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (50, 72), np.uint8)
EXAMPLES = {"x": IMAGES}
KEY = jax.random.key(0)
MODELS = {
  "dense": {"latent": 4, "widths": (9,)},
  "cnn": {"latent": 4, "channels": (3, 4), "decoder_kernels": (3, 3)},
}
OBJECTIVES = {
  "reconstruction": {},
  "denoising": {"corruption": "masking", "level": 0.3, "alpha": 1.0, "beta": 0.5},
  "sparse": {"penalty": "kl", "weight": 3.0, "target": 0.05},
  "contractive": {"weight": 0.1, "probes": 2},
  "elbo": {"noise": 1.0, "beta": 2.0, "free_bits": 0.3},
}


@pytest.mark.parametrize("name", [*OBJECTIVES, "layerwise"])
def test_test_loss_does_not_depend_on_the_batches(name):
  """It equals the loss of the test set as one batch, also if the loss of a batch is not a mean over examples."""
  bottleneck = {"elbo": "gaussian", "layerwise": "identity"}.get(name, "sigmoid")
  model = models.build(
    shape=SHAPE, **{**config_of("dense", "digits").model, **MODELS["dense"], "bottleneck": bottleneck}
  )
  options = OBJECTIVES.get(name, {"layer": 0, "corruption": "gaussian", "level": 0.3})
  objective = objectives.build(name, model, "unit", likelihood="bernoulli", **options)
  assert objectives.OBJECTIVES.keys() == {*OBJECTIVES, "layerwise"}
  variables, static = model.init(KEY), {"model": model, "objective": objective, "value_range": "unit"}
  evaluate = jax.jit(functools.partial(evaluation.evaluate, **static, statistics=lambda *_: {}))
  losses = [
    evaluate(variables, jnp.int32(0), EXAMPLES, *batch_schedule.evaluation_batches(50, size, devices), KEY)[0]
    for size, devices in ((50, 1), (7, 1), (16, 4))
  ]
  np.testing.assert_allclose(losses[1:], losses[0], rtol=1e-6)
  batch = steps.read_batch(np.arange(50), np.ones(50), examples=EXAMPLES, model=model, value_range="unit")
  whole, _ = objective(model, variables, batch, randomness.example_keys(KEY, jnp.arange(50)))
  np.testing.assert_allclose(losses[0], whole, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch_size", [1, 7, 49, 50, 64])
def test_metrics_do_not_depend_on_the_batches(name, batch_size):
  model = models.build(shape=SHAPE, **{**config_of(name, "digits").model, **MODELS[name]})
  objective = objectives.build("denoising", model, "unit", likelihood="bernoulli", **OBJECTIVES["denoising"])
  static = {"model": model, "objective": objective}
  images = IMAGES.reshape(50, *SHAPE)
  dataset = data.Dataset("made", "unit", images, images, None, None)
  others = ("denoising", "sparsity") if name == "dense" else ()  # compiling a dozen further passes takes long
  measures = evaluators.build(others, static["model"], dataset)
  statistics = evaluators.statistics(measures, "unit", dataset.span)
  evaluate = jax.jit(functools.partial(evaluation.evaluate, **static, statistics=statistics, value_range="unit"))
  variables = static["model"].init(KEY)

  def metrics(size, devices):
    indices, weights = batch_schedule.evaluation_batches(50, size, devices)
    loss, values = evaluate(variables, jnp.int32(0), EXAMPLES, indices, weights, KEY)
    return dict(evaluators.metrics(measures, loss, values, weights, dataset))

  one_batch, batches = metrics(50, 1), metrics(batch_size, 4)
  assert {"test/loss", "test/squared_error", "test/nats"} <= set(batches)
  assert {"test/psnr_out/masking_0.5", "test/density"} <= set(batches) or not others
  assert batches == pytest.approx(one_batch, rel=1e-6)
