"""The benchmark for a GPU with tiny sizes on a CPU, and the larger images and profiles in experiments/throughput."""

import contextlib
import json
import sys
import time

import jax
import jax.numpy as jnp
import pytest
from conftest import ROOT

from ae_jax.training import train

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]

SPEED = [(8, name) for name in ("ae_jax", "ae_jax, bfloat16", "ae_jax, deterministic")]


@pytest.fixture
def gpu(monkeypatch):
  """The package of the benchmark, which is not installed."""
  monkeypatch.syspath_prepend(ROOT)
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  from experiments.throughput import gpu, peers, problem
  from experiments.throughput.gpu import __main__, budget, plan, resume  # noqa: F401
  from experiments.throughput.peers import ours  # noqa: F401

  gpu.peers, gpu.problem = peers, problem
  return gpu


def rows(page, heading):
  """Returns the cells of the table below a heading of the page."""
  lines = page.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
  return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][2:]


@pytest.fixture
def in_one_process(gpu, monkeypatch):
  """Trains in this process, because processes start slowly, and imitates the killed run and the single runs."""
  from experiments.throughput import processes, worker

  @contextlib.contextmanager
  def start_worker(contestant, model, images, cache):
    built = worker.Worker(contestant, model, images, "0.0")
    yield lambda do, **request: json.loads(json.dumps(getattr(built, do)(**request)))

  def measure(module, keywords, environment):
    return json.loads(json.dumps(module.measure(**json.loads(json.dumps(keywords)))))

  def train_and_evaluate(config, workdir):
    workdir.mkdir()
    (workdir / "metrics.jsonl").write_text('{"step": 1, "epoch": 1, "images_per_second": 5.0}\n' * config.epochs)

  monkeypatch.setattr(processes, "start_worker", start_worker)
  monkeypatch.setattr(train, "train_and_evaluate", train_and_evaluate)
  monkeypatch.setattr(gpu.plan, "_in_process", measure)
  imitate_runs(gpu, monkeypatch)


def imitate_runs(gpu, monkeypatch):
  """Replaces runs by processes that write only the names of their checkpoints."""
  script = """import pathlib, sys, time
folder, last = pathlib.Path(sys.argv[1], "checkpoints"), int(sys.argv[2])
for step in range(max((int(file.name) for file in folder.glob("*")), default=0) + 1, last + 1):
  time.sleep(0.05)
  (folder / str(step) / "metrics").mkdir(parents=True)
  (folder / str(step) / "metrics" / "metrics").touch()
"""
  command = lambda model, data, epochs, workdir, flags: [sys.executable, "-c", script, str(workdir), str(epochs)]
  steps = lambda workdir: {file.name for file in (workdir / "checkpoints").glob("*")}
  monkeypatch.setattr(gpu.resume, "command", command)
  monkeypatch.setattr(gpu.resume.crashes, "equal", lambda a, b: steps(a) == steps(b))
  monkeypatch.setattr(gpu.resume, "largest_difference", lambda a, b: 0.0)


def check_tiny_benchmark(gpu, tmp_path, monkeypatch):
  """Runs the benchmark without PyTorch and checks that its page has all rows."""
  monkeypatch.setattr(gpu.peers.Entry, "missing", lambda entry: list(entry.packages))
  page = gpu.__main__.main(["--tiny", "--minutes=60", f"--out={tmp_path}"])
  text, results = page.read_text(), json.loads(page.with_suffix(".json").read_text())
  names = ("PyTorch eager", "PyTorch compile", "PyTorch CUDA graphs")
  assert results["missing"] == {f"dense: {name}": "UserError: not installed: torch" for name in names}
  assert all(f"- dense: {name}: UserError: not installed: torch" in text for name in names)
  assert "| matrix product, highest float32 | " in text
  speed = rows(text, "Speed of the training step")
  assert [(int(row[1]), row[2]) for row in speed] == SPEED
  assert all(float(row[5]) > 0 for row in speed if row[2] != "ae_jax")
  assert [row[:3] for row in rows(text, "A sweep in one program")] == [["dense", "2", "2"]]
  (sweep,) = results["sweep"]
  assert sweep["loop_seconds"] == pytest.approx(sum(sum(times) for times in sweep["single_seconds"].values()))
  killed = rows(text, "A killed run")
  assert [row[1] for row in killed] == ["--deterministic", "-"]
  assert all(row[4:] == ["yes", "0"] and 0 < int(row[3]) < int(row[2]) for row in killed)


