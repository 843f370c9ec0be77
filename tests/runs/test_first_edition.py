"""A run folder of the first version, before models declared their latent code and state, can be used and continued."""

import pathlib
import shutil

import pytest

import ae_jax
from ae_jax import config as configs
from ae_jax import evaluators
from ae_jax.report import evaluation
from ae_jax.runs import run_folder
from ae_jax.training import train

pytestmark = pytest.mark.quick_compile

FOLDER = pathlib.Path(__file__).parent / "first_edition_run"  # configs/vae.py:digits, latent 3, widths (8,), 2 epochs


@pytest.fixture
def folder(tmp_path):
  shutil.copytree(FOLDER, tmp_path / "run")
  return tmp_path / "run"


def test_old_run_loads_and_evaluates_to_the_same_metrics(folder):
  run = ae_jax.load(folder)
  dataset = run_folder.load_data(folder, run.config)
  measures = evaluators.build(run.config.evaluators, run.model, dataset)
  results = evaluation.analyze(
    run, dataset, measures, folder, dict(evaluators.baselines(measures, dataset, run.model.code))
  )
  assert results.values["reconstruction/squared_error"] == pytest.approx(run.metrics["test/squared_error"], rel=1e-5)
  assert results.values["reconstruction/nats"] == pytest.approx(run.metrics["test/nats"], rel=1e-5)
  assert run.metrics["test/squared_error"] == 11.271287365544142  # stored in the folder, not measured again
  assert run.encode(dataset.test[:5]).shape == (5, 3)


@pytest.mark.runs_optax
def test_old_run_can_be_continued_and_extended(folder):
  stored = run_folder.read_description(folder)["config"]
  same = configs.from_json(stored)
  assert not configs.differences(stored, configs.as_json(same))
  longer = same.copy_and_resolve_references()
  longer.epochs = 3
  train.train_and_evaluate(longer, folder)
  assert ae_jax.load(folder).step == 1.5 * 46
