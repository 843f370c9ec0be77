"""Kills runs repeatedly and tests that they end bitwise equal to an uninterrupted run."""

import collections
import os
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

import ae_jax
from ae_jax.runs import logs

ROOT = pathlib.Path(__file__).parents[2]
COMMON = {"batch_size": 128, "checkpoint_every_epochs": 1, "log_every_steps": 5, "model.latent": 4, "evaluators": ()}
CONFIGS = {  # on digits; an epoch takes milliseconds, so that saving takes a good part of the time
  "dense": {"epochs": 150, "model.widths": "(16,)"},
  "cnn": {"epochs": 60, "model.channels": "(4,4)"},
  "vae": {"epochs": 150, "model.widths": "(16,)"},
  "stacked": {"epochs": 60},
  "vqvae": {"epochs": 60, "model.channels": "(4,)", "model.codebook_size": 16, "model.dropout": 0.1, "ema_decay": 0.9},
}
TIMING = ("images_per_second", "compile_seconds")
TIMEOUT = 300  # seconds after which a process is considered hanging


def kills(count=60, seed=0, names=tuple(CONFIGS)):
  """Returns the results of `count` SIGKILLs over the named configs, at least a third of them during a save."""
  generator = random.Random(seed)
  outcomes, runs = collections.Counter(), {}
  with tempfile.TemporaryDirectory() as folder:
    for number, name in enumerate(names):
      share = count // len(names) + (number < count % len(names))

      def kill(processes, workdir, moment, counts, share=share):
        return _kill(*processes, workdir, moment, counts["inside_a_save"] < -(-share // 3), generator)

      start = lambda workdir, name=name: [launch(command(name, workdir))]
      counts, runs[name] = _kill_repeatedly(share, start, kill, generator, folder, name)
      outcomes += counts
  violations = [f"{name}: {end}" for name, ends in runs.items() for end in ends if not _is_valid(end)]
  return {"cases": count, "outcomes": dict(outcomes), "runs": runs, "violations": violations}


def kills_of_two(count=20, seed=0):
  """Returns the results of `count` SIGKILLs of one of the two processes of a run.

  The other process must end within a minute.
  """
  generator, waited, unclear = random.Random(seed), [], []

  def kill(processes, workdir, moment, counts):
    time.sleep(moment)
    victim = generator.randrange(2)
    if any(process.poll() is not None for process in processes):
      finish(*processes)
      return None
    processes[victim].kill()
    start = time.monotonic()
    stderr = processes[1 - victim].communicate(timeout=TIMEOUT)[1]
    waited.append(round(time.monotonic() - start, 1))
    clear = "another process of the run has ended" in stderr
    unclear.extend([] if clear else [stderr[-500:]])
    processes[victim].communicate()
    return ["kills", "one_clear_line"] if clear else ["kills"]

  with tempfile.TemporaryDirectory() as folder:
    outcomes, ends = _kill_repeatedly(count, _start_two, kill, generator, folder, "dense")
  violations = [str(end) for end in ends if not _is_valid(end)] + [f"waited {s} s" for s in waited if s > 60] + unclear
  record = {"cases": count, "outcomes": dict(outcomes), "seconds_until_the_other_ended": waited, "runs": ends}
  return record | {"violations": violations}


def _kill_repeatedly(count, start, kill, generator, folder, name):
  """Starts and kills runs until there were `count` kills, then trains the last run to its end.

  Args:
    count: Number of kills.
    start: Function of a run folder that starts the processes of a run and returns them.
    kill: Function (processes, workdir, moment, counts) that kills one process `moment` seconds after the start. Returns
      the names of the counters to increment, or None if the run had ended already; then a new run is started.
    generator: Random generator of the moments.
    folder: Folder of the runs.
    name: Name of the config.

  Returns:
    The counts, and for each run whether it ended equal to an uninterrupted run and what the kills left behind.
  """
  uninterrupted = pathlib.Path(folder) / f"{name}-straight"
  processes = _wait_for_first_line(start(uninterrupted))
  started = time.monotonic()
  finish(*processes)
  seconds = time.monotonic() - started
  counts, ends = collections.Counter(), []
  while counts["kills"] < count:
    killed = pathlib.Path(folder) / f"{name}-{len(ends)}"
    while counts["kills"] < count:
      events = kill(_wait_for_first_line(start(killed)), killed, generator.uniform(0, 0.8 * seconds), counts)
      if events is None:
        break
      counts.update(events)
    finish(*start(killed))
    ends.append({"bit_identical": equal(uninterrupted, killed), **_leftovers(killed)})
  return counts, ends


def equal(a, b):
  """Returns whether two runs have bitwise equal variables and equal records, except for measured times."""
  trees = [jax.tree_util.tree_leaves_with_path(ae_jax.load(run).variables) for run in (a, b)]
  equal_variables = all(np.array_equal(x, y) for (_, x), (_, y) in zip(*trees, strict=True))
  records = [[{k: v for k, v in record.items() if k not in TIMING} for record in logs.read(run)] for run in (a, b)]
  return equal_variables and records[0] == records[1]


def command(name, workdir, *more_flags):
  """Returns the command of a run of one of the configs."""
  keys = {**COMMON, **CONFIGS[name]}
  flags = [f"--config.{key}={value}" for key, value in keys.items()]
  return [
    sys.executable,
    "-m",
    "ae_jax.main",
    f"--config=configs/{name}.py:digits",
    f"--workdir={workdir}",
    *flags,
    *more_flags,
  ]


def launch(arguments, **environment):
  """Starts a process in the root folder of the repository."""
  options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  return subprocess.Popen(arguments, env={**os.environ, **environment}, **options)


def _is_valid(run):
  return run["bit_identical"] and not run["steps_twice"] + run["torn_lines"] + run["half_saved"]


def _wait_for_first_line(processes):
  """Returns the processes after the first one has printed its first line."""
  processes[0].stdout.readline()
  return processes


def _start_two(workdir):
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    common = [f"--coordinator=127.0.0.1:{probe.getsockname()[1]}", "--processes=2"]
  return [launch(command("dense", workdir, *common, f"--process={number}")) for number in range(2)]


def _kill(process, workdir, moment, inside, generator):
  """Kills a run after `moment` seconds or, with `inside`, in the next save; see `_kill_repeatedly` for the result."""
  time.sleep(moment)
  if inside:
    wait_for(lambda: process.poll() is not None or list((workdir / "checkpoints").glob("*orbax-checkpoint-tmp*")))
    time.sleep(generator.uniform(0, 0.01))
  if process.poll() is not None:
    finish(process)
    return None
  process.kill()
  process.communicate(timeout=TIMEOUT)
  half_saved = list((workdir / "checkpoints").glob("*orbax-checkpoint-tmp*"))
  saved = [path for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal()]
  return ["kills", *(["inside_a_save"] if half_saved else []), *([] if saved else ["before_any_save"])]


def wait_for(condition):
  """Waits until a condition holds.

  Raises:
    TimeoutError: After TIMEOUT seconds.
  """
  end = time.monotonic() + TIMEOUT
  while not condition():
    if time.monotonic() > end:
      raise TimeoutError("the run hangs")
    time.sleep(0.001)


def finish(*processes):
  """Waits for processes to end.

  Raises:
    RuntimeError: If an exit status is not 0.
  """
  for process in processes:
    _, stderr = process.communicate(timeout=2 * TIMEOUT)
    if process.returncode:
      raise RuntimeError(f"exit status {process.returncode}: {stderr[-2000:]}")


def _leftovers(workdir):
  """Counts what the kills left in the folder of a run that ended normally."""
  steps = [record["step"] for record in logs.read(workdir)]
  lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
  return {
    "steps_twice": len(steps) - len(set(steps)),
    "torn_lines": len(lines) - len(steps),
    "half_saved": len(list((workdir / "checkpoints").glob("*tmp*"))),
    "set_aside": len(list(workdir.glob("damaged/*"))),
  }
