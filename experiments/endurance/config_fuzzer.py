"""Tests that an invalid config either trains or is refused with one clear line.

Each case (see `cases`) is trained by `train.train_and_evaluate`, some also by the command. A case must not raise any
exception but UserError, must not hang, and must not leave a run folder behind if it is refused.
"""

import contextlib
import io
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings
from unittest import mock

import jax
from hypothesis import strategies as st
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

from ae_jax import errors
from ae_jax.models import memory
from ae_jax.training import loop, train
from experiments.endurance import cases, values, watch

SECONDS = 60.0  # time limit of a case; most take one second
MEMORY = 2**30  # bytes reported as available memory, so that configs that just fit do not exhaust this machine
LONGEST = 3  # runs with more epochs are stopped after the first
_TO_THE_END = 3  # every third case is trained to the end, with evaluation, checkpoint and figures
_CLEAR_CACHES_EVERY = 40  # cases; compiled programs stay in memory otherwise


class FirstEpochTrained(Exception):
  """Stops a long run after its first epoch."""


def run(count, seed, processes=0):
  """Tests `count` configs in this process and `processes` by the command; returns results with "violations"."""
  tally, commands = watch.Tally(), watch.Tally()
  with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
    folder = pathlib.Path(folder)
    cases.write_data(folder)
    numbers = iter(range(count + 1))

    def judge(case):
      number = next(numbers)
      name, config, changes = case
      (folder / "current").write_text(
        f"{number} {name} {changes!r}", encoding="utf-8"
      )  # names the case if this process dies
      outcome, line = judged(config, folder / f"run{number}", number % _TO_THE_END == 0)
      tally.add(outcome, line, {"config": name, "changes": changes})
      if number % _CLEAR_CACHES_EVERY == 0:
        jax.clear_caches()

    with mock.patch.object(memory, "available_bytes", return_value=MEMORY), _fast_compilation(folder / "xla"):
      watch.explore(cases.cases(folder), count, seed, judge)
      watch.explore(flags_of(folder), processes, seed, lambda flags: commands.add(*run_command(flags, folder), flags))
  results, command_results = tally.results(), commands.results()
  violations = results["violations"] + command_results.pop("violations")
  return {**results, "commands": command_results, "violations": violations}


def judged(config, workdir, to_the_end=True):
  """Trains a config (a nested dict) in a new folder, to the end or for one epoch, and returns (outcome, line)."""
  started_epochs = []
  train_epoch = loop._train_epoch

  def counted_epoch(*args, **options):
    started_epochs.append(True)
    result = train_epoch(*args, **options)
    if not to_the_end or config["epochs"] > LONGEST:
      raise FirstEpochTrained
    return result

  def train_config():
    with contextlib.suppress(FirstEpochTrained):
      train.train_and_evaluate(ConfigDict(config), workdir)
      return "trained to the end"
    return "trained an epoch"

  with mock.patch.object(loop, "_train_epoch", counted_epoch), contextlib.redirect_stdout(io.StringIO()):
    outcome, line = watch.judge(train_config, SECONDS)
  if outcome == "refused" and started_epochs:
    return "stopped in training", line
  if outcome == "refused" and workdir.exists():
    return "partial workdir", f"{line} [{', '.join(sorted(path.name for path in workdir.iterdir()))}]"
  return outcome, line


@st.composite
def flags_of(draw, folder):
  """Draws the flags of a command: a shipped config on tiny data with one or two changed keys."""
  name = draw(st.sampled_from(cases.SHIPPED))
  config = cases.shipped(name, folder)
  source = config["data"]["name"]
  flags = {"data.path": config["data"]["path"], "batch_size": 8, "epochs": 1}
  flags |= {"model.patch": 2} if name == "attention" else {}
  flags |= {"optimizer.warmup_epochs": 0.5}
  for _ in range(draw(st.integers(1, 2))):
    path = draw(st.sampled_from(sorted(cases.paths(config), key=str)))
    old = cases.read(config, path)
    value = draw(values.value(path[-1], old))  # not filtered by Hypothesis, which would print unprintable values
    flags[cases.dotted(path)] = value if _is_valid_flag(value) else "nonsense"
  arguments = [f"--config.{key}={value if isinstance(value, str) else repr(value)}" for key, value in flags.items()]
  return [f"--config={cases.ROOT}/configs/{name}.py:{source}", *arguments]


def _is_valid_flag(value):
  """Returns whether a flag can represent the value and its run is short enough for a test."""
  if isinstance(value, str):
    return "\0" not in value and value.isprintable()
  numbers = value if isinstance(value, tuple) else (value,)
  modest = all(isinstance(n, int | float) and not 100 < n < 2**31 - 1 for n in numbers)
  printable = not errors.format_value(value).startswith("<")
  return isinstance(value, bool | int | float | tuple) and modest and printable and len(numbers) < 100


def run_command(flags, folder):
  """Runs `python -m ae_jax.main` with these flags and returns (outcome, line)."""
  with tempfile.TemporaryDirectory(dir=folder) as directory:
    workdir = pathlib.Path(directory) / "run"
    command = [sys.executable, "-m", "ae_jax.main", *flags, f"--workdir={workdir}"]
    environment = {**os.environ, "PYTHONPATH": str(cases.ROOT)}
    try:
      process = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, encoding="utf-8", timeout=4 * SECONDS, check=False
      )
    except subprocess.TimeoutExpired:
      return "hang", f"more than {4 * SECONDS:g} s"
    lines = process.stderr.splitlines()
    if "Traceback" in process.stderr or process.returncode not in (0, 1, 2):
      return "traceback", f"status {process.returncode}: {' | '.join(lines[-3:])}"
    if process.returncode == 0:
      return "trained to the end", ""
    if len(lines) != 1 or process.stdout:
      return "unclear line", f"status {process.returncode}: {' | '.join(lines)}"
    return "partial workdir" if workdir.exists() else "refused", lines[0]


@contextlib.contextmanager
def _fast_compilation(folder):
  """Shortens compilation, which takes most of the time: caches programs in a folder and disables optimisations."""
  settings = {
    "jax_compilation_cache_dir": str(folder),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_disable_most_optimizations": True,
  }
  before = {key: jax.config.values[key] for key in settings}
  _configure(settings)
  try:
    yield
  finally:
    _configure(before)


def _configure(settings):
  """Sets keys of JAX's config and closes the compilation cache, so that JAX opens the configured folder."""
  for key, value in settings.items():
    jax.config.update(key, value)
  compilation_cache.reset_cache()
