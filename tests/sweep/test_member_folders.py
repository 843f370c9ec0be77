"""The folders that members leave: those of their single runs, also after an interruption in the middle of an epoch."""

import itertools
import json
import types

import jax
import numpy as np
import pytest
from conftest import TINY, config_of, learned

from ae_jax.data import batch_schedule
from ae_jax.report import evaluation
from ae_jax.runs import checkpoints, run_folder
from ae_jax.sweep import run as sweep_run
from ae_jax.sweep import trainer
from ae_jax.training import preemption, train

pytestmark = pytest.mark.runs_optax

MASKING = {"name": "denoising", "likelihood": "bernoulli", "corruption": "masking", "level": 0.3}
AXES = [("model.latent", [2, 4]), ("seed", [0, 1]), ("objective.alpha", [1, 2])]
ORDERS = trainer.SweepOptions(way="in turn")
NAME = "latent=2,seed=1,alpha=2"


def staged():
  """A small config of two stages, whose epochs are cut into chunks of four steps."""
  config = config_of("dense", "digits")
  config.update_from_flattened_dict(TINY)
  config.epochs, config.eval_every_epochs, config.checkpoint_every_epochs = 2, 2, 5
  config.objective = {**MASKING, "alpha": 1.0, "beta": 0.5}
  config.stages = ({"epochs": 1, "objective": {**MASKING, "alpha": 1.0, "beta": 1.0}},)
  return config


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """The folder of a sweep, and that of the single run that one of its members is."""
  folder = tmp_path_factory.mktemp("folders")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(batch_schedule, "LONGEST_CHUNK", 4)
    patch.setattr(sweep_run, "_conclude", lambda *_: None)  # its pictures are not of concern here, nor those of the run
    patch.setattr(evaluation, "refresher", lambda _: lambda: None)
    patch.setattr(evaluation, "examine", lambda *_: types.SimpleNamespace(values={}))
    sweep_run.run(staged(), AXES, folder / "sweep", ORDERS)
    alone = staged()
    alone.model.latent, alone.seed, alone.objective.alpha = 2, 1, 2.0
    train.train_and_evaluate(alone, folder / "alone")
  return folder / "sweep", folder / "alone"


def test_a_member_leaves_the_records_of_its_single_run(folders):
  sweep, alone = folders
  (params, records), (others, single) = learned(sweep / NAME), learned(alone)
  assert [set(record) for record in records] == [set(record) for record in single]
  for record, other in zip(records, single, strict=True):
    assert record == pytest.approx(other, rel=2e-3)
  assert [record["epoch"] for record in records if "test/loss" in record] == [2, 3]
  jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=2e-3), params, others)
  other_seed, _ = learned(sweep / NAME.replace("seed=1", "seed=0"))
  assert not all(
    np.allclose(*pair, atol=2e-3) for pair in zip(*map(jax.tree.leaves, (params, other_seed)), strict=True)
  )


def test_a_member_leaves_the_description_and_the_last_checkpoint_of_its_single_run(folders):
  descriptions, kept, errors = [], [], []
  for folder in (folders[0] / NAME, folders[1]):
    descriptions.append(
      {k: v for k, v in run_folder.read_description(folder).items() if k not in ("command", "git_commit")}
    )
    with checkpoints.open_folder(folder / "checkpoints", to_save=False) as opened:
      kept.append(checkpoints.kept(opened)["last"])
    found = json.loads((folder / "checkpoints" / str(kept[-1]) / "metrics" / "metrics").read_text())
    errors.append((found["squared_error"], learned(folder)[1][-1]["test/squared_error"]))
  assert descriptions[0] == descriptions[1]
  assert kept[0] == kept[1] == 36
  assert all(saved == last for saved, last in errors)


def test_a_sweep_that_a_signal_stops_in_an_epoch_goes_on_bit_for_bit(folders, tmp_path, monkeypatch):
  monkeypatch.setattr(batch_schedule, "LONGEST_CHUNK", 4)
  monkeypatch.setattr(sweep_run, "_conclude", lambda *_: None)
  calls = itertools.count()
  with monkeypatch.context() as patch:
    patch.setattr(preemption, "asked", lambda received: "SIGTERM" if next(calls) >= 4 else "")
    with pytest.raises(preemption.Interrupted, match=r"SIGTERM: stopped after epoch 1\.33"):
      sweep_run.run(staged(), AXES, tmp_path / "run", ORDERS)
  assert not (tmp_path / "run" / "sweep.json").exists()
  sweep_run.run(staged(), AXES, tmp_path / "run", ORDERS)
  for name in (NAME, "latent=4,seed=0,alpha=1"):
    (params, records), (others, before) = learned(tmp_path / "run" / name), learned(folders[0] / name)
    assert records == before
    assert all(np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (params, others)), strict=True))
