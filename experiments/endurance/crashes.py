"""Runs that are killed again and again, and end bit for bit as one that was not."""

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
from ae_jax import logs

ROOT = pathlib.Path(__file__).parents[2]
COMMON = {"batch_size": 128, "checkpoint_every_epochs": 1, "log_every_steps": 5, "model.latent": 4}
CONFIGS = {  # on digits, each an epoch of milliseconds, so that a good part of the time goes into saving
  "dense": {"epochs": 150, "model.widths": "(16,)"},
  "cnn": {"epochs": 60, "model.channels": "(4,4)"},
  "vae": {"epochs": 150, "model.widths": "(16,)"},
  "stacked": {"epochs": 60},
}
TIMING = ("images_per_second", "compile_seconds")
PATIENCE = 300  # seconds until a process counts as hanging


def kills(count=60, seed=0):
  """Results of `count` SIGKILLs over the configs, a third of them while a checkpoint is being saved."""
  generator = random.Random(seed)
  outcomes = {"kills": 0, "inside_a_save": 0, "before_any_save": 0, "finished_before_the_kill": 0}
  runs, violations = {}, []
  with tempfile.TemporaryDirectory() as folder:
    for number, name in enumerate(CONFIGS):
      share = count // len(CONFIGS) + (number < count % len(CONFIGS))
      straight, killed = (pathlib.Path(folder) / f"{name}-{kind}" for kind in ("straight", "killed"))
      finish(_start(name, straight))
      for kill in range(share):
        inside = kill % 3 == 0
        outcome = _kill(_start(name, killed), killed, inside, generator)
        for key in outcome:
          outcomes[key] += 1
      finish(_start(name, killed))
      runs[name] = {"kills": share, "bit_identical": same(straight, killed), **_traces(killed)}
      violations += [f"{name}: {runs[name]}"] if not _sound(runs[name]) else []
  return {"cases": count, "outcomes": outcomes, "runs": runs, "violations": violations}


def kills_of_two(count=20, seed=0):
  """Results of `count` SIGKILLs of one of the two processes of a run; the other has to end within a minute."""
  generator = random.Random(seed)
  outcomes, waited, said = {"kills": 0, "one_clear_line": 0}, [], []
  with tempfile.TemporaryDirectory() as folder:
    straight, killed = (pathlib.Path(folder) / kind for kind in ("straight", "killed"))
    finish(*_start_two(straight))
    while outcomes["kills"] < count:
      processes = _start_two(killed)
      processes[0].stdout.readline()  # the opening line: the run has begun
      time.sleep(generator.uniform(0, 3))
      victim = generator.randrange(2)
      processes[victim].kill()
      begun = time.monotonic()
      complaints = processes[1 - victim].communicate(timeout=PATIENCE)[1]
      waited.append(round(time.monotonic() - begun, 1))
      clear = "another process of the run has ended" in complaints
      outcomes["kills"] += 1
      outcomes["one_clear_line"] += clear
      said += [] if clear else [complaints[-500:]]
      processes[victim].communicate()
    finish(*_start_two(killed))
    run = {"bit_identical": same(straight, killed), **_traces(killed)}
  violations = [] if _sound(run) and max(waited) < 60 else [f"{run}, waited {max(waited)} s"]
  record = {"cases": count, "outcomes": outcomes, "seconds_until_the_other_ended": waited, "run": run}
  return record | {"said_otherwise": said, "violations": violations}


def same(a, b):
  """Whether two runs learned the same, bit for bit, and wrote the same records, but for what the clock says."""
  trees = [jax.tree_util.tree_leaves_with_path(ae_jax.load(run).params) for run in (a, b)]
  equal = all(np.array_equal(x, y) for (_, x), (_, y) in zip(*trees, strict=True))
  records = [[{k: v for k, v in record.items() if k not in TIMING} for record in logs.read(run)] for run in (a, b)]
  return equal and records[0] == records[1]


def command(name, workdir, *others):
  """The command of a run of one of the configs."""
  keys = {**COMMON, **CONFIGS[name]}
  flags = [f"--config.{key}={value}" for key, value in keys.items()]
  return [
    sys.executable,
    "-m",
    "ae_jax.main",
    f"--config=configs/{name}.py:digits",
    f"--workdir={workdir}",
    *flags,
    *others,
  ]


def launch(arguments, **environment):
  """A process in the project's folder."""
  options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  return subprocess.Popen(arguments, env={**os.environ, **environment}, **options)


def _sound(run):
  return run["bit_identical"] and not run["steps_twice"] + run["torn_lines"] + run["half_saved"]


def _start(name, workdir):
  return launch(command(name, workdir))


def _start_two(workdir):
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    together = [f"--coordinator=127.0.0.1:{probe.getsockname()[1]}", "--processes=2"]
  return [launch(command("dense", workdir, *together, f"--process={number}")) for number in range(2)]


def _kill(process, workdir, inside, generator):
  """Kills a run at a random moment, `inside` a save if one comes in time: the names of what is to be counted."""
  process.stdout.readline()  # the opening line: the run has begun
  if inside:
    wait_for(lambda: process.poll() is not None or list((workdir / "checkpoints").glob("*orbax-checkpoint-tmp*")))
    time.sleep(generator.uniform(0, 0.01))
  else:
    time.sleep(generator.uniform(0, 2))
  done = process.poll() is not None
  process.kill()
  process.communicate(timeout=PATIENCE)
  if done:
    return ["finished_before_the_kill"]
  half_saved = list((workdir / "checkpoints").glob("*orbax-checkpoint-tmp*"))
  saved = [path for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal()]
  return ["kills", *(["inside_a_save"] if half_saved else []), *([] if saved else ["before_any_save"])]


def wait_for(condition):
  """Returns when the condition holds."""
  end = time.monotonic() + PATIENCE
  while not condition():
    if time.monotonic() > end:
      raise TimeoutError("the run hangs")
    time.sleep(0.001)


def finish(*processes):
  """Waits for processes that are to end well."""
  for process in processes:
    _, complaints = process.communicate(timeout=2 * PATIENCE)
    if process.returncode:
      raise RuntimeError(f"exit status {process.returncode}: {complaints[-2000:]}")


def _traces(workdir):
  """What the crashes left in the folder of a run that has ended well."""
  steps = [record["step"] for record in logs.read(workdir)]
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return {
    "steps_twice": len(steps) - len(set(steps)),
    "torn_lines": len(lines) - len(steps),
    "half_saved": len(list((workdir / "checkpoints").glob("*tmp*"))),
    "set_aside": len(list(workdir.glob("damaged/*"))),
  }
