"""The input of the analyses: cached outputs of the run, independent of the batch size."""

import jax
import numpy as np
import pytest
from conftest import config_of

from ae_jax import api, data, evaluators, models
from ae_jax.decisions import run_data
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import pca, probe, robustness
from ae_jax.ops import losses

pytestmark = pytest.mark.quick_compile


@pytest.fixture
def context():
  """A context with 37 test examples and a model with random weights."""
  generator = np.random.default_rng(0)
  train, test = (generator.integers(0, 256, (n, 6, 5, 1), np.uint8) for n in (50, 37))
  dataset = data.Dataset("made", "unit", train, test, np.arange(50) % 3, np.arange(37) % 3)
  config = config_of("dense", "digits")
  config.model.update(latent=3, widths=(8,))
  model = models.build(shape=dataset.shape, **config.model)
  variables = jax.jit(model.init)(jax.random.key(0))
  return contexts.EvalContext(api.Run(variables, config.lock(), {}, [], model, 1), dataset)


def test_cached_arrays_equal_the_outputs_of_the_run(context):
  np.testing.assert_array_equal(context.test_codes, context.run.encode(context.dataset.test))
  np.testing.assert_array_equal(context.reconstructions, context.run.reconstruct(context.dataset.test))
  np.testing.assert_allclose(context.squared_errors, context.run.score(context.dataset.test), rtol=1e-5)
  np.testing.assert_array_equal(context.train_codes, context.run.encode(context.dataset.train))
  assert context.train_labels.tolist() == (np.arange(50) % 3).tolist()


def test_training_examples_are_subsampled_together_with_their_labels(context, monkeypatch):
  monkeypatch.setattr(run_data, "MOST_TRAINING", 20)
  label_of_row = {
    bytes(row): label for row, label in zip(context.dataset.train, context.dataset.train_labels, strict=True)
  }
  subsample = np.round(context.train * 255).astype(np.uint8)
  assert len(subsample) == 20
  assert [label_of_row[bytes(row)] for row in subsample] == context.train_labels.tolist()


def test_baseline_pca_is_fitted_once_to_the_training_examples(context, monkeypatch):
  expected = pca.fit(losses.flat(context.train), 3)
  fits = []
  monkeypatch.setattr(pca, "fit", lambda *arguments, fit=pca.fit: fits.append(arguments) or fit(*arguments))
  for evaluator in (probe, robustness):
    list(evaluator.analyze(context))
  assert len(fits) == 1
  np.testing.assert_array_equal(context.baseline_pca.components, expected.components)


@pytest.mark.parametrize("batch", [1, 5, 37, 64])
def test_each_does_not_depend_on_the_batch_size(context, monkeypatch, batch):
  model = context.run.model

  def noisy_error(variables, x, keys):
    noise = jax.vmap(lambda key: jax.random.normal(key, model.shape))(keys)
    return {"error": losses.squared_error(model.reconstruct(variables, x + noise), x), "noise": noise}

  expected = context.map_examples(noisy_error, context.test)
  monkeypatch.setattr(contexts, "_BATCH", batch)
  actual = context.map_examples(noisy_error, context.test)
  np.testing.assert_array_equal(actual["noise"], expected["noise"])
  np.testing.assert_allclose(actual["error"], expected["error"], rtol=1e-6)
  assert actual["noise"].shape == context.test.shape


def test_latent_codes_that_are_not_finite_become_a_remark(context):
  context.run.params["encoder"]["code"]["bias"] = np.full(3, np.nan, np.float32)
  analyze = lambda _: pytest.fail("it was analyzed")
  never = evaluators.Evaluator("never", analyses=(evaluators.Analysis(analyze),))
  ((name, remark),) = evaluators.analyses([never], context)
  assert name == "never/remark"
  assert "diverged" in remark


def test_shown_positions_are_evenly_spaced():
  assert contexts.spaced(3, 7).tolist() == [0, 3, 6]
  assert contexts.spaced(16, 2).tolist() == [0, 1]
  assert contexts.spaced(16, 1).tolist() == [0]
