"""The short versions of experiments/endurance: whatever is given to a run or done to it, numbers or one clear line."""

import pytest
from conftest import ROOT

CONFIGS, FILES, KILLS = 20, 60, 3  # cases; the experiment has thousands

pytestmark = pytest.mark.runs_optax


@pytest.fixture
def endurance(monkeypatch):
  """The experiments are no part of the package."""
  monkeypatch.syspath_prepend(ROOT)
  from experiments import endurance
  from experiments.endurance import config_fuzzer, crashes, data_fuzzer, scaling  # noqa: F401

  return endurance


def test_mistaken_configs_train_or_are_refused_in_a_line(endurance):
  found = endurance.config_fuzzer.run(CONFIGS, seed=1)
  assert found["violations"] == []
  assert found["cases"] == CONFIGS
  assert found["outcomes"]["refused"] > CONFIGS // 2
  assert {"trained an epoch", "trained to the end"} <= found["outcomes"].keys()


def test_damaged_files_load_or_are_refused_in_a_line(endurance):
  found = endurance.data_fuzzer.run(FILES, seed=1)
  assert found["violations"] == []
  assert found["cases"] == FILES
  assert found["outcomes"]["refused"] > FILES // 2
  assert found["outcomes"]["loaded"] > FILES // 20


def test_a_run_that_is_killed_again_and_again_ends_bit_for_bit_as_one_that_was_not(endurance, monkeypatch):
  monkeypatch.setitem(endurance.crashes.CONFIGS["dense"], "epochs", 60)
  found = endurance.crashes.kills(KILLS, seed=1, names=["dense"])
  assert found["violations"] == []
  assert found["outcomes"]["kills"] == KILLS
  assert found["outcomes"]["inside_a_save"] >= KILLS // 3


def test_the_readme_has_the_predicted_cost_of_many_devices(endurance):
  assert endurance.scaling.markdown() in (ROOT / "experiments" / "endurance" / "README.md").read_text()


def test_the_config_fuzzer_sees_what_it_is_looking_for(endurance, tmp_path, monkeypatch):
  """A traceback, a line that names nothing, a folder left behind, and a run without end, each put there on purpose."""
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
