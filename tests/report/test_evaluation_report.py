"""Analysis of a trained run, at the end of training and by the command; errors are one line."""

import gc
import itertools
import json
import shutil
import types
import weakref

import pytest
from conftest import run_command, run_main, tiny_flags, with_pictures

from ae_jax.evaluators import results
from ae_jax.report import evaluation, run_report

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]
EVALUATORS = "('sparsity','probe')"


def evaluate(workdir, *flags):
  """Runs `python -m ae_jax.evaluate`; returns (exit status, stdout, stderr)."""
  return run_command("evaluate", f"--workdir={workdir}", *flags)


@pytest.fixture(scope="module")
def analyzed(tmp_path_factory):
  """The folder of a run whose config asks for the evaluator `probe`."""
  workdir = tmp_path_factory.mktemp("analyzed") / "run"
  with with_pictures():
    status, _, complaints = run_main(*tiny_flags(evaluators=EVALUATORS), f"--workdir={workdir}")
  assert status == 0, complaints
  return workdir


def test_training_ends_with_the_results_of_the_evaluators(analyzed):
  found = results.read(analyzed)
  record = json.loads((analyzed / "metrics.jsonl").read_text().splitlines()[-1])
  assert found.step == record["step"]
  assert found.values["reconstruction/squared_error"] == pytest.approx(record["test/squared_error"], rel=1e-5)
  assert 0.3 < found.values["probe/linear/code"] <= found.values["probe/linear/pixels"] + 0.1
  for name in found.figures:
    assert (analyzed / "pictures" / f"{name.rpartition('/')[2]}.png").stat().st_size > 500
  page = (analyzed / "report.html").read_text()
  assert "linear" in page
  assert "squared error" in page


def test_a_repeated_evaluation_keeps_the_other_results(analyzed, tmp_path):
  workdir = shutil.copytree(analyzed, tmp_path / "run")
  before = results.read(workdir)
  status, output, complaints = evaluate(workdir, "--only=latent,reconstruction")
  assert status == 0, complaints
  after = results.read(workdir)
  assert {name: after.values[name] for name in before.values} == pytest.approx(before.values, rel=1e-5)
  assert "latent/active_units" in after.values
  assert "latent/active_units" in output
  assert before.figures.keys() < after.figures.keys()
  assert "latent" in (workdir / "report.html").read_text()


@pytest.mark.parametrize(
  ("harm", "flags", "message"),
  [
    (lambda run: shutil.rmtree(run / "checkpoints"), [], "no checkpoint yet"),
    (lambda run: (run / "config.json").unlink(), [], "there is no run here"),
    (lambda run: (run / "config.json").write_text('{"config": '), [], "config.json: cannot be read"),
    (lambda run: without(run, "evaluators"), [], "config.evaluators is missing"),
    (lambda run: changed(run, "digits", "mnist_5k"), [], "is not the data of the run"),
    (lambda run: None, ["--only=prob"], "did you mean 'probe'"),
    (lambda run: None, ["--only=disentanglement"], "config.data.name='factors'"),
    (lambda run: None, ["--only=anomaly"], "needs config.data.one_class"),
    (lambda run: None, ["runs/x"], "unexpected argument"),
  ],
)
def test_an_error_of_the_command_is_one_line(analyzed, tmp_path, harm, flags, message):
  workdir = shutil.copytree(analyzed, tmp_path / "run")
  harm(workdir)
  status, output, complaints = evaluate(workdir, *flags)
  assert status in (1, 2)
  assert message in complaints
  assert complaints.startswith("ae_jax: ")
  assert len(complaints.splitlines()) == 1
  assert not output


@pytest.mark.parametrize(("cost", "between"), [(0.2, 30), (4.0, 200)])
def test_report_takes_at_most_two_percent_of_the_training_time(tmp_path, monkeypatch, cost, between):
  now, begun = [0.0], []

  def write(workdir):
    begun.append(now[0])
    now[0] += cost

  monkeypatch.setattr(evaluation, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
  monkeypatch.setattr(run_report, "write", write)
  refresh = evaluation.refresher(tmp_path)
  while now[0] < 5 * between:  # each report collects garbage, which takes a second in a large process
    now[0] += 1.0
    refresh()
  assert begun[0] == 31
  assert all(between <= later - earlier <= between + 2 + cost for earlier, later in itertools.pairwise(begun))
  assert len(begun) >= 3


def test_refreshing_the_report_leaves_no_reference_cycles(tmp_path, monkeypatch):
  left = []

  class Chart:
    """Part of a reference cycle with its page."""

  def write(workdir):
    chart = Chart()
    chart.page = [chart]
    left.append(weakref.ref(chart))

  monkeypatch.setattr(run_report, "write", write)
  monkeypatch.setattr(evaluation, "_MIN_PAUSE", -1.0)
  gc.disable()
  try:
    evaluation.refresher(tmp_path)()
    assert left[0]() is None
  finally:
    gc.enable()


def without(run, key):
  """Removes a key from the config of a run."""
  description = json.loads((run / "config.json").read_text())
  del description["config"][key]
  (run / "config.json").write_text(json.dumps(description))


def changed(run, old, new):
  """Replaces a string in the config of a run."""
  (run / "config.json").write_text((run / "config.json").read_text().replace(f'"{old}"', f'"{new}"'))
