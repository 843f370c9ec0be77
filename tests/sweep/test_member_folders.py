"""A member leaves the run folder of its single run, also if a signal stops the sweep within an epoch."""

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

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]

MASKING = {"name": "denoising", "likelihood": "bernoulli", "corruption": "masking", "level": 0.3}
AXES = [("model.latent", [2, 4]), ("seed", [0, 1]), ("objective.alpha", [1, 2])]
OPTIONS = trainer.SweepOptions(way="in turn")
NAME = "latent=2,seed=1,alpha=2"


def staged():
  """Returns a small config of two stages."""
  config = config_of("dense", "digits")
  config.update_from_flattened_dict(TINY)
  config.epochs, config.eval_every_epochs, config.checkpoint_every_epochs = 2, 2, 5
  config.objective = {**MASKING, "alpha": 1.0, "beta": 0.5}
  config.stages = ({"epochs": 1, "objective": {**MASKING, "alpha": 1.0, "beta": 1.0}},)
  return config


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """Returns the folder of a sweep, and the run folder of a single run with the config of its member NAME."""
  folder = tmp_path_factory.mktemp("folders")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(batch_schedule, "LONGEST_CHUNK", 4)
    patch.setattr(sweep_run, "_conclude", lambda *_: None)  # no figures, to save time; nor those of the single run
    patch.setattr(evaluation, "refresher", lambda _: lambda: None)
    patch.setattr(evaluation, "analyze", lambda *_: types.SimpleNamespace(values={}))
    sweep_run.run(staged(), AXES, folder / "sweep", OPTIONS)
    single = staged()
    single.model.latent, single.seed, single.objective.alpha = 2, 1, 2.0
    train.train_and_evaluate(single, folder / "single")
  return folder / "sweep", folder / "single"


def test_member_has_the_records_and_parameters_of_its_single_run(folders):
  sweep, single = folders
  (params, records), (single_params, single_records) = learned(sweep / NAME), learned(single)
  assert [set(record) for record in records] == [set(record) for record in single_records]
  for record, single_record in zip(records, single_records, strict=True):
    assert record == pytest.approx(single_record, rel=2e-3)
  assert [record["epoch"] for record in records if "test/loss" in record] == [2, 3]
  jax.tree.map(lambda leaf, other: np.testing.assert_allclose(leaf, other, atol=2e-3), params, single_params)
  other_seed, _ = learned(sweep / NAME.replace("seed=1", "seed=0"))
  assert not all(
    np.allclose(*pair, atol=2e-3) for pair in zip(*map(jax.tree.leaves, (params, other_seed)), strict=True)
  )


def test_member_has_the_description_and_the_last_checkpoint_of_its_single_run(folders):
  descriptions, kept, errors = [], [], []
  for folder in (folders[0] / NAME, folders[1]):
    descriptions.append(
      {k: v for k, v in run_folder.read_description(folder).items() if k not in ("command", "git_commit")}
    )
    with checkpoints.open_folder(folder / "checkpoints", to_save=False) as opened:
      kept.append(checkpoints.last_and_best(opened)["last"])
    metrics = json.loads((folder / "checkpoints" / str(kept[-1]) / "metrics" / "metrics").read_text())
    errors.append((metrics["squared_error"], learned(folder)[1][-1]["test/squared_error"]))
  assert descriptions[0] == descriptions[1]
  assert kept[0] == kept[1] == 36
  assert all(saved == last for saved, last in errors)


def test_sweep_stopped_within_an_epoch_continues_bitwise(folders, tmp_path, monkeypatch):
  monkeypatch.setattr(batch_schedule, "LONGEST_CHUNK", 4)
  monkeypatch.setattr(sweep_run, "_conclude", lambda *_: None)
  calls = itertools.count()
  with monkeypatch.context() as patch:
    patch.setattr(preemption, "requested_stop", lambda received: "SIGTERM" if next(calls) >= 4 else "")
    with pytest.raises(preemption.Interrupted, match=r"SIGTERM: stopped after epoch 1\.33"):
      sweep_run.run(staged(), AXES, tmp_path / "run", OPTIONS)
  assert not (tmp_path / "run" / "sweep.json").exists()
  sweep_run.run(staged(), AXES, tmp_path / "run", OPTIONS)
  for name in (NAME, "latent=4,seed=0,alpha=1"):
    (params, records), (wanted, wanted_records) = learned(tmp_path / "run" / name), learned(folders[0] / name)
    assert records == wanted_records
    assert all(np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (params, wanted)), strict=True))
