"""Short versions of experiments/endurance: each fault leads to a valid result or to one clear error line."""

import pytest
from conftest import ROOT

CONFIGS, FILES, KILLS = 20, 60, 2  # numbers of cases; the experiment has thousands

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]


@pytest.fixture
def endurance(monkeypatch):
  """The package of the experiment, which is not installed."""
  monkeypatch.syspath_prepend(ROOT)
  from experiments import endurance
  from experiments.endurance import config_fuzzer, crashes, data_fuzzer, scaling  # noqa: F401

  return endurance


def test_invalid_configs_train_or_are_refused_with_one_line(endurance):
  result = endurance.config_fuzzer.run(CONFIGS, seed=1)
  assert result["violations"] == []
  assert result["cases"] == CONFIGS
  assert result["outcomes"]["refused"] > CONFIGS // 2
  assert {"trained an epoch", "trained to the end"} <= result["outcomes"].keys()


def test_damaged_files_load_or_are_refused_with_one_line(endurance):
  result = endurance.data_fuzzer.run(FILES, seed=1)
  assert result["violations"] == []
  assert result["cases"] == FILES
  assert result["outcomes"]["refused"] > FILES // 2
  assert result["outcomes"]["loaded"] > FILES // 20


@pytest.mark.slow  # tests/experiments/test_colab.py kills a run, too, and compares it bit for bit
def test_repeatedly_killed_run_equals_an_uninterrupted_run_bitwise(endurance, monkeypatch):
  monkeypatch.setitem(endurance.crashes.CONFIGS["dense"], "epochs", 60)
  result = endurance.crashes.kills(KILLS, seed=1, names=["dense"])
  assert result["violations"] == []
  assert result["outcomes"]["kills"] == KILLS
  assert result["outcomes"]["inside_a_save"] >= 1


def test_readme_contains_the_predicted_scaling_table(endurance):
  assert endurance.scaling.markdown() in (ROOT / "experiments" / "endurance" / "README.md").read_text()


def test_config_fuzzer_detects_each_kind_of_fault(endurance, tmp_path, monkeypatch):
  """Injects a traceback, an unclear message, a leftover folder and an endless run."""
  fuzzer, cases = endurance.config_fuzzer, endurance.config_fuzzer.cases
  cases.write_data(tmp_path)
  config = cases.shipped("dense", tmp_path)

  def outcome(act):
    monkeypatch.setattr(fuzzer.train, "train_and_evaluate", act)
    return fuzzer.judged(config, tmp_path / "run")[0]

  def raises(error):
    raise error

  refusal = fuzzer.watch.errors.UserError
  assert outcome(lambda *_: {}) == "trained to the end"
  assert outcome(lambda *_: raises(refusal("config.epochs=0: must be more"))) == "refused"
  assert outcome(lambda *_: raises(refusal("something is wrong"))) == "unclear line"
  assert outcome(lambda *_: raises(refusal("config.epochs" * 99))) == "unclear line"
  assert outcome(lambda *_: raises(TypeError("unhashable"))) == "traceback"
  monkeypatch.setattr(fuzzer, "SECONDS", 0.2)
  assert outcome(lambda *_: [None for _ in iter(int, 1)]) == "hang"
  assert outcome(lambda _, workdir: workdir.mkdir() or raises(refusal("config.epochs"))) == "partial workdir"
