"""Trainings that start from the arrays of a trained run."""

import shutil

import jax
import numpy as np
import pytest

import ae_jax
from ae_jax import errors
from ae_jax.models import variable_names
from ae_jax.sweep import run as sweep
from ae_jax.training import in_memory, setup, train, warm_start

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """The folder of a trained run."""
  from conftest import TINY, config_of

  config = config_of("dense", "digits")
  config.update_from_flattened_dict(TINY)
  folder = tmp_path_factory.mktemp("source") / "run"
  train.train_run(config, folder)
  return folder


def arrays(run):
  return variable_names.named(run.variables)


def test_a_frozen_encoder_of_another_run_stays_as_it_is(tiny, source, tmp_path, capsys):
  tiny.init_from, tiny.init_only, tiny.freeze, tiny.seed = str(source), "encoder", "encoder", 1
  tiny.optimizer.weight_decay, tiny.ema_decay = 0.1, 0.9
  run = train.train_run(tiny, tmp_path / "run")
  taken, trained = arrays(ae_jax.load(source)), arrays(ae_jax.load(tmp_path / "run", weights="raw"))
  for name, array in trained.items():
    assert np.array_equal(array, taken[name]) == name.startswith("encoder"), name
  for name in ("encoder/code/kernel", "encoder/hidden_0/bias"):
    np.testing.assert_allclose(arrays(run)[name], taken[name], rtol=1e-6)  # averages of equal numbers
  output = capsys.readouterr().out
  assert "4 of the 8 arrays of the model are taken from the run at step 36" in output
  assert "initialised anew: decoder/hidden_0/bias (16,), decoder/hidden_0/kernel (4, 16)," in output
  assert "not used: decoder/hidden_0/bias (16,)" in output


def test_the_untrained_model_is_the_source(tiny, source):
  tiny.init_from, tiny.epochs, tiny.optimizer.warmup_epochs, tiny.optimizer.learning_rate = str(source), 1, 0.0, 1e-30
  with pytest.warns(UserWarning, match="8 of the 8 arrays"):
    started = in_memory.train_run(tiny, setup.build_experiment(tiny, 1).dataset)
  jax.tree.map(np.testing.assert_array_equal, started.variables, ae_jax.load(source).variables)


def test_arrays_of_another_shape_are_initialised_and_named(tiny, source):
  tiny.init_from, tiny.model.latent = str(source), 5
  lines = warm_start.check(setup.build_experiment(tiny, 1))
  assert lines[0].endswith("5 of the 8 arrays of the model are taken from the run at step 36")
  new = "decoder/hidden_0/kernel (5, 16), encoder/code/bias (5,), encoder/code/kernel (16, 5)"
  assert lines[1].endswith(f"initialised anew: {new}")
  assert lines[2].endswith(f"not used: {new.replace('5', '4')}")


def test_a_run_is_continued_without_its_source(tiny, source, tmp_path, monkeypatch):
  from conftest import learned, train_until

  copy = shutil.copytree(source, tmp_path / "copy")
  tiny.init_from = str(copy)
  train.train_and_evaluate(tiny, tmp_path / "whole")
  train_until(tiny, tmp_path / "stopped", 2, monkeypatch)
  shutil.rmtree(copy)
  train.train_and_evaluate(tiny, tmp_path / "stopped")
  (whole, records), (continued, same_records) = (learned(tmp_path / name) for name in ("whole", "stopped"))
  jax.tree.map(np.testing.assert_array_equal, whole, continued)
  assert records == same_records
  with pytest.raises(errors.UserError, match=r"config.init_from: .*copy: there is no run here"):
    train.train_and_evaluate(tiny, tmp_path / "new")
  assert not (tmp_path / "new" / "config.json").exists()


def test_members_of_a_sweep_start_like_single_runs(tiny, source, tmp_path):
  tiny.init_from, tiny.freeze, tiny.epochs = str(source), "encoder/hidden", 1
  sweep.run(tiny, [("model.latent", (3, 4))], tmp_path / "sweep")
  for latent in (3, 4):
    tiny.model.latent = latent
    single = train.train_run(tiny, tmp_path / f"single{latent}")
    member = ae_jax.load(tmp_path / "sweep" / f"latent={latent}")
    for one, other in zip(arrays(single).values(), arrays(member).values(), strict=True):
      np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"init_only": "encoder"}, "config.init_only='encoder': must be '' unless config.init_from is set"),
    ({"init_from": "nowhere"}, "config.init_from: .*nowhere: there is no run here"),
    ({"init_from": "{source}", "init_only": "["}, r"config.init_only='\[': must be a regular expression"),
    (
      {"init_from": "{source}", "init_only": "coder"},
      "config.init_only='coder': must match the beginning of the name of an array of the model: decoder/hidden_0/bias,",
    ),
    (
      {"init_from": "{source}", "model.widths": (15,), "init_only": "encoder/hidden"},
      r"no array has the name and shape of an array of this model, which has .*Set config.model as in the run",
    ),
    ({"freeze": "encode_"}, "config.freeze='encode_': must match the beginning of the name of an array"),
    ({"freeze": "encoder|decoder"}, "config.freeze='encoder|decoder': matches all parameters; leave some to train"),
  ],
)
def test_invalid_keys_are_refused(tiny, source, tmp_path, changes, message):
  tiny.update_from_flattened_dict(
    {key: value.format(source=source) if isinstance(value, str) else value for key, value in changes.items()}
  )
  with pytest.raises(errors.UserError, match=message):
    train.train_run(tiny, tmp_path / "run")
  assert not (tmp_path / "run").exists() or not any((tmp_path / "run").glob("config.json"))
