"""Schedules of the objective: their values, their use in training and evaluation, and refusals."""

import copy
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of, learned, train_until

from ae_jax import config as configs
from ae_jax import errors, models, objectives
from ae_jax.data import batch_schedule
from ae_jax.objectives import schedules
from ae_jax.runs import logs
from ae_jax.training import evaluation, setup, train

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]
WARM_UP = {"key": "objective.beta", "name": "linear", "start": 0.0, "steps": 20}


@pytest.mark.parametrize(
  ("name", "values"),
  [
    ("constant", {5: 3.0, 8: 3.0, 9: 7.0, 50: 7.0}),
    ("linear", {5: 3.0, 6: 4.0, 7: 5.0, 8: 6.0, 9: 7.0, 50: 7.0}),
    ("cosine", {5: 3.0, 6: 5 - 2**0.5, 7: 5.0, 8: 5 + 2**0.5, 9: 7.0, 50: 7.0}),
    ("cyclic", {5: 3.0, 6: 5.0, 7: 7.0, 8: 7.0, 9: 3.0, 10: 5.0, 11: 7.0, 12: 7.0, 13: 3.0, 402: 5.0}),
  ],
)
def test_schedule_values(name, values):
  """From 3 to 7 over four steps, counted from step 5."""
  schedule = jax.jit(schedules.Schedule(name, 3.0, 4, first=5))
  for step, value in values.items():
    assert schedule(jnp.int32(step), 7.0) == pytest.approx(value, rel=1e-6), step


def tiny_vae(*entries):
  """configs/vae.py:digits with a small model: 12 steps per epoch."""
  config = config_of("vae", "digits")
  small = {"epochs": 3, "batch_size": 128, "model.latent": 4, "model.widths": (16,), "checkpoint_every_epochs": 1}
  config.update_from_flattened_dict(small | {"log_every_steps": 1, "evaluators": (), "schedules": entries})
  return config


def test_training_uses_and_logs_the_value_of_the_step(tmp_path):
  config = tiny_vae(WARM_UP, {"key": "objective.free_bits", "name": "constant", "start": 0.0, "epochs": 1})
  config.objective.beta = 0.5
  train.train_and_evaluate(config, tmp_path)
  records = logs.read(tmp_path)
  beta = np.array([record["train/beta"] for record in records])
  np.testing.assert_allclose(beta, 0.5 * np.minimum(np.arange(36) / 20, 1), rtol=1e-6)
  kl, nats, loss = (np.array([record[f"train/{name}"] for record in records]) for name in ("kl", "nats", "loss"))
  np.testing.assert_allclose(loss, nats + beta * kl, rtol=1e-5)  # free_bits is 0 before and after


@pytest.mark.parametrize("stop", [1, 2])
def test_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch, stop):
  config = tiny_vae({**WARM_UP, "name": "cyclic"})
  train.train_and_evaluate(copy.deepcopy(config), tmp_path / "straight")
  train_until(copy.deepcopy(config), tmp_path / "broken", stop, monkeypatch)
  train.train_and_evaluate(config, tmp_path / "broken")
  (params, records), (other_params, other_records) = (learned(tmp_path / name) for name in ("straight", "broken"))
  jax.tree.map(np.testing.assert_array_equal, params, other_params)
  assert records == other_records


def test_only_the_last_stage_has_schedules_from_its_first_step():
  config = tiny_vae({**WARM_UP, "steps": 10})
  config.stages = ({"epochs": 2, "objective": config.objective.to_dict()},)
  before, last = setup.build_experiment(config.lock(), 1).stages
  assert before.objective.schedules == ()
  assert last.objective.schedules == (("beta", schedules.Schedule("linear", 0.0, 10, first=24)),)


def elbo(*scheduled, **numbers):
  """The objective of a small VAE."""
  config = config_of("vae", "digits")
  model = models.build(shape=(8, 8, 1), **config.model)
  options = config.objective.to_dict() | numbers
  return objectives.build(model=model, value_range="unit", schedules=scheduled, **options)


