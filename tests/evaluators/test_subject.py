"""What the studies are given, and that nothing of it depends on how the examples are cut into batches."""

import jax
import numpy as np
import pytest
from conftest import config_of

from ae_jax import api, data, evaluators, losses, models
from ae_jax.evaluators import subject


@pytest.fixture
def studied():
  """A subject of 37 test examples, its model drawn at random."""
  generator = np.random.default_rng(0)
  train, test = (generator.integers(0, 256, (n, 6, 5, 1), np.uint8) for n in (50, 37))
  dataset = data.Dataset("made", "unit", train, test, np.arange(50) % 3, np.arange(37) % 3)
  config = config_of("dense", "digits")
  config.model.update(latent=3, widths=(8,))
  model = models.build(shape=dataset.shape, **config.model)
  variables = jax.jit(model.init)(jax.random.key(0))
  return subject.Subject(api.Run(variables, config.lock(), {}, [], model, 1), dataset)


def test_what_is_cached_is_what_the_run_gives(studied):
  np.testing.assert_array_equal(studied.test_codes, studied.run.encode(studied.dataset.test))
  np.testing.assert_array_equal(studied.reconstructed, studied.run.reconstruct(studied.dataset.test))
  np.testing.assert_allclose(studied.squared_errors, studied.run.score(studied.dataset.test), rtol=1e-5)
  np.testing.assert_array_equal(studied.train_codes, studied.run.encode(studied.dataset.train))
  assert studied.train_labels.tolist() == (np.arange(50) % 3).tolist()


def test_of_many_training_examples_some_speak_and_their_labels_with_them(studied, monkeypatch):
  monkeypatch.setattr(subject, "MOST_TRAINING", 20)
  rows = {bytes(row): label for row, label in zip(studied.dataset.train, studied.dataset.train_labels, strict=True)}
  spoken = np.round(studied.train * 255).astype(np.uint8)
  assert len(spoken) == 20
  assert [rows[bytes(row)] for row in spoken] == studied.train_labels.tolist()


@pytest.mark.parametrize("batch", [1, 5, 37, 64])
def test_each_gives_the_same_for_any_batches(studied, monkeypatch, batch):
  model = studied.run.model

  def noisy_error(variables, x, keys):
    noise = jax.vmap(lambda key: jax.random.normal(key, model.shape))(keys)
    return {"error": losses.squared_error(model.reconstruct(variables, x + noise), x), "noise": noise}

  wanted = studied.each(noisy_error, studied.test)
  monkeypatch.setattr(subject, "_BATCH", batch)
  found = studied.each(noisy_error, studied.test)
  np.testing.assert_array_equal(found["noise"], wanted["noise"])
  np.testing.assert_allclose(found["error"], wanted["error"], rtol=1e-6)
  assert found["noise"].shape == studied.test.shape


def test_codes_that_are_not_finite_are_said_and_not_studied(studied):
  studied.run.params["encoder"]["code"]["bias"] = np.full(3, np.nan, np.float32)
  study = lambda subject: pytest.fail("it was studied")
  never = evaluators.Evaluator("never", studies=(evaluators.Study(study),))
  ((name, remark),) = evaluators.studies([never], studied)
  assert name == "never/remark"
  assert "diverged" in remark


def test_those_that_are_shown_are_at_even_distances():
  assert subject.shown(3, 7).tolist() == [0, 3, 6]
  assert subject.shown(16, 2).tolist() == [0, 1]
  assert subject.shown(16, 1).tolist() == [0]