def test_tiny_benchmark_fills_all_tables(gpu, in_one_process, tmp_path, monkeypatch):
  check_tiny_benchmark(gpu, tmp_path, monkeypatch)


@pytest.mark.slow
def test_tiny_benchmark_with_its_own_processes_fills_all_tables(gpu, tmp_path, monkeypatch):
  check_tiny_benchmark(gpu, tmp_path, monkeypatch)


def test_run_that_ends_before_it_is_killed_is_refused(gpu, monkeypatch):
  imitate_runs(gpu, monkeypatch)
  monkeypatch.setattr(gpu.resume.crashes, "wait_for", lambda condition: time.sleep(2))
  with pytest.raises(gpu.plan.UserError, match="ended before it was killed"):
    gpu.resume.measure("dense", "digits", 1, (), {})


def test_profiles_count_each_kind_of_operation(gpu):
  from experiments.throughput import profiles

  @jax.jit
  def update(weights, x):
    gradient = jax.grad(lambda weights: jnp.tanh(x @ weights).sum())(weights)
    return weights - jnp.sqrt(jnp.abs(gradient)).T

  weights, x = jnp.ones((64, 64)), jnp.ones((128, 64))
  kinds = profiles.kinds_of_operations(update.lower(weights, x).compile().as_text())
  assert {"products", "elementwise", "optimizer"} <= set(kinds.values())
  spent = profiles.milliseconds(lambda: jax.block_until_ready(update(weights, x)), kinds)
  assert spent["products"] > 0
  assert spent["small products and softmax"] == 0


def test_budget_names_measurements_that_fail_or_do_not_fit(gpu, monkeypatch):
  def fails():
    yield {"value": 2}
    raise ValueError("a long text\nout of memory")

  def sleeps():
    time.sleep(60)
    yield {"value": 3}

  functions = {"fine": lambda: [{"value": 1}], "fails": fails, "sleeps": sleeps, "late": lambda: [{"value": 4}]}
  monkeypatch.setattr(gpu.budget, "SHARE", 1.0)
  results, saved = {"part": [], "missing": {}}, []
  measurements = [gpu.budget.Measurement("part", name, function) for name, function in functions.items()]
  save = lambda: saved.append(json.loads(json.dumps(results)))
  start = time.monotonic()
  gpu.budget.run(measurements, results, save, minutes=1 / 60)
  assert 0.9 < time.monotonic() - start < 30
  assert results["part"] == [{"value": 1}, {"value": 2}]
  assert results["missing"]["fails"] == "ValueError: out of memory"
  assert results["missing"]["sleeps"].startswith("did not end within ")
  assert results["missing"]["late"] == "did not fit into 0.0166667 minutes"
  assert set(results["missing"]) == {"fails", "sleeps", "late"}
  # what a kill in the second and third measurement would leave behind
  assert {"part": [{"value": 1}], "missing": saved[2]["missing"]} == saved[2]
  assert saved[2]["missing"]["fails"] == "the measurement was interrupted"
  assert saved[2]["missing"]["late"] == "the measurement had not started"


def test_benchmark_refuses_a_cpu_and_results_of_tiny_sizes_among_the_others(gpu, capsys):
  with pytest.raises(gpu.plan.UserError, match=r"JAX finds no GPU.*--tiny"):
    gpu.__main__.main([])
  with pytest.raises(SystemExit):
    gpu.__main__.main(["--tiny"])
  assert "--out=FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cnn64", "cnn128"])
def test_larger_images_have_the_sizes_of_the_pytorch_model(gpu, name):
  """The numbers of parameters and the sizes are those of the layers in peers/torch_modules.py, added by hand."""
  shape, _, count = gpu.problem.LARGE[name]
  model = gpu.peers.ours.model(name)
  small = {64: 6, 128: 14}[shape[0]] ** 2 * 128
  convolutions = [(9 * 3, 32), (9 * 32, 64), (9 * 64, 128)]
  transposed = [(9 * 128, 64), (49 * 64, 32), (64 * 32, 3)]
  layers = [*convolutions, (small, 32), (32, small), *transposed]
  assert model.parameter_count() == sum((inputs + 1) * outputs for inputs, outputs in layers)
  assert gpu.problem.images(name, None).shape == (count, *shape)
  batch = jax.ShapeDtypeStruct((2, *shape), "float32")
  assert jax.eval_shape(model.reconstruct, model.abstract_variables(), batch).shape == (2, *shape)
