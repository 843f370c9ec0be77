"""A trained run is analyzed by its training, and again by a command; what stands in the way is said in a line."""

import gc
import itertools
import json
import shutil
import types
import weakref

import pytest
from conftest import run_command, run_main, tiny_flags

from ae_jax.evaluators import results
from ae_jax.report import evaluation, run_report

pytestmark = pytest.mark.runs_optax
STUDIED = "('sparsity','probe')"


def evaluate(workdir, *flags):
  """Runs `python -m ae_jax.evaluate`; returns (exit status, stdout, stderr)."""
  return run_command("evaluate", f"--workdir={workdir}", *flags)


@pytest.fixture(scope="module")
def analyzed(tmp_path_factory):
  """The folder of a run whose config asks for the evaluator `probe`."""
  workdir = tmp_path_factory.mktemp("analyzed") / "run"
  status, _, complaints = run_main(*tiny_flags(evaluators=STUDIED), f"--workdir={workdir}")
  assert status == 0, complaints
  return workdir


def test_a_run_ends_with_what_its_evaluators_found(analyzed):
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


def test_one_that_is_asked_again_leaves_the_others_alone(analyzed, tmp_path):
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
  ("harm", "flags", "said"),
  [
    (lambda run: shutil.rmtree(run / "checkpoints"), [], "no checkpoint yet"),
    (lambda run: (run / "config.json").unlink(), [], "there is no run here"),
    (lambda run: (run / "config.json").write_text('{"config": '), [], "config.json: cannot be read"),
    (lambda run: without(run, "evaluators"), [], "config.evaluators is missing"),
    (lambda run: changed(run, "digits", "mnist_5k"), [], "was trained on other data"),
    (lambda run: None, ["--only=prob"], "did you mean 'probe'"),
    (lambda run: None, ["--only=disentanglement"], "config.data.name=factors"),
    (lambda run: None, ["--only=anomaly"], "needs config.data.one_class"),
    (lambda run: None, ["runs/x"], "unexpected argument"),
  ],
)
def test_what_stands_in_the_way_is_said_in_a_line(analyzed, tmp_path, harm, flags, said):
  workdir = shutil.copytree(analyzed, tmp_path / "run")
  harm(workdir)
  status, output, complaints = evaluate(workdir, *flags)
  assert status in (1, 2)
  assert said in complaints
  assert complaints.startswith("ae_jax: ")
  assert len(complaints.splitlines()) == 1
  assert not output


@pytest.mark.parametrize(("cost", "between"), [(0.2, 30), (4.0, 200)])
def test_the_page_of_a_run_in_training_is_no_more_than_a_fiftieth_of_its_time(tmp_path, monkeypatch, cost, between):
  now, begun = [0.0], []

  def write(workdir):
    begun.append(now[0])
    now[0] += cost

  monkeypatch.setattr(evaluation, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
  monkeypatch.setattr(run_report, "write", write)
  refresh = evaluation.refresher(tmp_path)
  while now[0] < 1000:
    now[0] += 1.0
    refresh()
  assert begun[0] == 31
  assert all(between <= later - earlier <= between + 2 + cost for earlier, later in itertools.pairwise(begun))
  assert len(begun) >= 4


def test_the_page_of_a_run_in_training_leaves_nothing_behind(tmp_path, monkeypatch):
  left = []

  class Chart:
    """A part of a page that knows the whole, which knows it."""

  def write(workdir):
    chart = Chart()
    chart.page = [chart]
    left.append(weakref.ref(chart))

  monkeypatch.setattr(run_report, "write", write)
  monkeypatch.setattr(evaluation, "_REFRESHED", -1.0)
  gc.disable()
  try:
    evaluation.refresher(tmp_path)()
    assert left[0]() is None
  finally:
    gc.enable()


def without(run, key):
  """Takes a key from the config of a run, as another version may not have it."""
  description = json.loads((run / "config.json").read_text())
  del description["config"][key]
  (run / "config.json").write_text(json.dumps(description))


def changed(run, old, new):
  """Changes the name of a run's data set."""
  (run / "config.json").write_text((run / "config.json").read_text().replace(f'"{old}"', f'"{new}"'))
