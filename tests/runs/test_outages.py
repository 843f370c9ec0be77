"""A training that cannot write its folder for a moment waits and resumes; a full disk ends it at once."""

import jax
import numpy as np
import pytest
from conftest import TINY, config_of, learned

from ae_jax import errors
from ae_jax.report import evaluation
from ae_jax.runs import checkpoints, logs, outages
from ae_jax.sweep import run as sweep_run
from ae_jax.sweep import trainer
from ae_jax.training import train

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]

READ_ONLY = OSError(30, "Read-only file system")


@pytest.fixture
def outage(monkeypatch):
  """Returns a function that makes a method raise an OSError at its n-th call, and the folder unavailable for a moment.

  It returns the list of the calls.
  """

  def begin(module, name, n, error=READ_ONLY):
    original, calls, probes = getattr(module, name), [], iter((False, False, True))

    def method(*arguments, **options):
      calls.append(arguments)
      if len(calls) == n:
        raise error
      return original(*arguments, **options)

    monkeypatch.setattr(module, name, method)
    monkeypatch.setattr(outages, "_is_writable", lambda _: next(probes))
    monkeypatch.setattr("time.sleep", lambda _: None)
    return calls

  return begin


def assert_same(a, b):
  (params, records), (other_params, other_records) = learned(a), learned(b)
  jax.tree.map(np.testing.assert_array_equal, params, other_params)
  assert records == other_records


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
  """The run folder of an uninterrupted run of the config of `tiny`."""
  config = config_of("dense", "digits")
  config.update_from_flattened_dict(TINY)
  workdir = tmp_path_factory.mktemp("straight") / "run"
  train.train_and_evaluate(config, workdir)
  return workdir


WRITES = {
  "record": (logs, "_line", 8),
  "checkpoint": (checkpoints.ocp.training.Checkpointer, "save_checkpointables_async", 2),
  "evaluation": (evaluation.results, "write", 1),
}


@pytest.mark.parametrize("write", WRITES)
def test_run_resumes_after_an_outage_as_if_there_had_been_none(write, straight, tiny, tmp_path, outage, capsys):
  calls = outage(*WRITES[write])
  train.train_and_evaluate(tiny, tmp_path)
  assert len(calls) > WRITES[write][-1]
  printed = capsys.readouterr().out
  assert f"{tmp_path}: cannot be written; the training waits at most 60 seconds and then resumes\n" in printed
  assert f"{tmp_path}: can be written again\n" in printed
  assert_same(straight, tmp_path)


def test_sweep_resumes_after_an_outage(tiny, tmp_path, outage):
  axes, options = [("model.latent", [2, 4])], trainer.SweepOptions(way="in turn")
  sweep_run.run(tiny, axes, tmp_path / "straight", options, 0)
  outage(checkpoints.ocp.training.Checkpointer, "save_checkpointables_async", 2)
  rows = sweep_run.run(tiny, axes, tmp_path / "run", options, 0)
  assert [row["status"] for row in rows] == ["done", "done"]
  for row in rows:
    assert_same(tmp_path / "straight" / row["name"], tmp_path / "run" / row["name"])


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), ValueError("x: Disk quota exceeded [y]")])
def test_full_disk_ends_the_training_at_once(failure, tiny, tmp_path, outage):
  calls = outage(*WRITES["checkpoint"], failure)
  with pytest.raises(errors.UserError, match="the checkpoint cannot be written"):
    train.train_and_evaluate(tiny, tmp_path)
  assert len(calls) == WRITES["checkpoint"][-1]


def fail():
  raise errors.WriteError("runs/x: cannot be written")


def test_long_outage_and_repeated_failures_raise_the_first_error(tmp_path, monkeypatch):
  monkeypatch.setattr(outages, "_SECONDS", 0.0)
  printed = []
  with pytest.raises(errors.WriteError, match="runs/x"):
    outages.resume(fail, tmp_path / "absent", printed.append)
  assert len(printed) == 1
  with pytest.raises(errors.WriteError, match="runs/x"):  # can be written, but the training fails again and again
    outages.resume(fail, tmp_path, printed.append)
  assert len(printed) == 1 + 3 + 4
