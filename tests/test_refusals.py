"""What makes no sense is refused in a line, before anything is compiled or written."""

import pytest

from ae_jax import errors
from ae_jax.training import train


@pytest.mark.parametrize(
  ("path", "value", "message"),
  [
    ("epochs", 0, "config.epochs=0: must be an integer from 1"),
    ("batch_size", -1, "config.batch_size=-1"),
    ("seed", -1, "config.seed=-1: must be from 0"),
    ("log_every_steps", 0, "config.log_every_steps=0"),
    ("eval_every_epochs", 0, "config.eval_every_epochs=0"),
    ("checkpoint_every_epochs", -2, "config.checkpoint_every_epochs=-2"),
    ("model.latent", 0, "config.model.latent=0"),
    ("model.name", "dnse", "did you mean 'dense'"),
    ("data.name", "digit", "did you mean 'digits'"),
    ("data.range", "0..1", "config.data.range='0..1'"),
    ("objective.name", "reconstrution", "did you mean 'reconstruction'"),
    ("objective.likelihood", "bernouli", "did you mean 'bernoulli'"),
    ("optimizer.name", "adm", "did you mean 'adam'"),
    ("optimizer.warmup_epochs", 3.5, "from 0 to epochs=3"),
    ("parallel", "jot", "did you mean 'jit'"),
    ("parallel_state", "shared", "config.parallel_state='shared': must be replicated or sharded"),
    ("accumulate", 0, "config.accumulate=0: must be an integer from 1"),
    ("accumulate", 129, "config.accumulate=129: must be at most config.batch_size="),
    ("on_nan", "ignore", "config.on_nan='ignore': must be stop or skip or halve"),
    ("optimizer.clip_norm", -1.0, "config.optimizer.clip_norm=-1.0: must be a number of at least 0"),
    ("data.augment", ({"name": "flp"},), "config.data.augment[0].name='flp' is unknown; did you mean 'flip'"),
    (
      "data.augment",
      ({"name": "shift", "pixels": 8},),
      "pixels=8: must be an integer from 1 to 7, less than each side",
    ),
    ("data.placement", "disk", "config.data.placement='disk' is unknown"),
    ("model.latent", 65, "config.model.latent=65: larger than the 64 elements of an example"),
    ("evaluators", ("posteror",), "config.evaluators='posteror' is unknown; did you mean 'posterior'"),
    ("evaluators", ("posterior",), "'posterior' needs a posterior; set config.model.bottleneck='gaussian'"),
    ("stages", (3,), "config.stages[0]=3: must be a dict"),
    ("stages", ({"epochs": 1},), "config.stages[0].objective is missing"),
    ("stages", ({"epochs": 0, "objective": {"name": "elbo"}},), "config.stages[0].epochs=0"),
    ("stages", ({"epochs": 1, "objective": {}},), "config.stages[0].objective.name is missing"),
    ("stages", ({"epochs": 1, "objective": {"name": "x"}},), "config.stages[0]: config.objective.name='x' is unknown"),
  ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(tiny, tmp_path, path, value, message):
  section, _, key = path.rpartition(".")
  (tiny[section] if section else tiny)[key] = value
  with pytest.raises(errors.UserError) as refusal:
    train.train_and_evaluate(tiny, tmp_path / "run")
  assert message in str(refusal.value)
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("section", "key", "value", "message"),
  [
    ("", "epochs", None, "config.epochs is missing"),
    ("", "epoch", 3, "config.epoch is not a key of the config; did you mean 'epochs'"),
    ("", "epochs", "3", "config.epochs='3': must be int"),
    ("optimizer", "lr", 1.0, "config.optimizer.lr is not a key of the config"),
    ("data", "path", None, "config.data.path is missing"),
    ("model", "name", None, "config.model.name is missing"),
  ],
)
def test_a_key_too_many_too_few_or_of_the_wrong_type_is_refused(tiny, tmp_path, section, key, value, message):
  part = tiny[section] if section else tiny
  if value is None:
    del part[key]
  else:
    with part.ignore_type():
      part[key] = value
  with pytest.raises(errors.UserError) as refusal:
    train.train_and_evaluate(tiny, tmp_path / "run")
  assert message in str(refusal.value)
  assert not (tmp_path / "run").exists()
