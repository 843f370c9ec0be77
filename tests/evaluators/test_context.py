"""What the analyses are given, and that nothing of it depends on how the examples are cut into batches."""

import jax
import numpy as np
import pytest
from conftest import config_of

from ae_jax import api, data, evaluators, models
from ae_jax.evaluators import context
from ae_jax.ops import losses


@pytest.fixture
def analyzed():
  """A context of 37 test examples, its model drawn at random."""
  generator = np.random.default_rng(0)
  train, test = (generator.integers(0, 256, (n, 6, 5, 1), np.uint8) for n in (50, 37))
  dataset = data.Dataset("made", "unit", train, test, np.arange(50) % 3, np.arange(37) % 3)
  config = config_of("dense", "digits")
  config.model.update(latent=3, widths=(8,))
  model = models.build(shape=dataset.shape, **config.model)
  variables = jax.jit(model.init)(jax.random.key(0))
  return context.EvalContext(api.Run(variables, config.lock(), {}, [], model, 1), dataset)


def test_what_is_cached_is_what_the_run_gives(analyzed):
  np.testing.assert_array_equal(analyzed.test_codes, analyzed.run.encode(analyzed.dataset.test))
  np.testing.assert_array_equal(analyzed.reconstructed, analyzed.run.reconstruct(analyzed.dataset.test))
  np.testing.assert_allclose(analyzed.squared_errors, analyzed.run.score(analyzed.dataset.test), rtol=1e-5)
  np.testing.assert_array_equal(analyzed.train_codes, analyzed.run.encode(analyzed.dataset.train))
  assert analyzed.train_labels.tolist() == (np.arange(50) % 3).tolist()


def test_of_many_training_examples_some_speak_and_their_labels_with_them(analyzed, monkeypatch):
  monkeypatch.setattr(context, "MOST_TRAINING", 20)
  rows = {bytes(row): label for row, label in zip(analyzed.dataset.train, analyzed.dataset.train_labels, strict=True)}
  spoken = np.round(analyzed.train * 255).astype(np.uint8)
  assert len(spoken) == 20
  assert [rows[bytes(row)] for row in spoken] == analyzed.train_labels.tolist()


@pytest.mark.parametrize("batch", [1, 5, 37, 64])
def test_each_gives_the_same_for_any_batches(analyzed, monkeypatch, batch):
  model = analyzed.run.model

  def noisy_error(variables, x, keys):
    noise = jax.vmap(lambda key: jax.random.normal(key, model.shape))(keys)
    return {"error": losses.squared_error(model.reconstruct(variables, x + noise), x), "noise": noise}

  wanted = analyzed.each(noisy_error, analyzed.test)
  monkeypatch.setattr(context, "_BATCH", batch)
  found = analyzed.each(noisy_error, analyzed.test)
  np.testing.assert_array_equal(found["noise"], wanted["noise"])
  np.testing.assert_allclose(found["error"], wanted["error"], rtol=1e-6)
  assert found["noise"].shape == analyzed.test.shape


def test_codes_that_are_not_finite_are_said_and_not_studied(analyzed):
  analyzed.run.params["encoder"]["code"]["bias"] = np.full(3, np.nan, np.float32)
  analyze = lambda context: pytest.fail("it was analyzed")
  never = evaluators.Evaluator("never", analyses=(evaluators.Analysis(analyze),))
  ((name, remark),) = evaluators.analyses([never], analyzed)
  assert name == "never/remark"
  assert "diverged" in remark


def test_those_that_are_shown_are_at_even_distances():
  assert context.shown(3, 7).tolist() == [0, 3, 6]
  assert context.shown(16, 2).tolist() == [0, 1]
  assert context.shown(16, 1).tolist() == [0]