def test_test_loss_uses_the_value_of_the_step():
  plain, warm = elbo(), elbo(("beta", schedules.Schedule("linear", 0.0, 20)))
  images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (5, 64), np.uint8))
  config = config_of("vae", "digits")
  model = models.build(shape=(8, 8, 1), **config.model)
  static = {"model": model, "statistics": lambda *_: {}, "value_range": "unit"}
  arguments = {"x": images}, *batch_schedule.evaluation_batches(5, 5, 1), jax.random.key(0)
  variables = model.init(jax.random.key(1))
  evaluate = lambda objective, step: evaluation.evaluate(
    variables, jnp.int32(step), *arguments, objective=objective, **static
  )
  start, half, end, later = (float(evaluate(warm, step)[0]) for step in (0, 10, 20, 90))
  assert end == later == pytest.approx(float(evaluate(plain, 0)[0]), rel=1e-6)
  assert half == pytest.approx((start + end) / 2, rel=1e-6)
  assert start < half < end


def test_scheduled_free_bits_need_the_whole_batch():
  """Also if the value in the config is 0, or traced in a sweep."""
  schedule = ("free_bits", schedules.Schedule("linear", 0.5, 10))
  assert not elbo(free_bits=0.0).needs_whole_batch
  assert elbo(free_bits=0.5).needs_whole_batch
  assert elbo(schedule, free_bits=0.0).needs_whole_batch
  needed = []

  def traced(step, free_bits):
    swept = dataclasses.replace(elbo(schedule), free_bits=free_bits)
    needed.append(swept.at(step).needs_whole_batch)
    return swept.at(step).free_bits

  values = jax.vmap(jax.jit(traced), (None, 0))(jnp.int32(5), jnp.float32([0.0, 1.5]))
  np.testing.assert_allclose(values, [0.25, 1.0])  # halfway to the value of each member
  assert needed == [True]


@pytest.mark.parametrize(
  ("entries", "message"),
  [
    (3, r"config\.schedules\[0\]=3: must be a dict such as"),
    ({**WARM_UP, "epochs": 1}, r"config\.schedules\[0\]=.*: must be a dict"),
    ({**WARM_UP, "key": "optimizer.learning_rate"}, r"\[0\]\.key='optimizer.*: must be an option of config"),
    ({**WARM_UP, "key": "objective.betta"}, r"objective\.betta is not a numeric option of .* did you mean 'beta'"),
    ({**WARM_UP, "key": "objective.likelihood"}, "objective.likelihood is not a numeric option"),
    ({**WARM_UP, "name": "liner"}, "did you mean 'linear'"),
    ({**WARM_UP, "start": "0"}, r"\[0\]\.start='0': must be a number"),
    ({**WARM_UP, "steps": 0}, r"\[0\]\.steps=0: must be from 1 step to 36 steps"),
    ({**WARM_UP, "steps": 37}, "must be from 1 step to 36 steps"),
    ({**WARM_UP, "steps": float("nan")}, r"\[0\]\.steps=nan: must be a number"),
  ],
)
def test_invalid_schedules_are_refused(entries, message):
  with pytest.raises(errors.UserError, match=message):
    setup.build_experiment(tiny_vae(entries).lock(), 1)


def test_second_schedule_of_an_option_is_refused():
  with pytest.raises(errors.UserError, match=r"must be an option that no earlier entry of config\.schedules names"):
    setup.build_experiment(tiny_vae(WARM_UP, WARM_UP).lock(), 1)


def test_config_of_an_earlier_version_equals_one_without_schedules():
  new = configs.as_json(tiny_vae())
  old = json.loads(json.dumps(new))
  del old["schedules"]
  assert configs.differences(old, new) == []
  assert configs.differences(old, configs.as_json(tiny_vae(WARM_UP))) != []
