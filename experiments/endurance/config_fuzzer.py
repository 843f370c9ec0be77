"""Do mistaken configs train a step, or end in one clear line?

Each case (see `cases`) goes through `train.train_and_evaluate`, some also through the command. It may neither raise
anything but UserError, nor hang, nor leave a folder behind that says it was begun.
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

SECONDS = 60.0  # of a case; most take one
MEMORY = 2**30  # bytes that the configs are told there are, so that this machine survives what just fits
LONGEST = 3  # epochs that are trained to their end; of more, one
_TO_THE_END = 3  # every third case is, with its evaluation, checkpoint and pictures
_FORGET_EVERY = 40  # cases: compiled programs stay in memory


class Trained(Exception):
  """The first epoch of a run that would take long has been trained."""


def run(count, seed, processes=0):
  """Judges `count` configs in this process and `processes` by the command: plain results, violations among them."""
  tally, commands = watch.Tally(), watch.Tally()
  with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
    folder = pathlib.Path(folder)
    cases.write_data(folder)
    numbers = iter(range(count + 1))

    def judge(case):
      number = next(numbers)
      name, config, changes = case
      (folder / "current").write_text(f"{number} {name} {changes!r}")  # for whoever finds this process dead
      outcome, line = judged(config, folder / f"run{number}", number % _TO_THE_END == 0)
      tally.add(outcome, line, {"config": name, "changes": changes})
      if number % _FORGET_EVERY == 0:
        jax.clear_caches()

    with mock.patch.object(memory, "available", return_value=MEMORY), _cheap_compiling(folder / "xla"):
      watch.explore(cases.cases(folder), count, seed, judge)
      watch.explore(commands_of(folder), processes, seed, lambda flags: commands.add(*commanded(flags, folder), flags))
  found, spoken = tally.results(), commands.results()
  return {**found, "commands": spoken, "violations": found["violations"] + spoken.pop("violations")}


def judged(config, workdir, to_the_end=True):
  """(outcome, line) of a nested dict as the config of a run in a new folder, trained `to_the_end` or for an epoch."""
  begun = []
  epoch = loop._train_epoch

  def counted(*args, **options):
    begun.append(True)
    result = epoch(*args, **options)
    if not to_the_end or config["epochs"] > LONGEST:
      raise Trained
    return result

  def trained():
    with contextlib.suppress(Trained):
      train.train_and_evaluate(ConfigDict(config), workdir)
      return "trained to the end"
    return "trained an epoch"

  with mock.patch.object(loop, "_train_epoch", counted), contextlib.redirect_stdout(io.StringIO()):
    outcome, line = watch.judge(trained, SECONDS)
  if outcome == "refused" and begun:
    return "stopped in training", line
  if outcome == "refused" and workdir.exists():
    return "partial workdir", f"{line} [{', '.join(sorted(path.name for path in workdir.iterdir()))}]"
  return outcome, line


@st.composite
def commands_of(draw, folder):
  """The flags of a command: a shipped config on tiny data, and one or two keys of it with values that flags can say."""
  name = draw(st.sampled_from(cases.SHIPPED))
  config = cases.shipped(name, folder)
  source = config["data"]["name"]
  flags = {"data.path": config["data"]["path"], "batch_size": 8, "epochs": 1}
  flags |= {"model.patch": 2} if name == "attention" else {}
  flags |= {"optimizer.warmup_epochs": 0.5}
  for _ in range(draw(st.integers(1, 2))):
    path = draw(st.sampled_from(sorted(cases.paths(config), key=str)))
    old = cases.read(config, path)
    value = draw(values.value(path[-1], old))  # a filter of Hypothesis would print what Python cannot
    flags[cases.dotted(path)] = value if _sayable(value) else "nonsense"
  words = [f"--config.{key}={value if isinstance(value, str) else repr(value)}" for key, value in flags.items()]
  return [f"--config={cases.ROOT}/configs/{name}.py:{source}", *words]


def _sayable(value):
  """Whether a flag can hold the value, and a test wait for what comes of it."""
  if isinstance(value, str):
    return "\0" not in value and value.isprintable()
  numbers = value if isinstance(value, tuple) else (value,)
  modest = all(isinstance(n, int | float) and not 100 < n < 2**31 - 1 for n in numbers)
  printable = not errors.format_value(value).startswith("<")
  return isinstance(value, bool | int | float | tuple) and modest and printable and len(numbers) < 100


def commanded(flags, folder):
  """(outcome, line) of `python -m ae_jax.main` with these flags."""
  with tempfile.TemporaryDirectory(dir=folder) as place:
    workdir = pathlib.Path(place) / "run"
    command = [sys.executable, "-m", "ae_jax.main", *flags, f"--workdir={workdir}"]
    environment = {**os.environ, "PYTHONPATH": str(cases.ROOT)}
    try:
      done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=4 * SECONDS)
    except subprocess.TimeoutExpired:
      return "hang", f"more than {4 * SECONDS:g} s"
    lines = done.stderr.splitlines()
    if "Traceback" in done.stderr or done.returncode not in (0, 1, 2):
      return "traceback", f"status {done.returncode}: {' | '.join(lines[-3:])}"
    if done.returncode == 0:
      return "trained to the end", ""
    if len(lines) != 1 or done.stdout:
      return "unclear line", f"status {done.returncode}: {' | '.join(lines)}"
    return "partial workdir" if workdir.exists() else "refused", lines[0]


@contextlib.contextmanager
def _cheap_compiling(folder):
  """Most of the time goes into compiling: programs are kept in a folder, and little is done to make them fast."""
  wanted = {
    "jax_compilation_cache_dir": str(folder),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_disable_most_optimizations": True,
  }
  before = {key: jax.config.values[key] for key in wanted}
  _configure(wanted)
  try:
    yield
  finally:
    _configure(before)


def _configure(values):
  """Sets JAX's config, and lets go of the folder of compiled programs that JAX has opened."""
  for key, value in values.items():
    jax.config.update(key, value)
  compilation_cache.reset_cache()
