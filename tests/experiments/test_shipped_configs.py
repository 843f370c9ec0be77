"""The stored curves of experiments/shipped_configs are runs of the shipped configs as they are, and can be compared."""

import json

import pytest
from conftest import ROOT, config_of, run_command

from ae_jax import config as configs
from ae_jax.runs import logs

pytestmark = pytest.mark.quick_compile

CURVES = sorted((ROOT / "experiments" / "shipped_configs" / "curves").iterdir())


@pytest.mark.parametrize("folder", CURVES, ids=lambda folder: folder.name)
def test_a_stored_curve_is_that_of_the_shipped_config(folder):
  config = config_of(*folder.name.split("-"))
  stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
  assert configs.differences(stored, configs.as_json(config)) == []
  assert [*logs.stream(folder)][-1]["epoch"] == config.epochs + sum(stage["epochs"] for stage in config.stages)


def test_a_run_is_compared_with_a_stored_curve(tmp_path):
  status, out, err = run_command("compare", CURVES[0], CURVES[1], cwd=tmp_path)
  assert (status, err) == (0, "")
  assert CURVES[0].name in out
