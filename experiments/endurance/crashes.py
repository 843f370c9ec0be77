"""Runs that are killed again and again, and end bit for bit as one that was not."""

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
CONFIGS = {  # on digits, each an epoch of milliseconds, so that a good part of the time goes into saving
  "dense": {"epochs": 150, "model.widths": "(16,)"},
  "cnn": {"epochs": 60, "model.channels": "(4,4)"},
  "vae": {"epochs": 150, "model.widths": "(16,)"},
  "stacked": {"epochs": 60},
  "vqvae": {"epochs": 60, "model.channels": "(4,)", "model.codebook_size": 16, "model.dropout": 0.1, "ema_decay": 0.9},
}
TIMING = ("images_per_second", "compile_seconds")
PATIENCE = 300  # seconds until a process counts as hanging


def kills(count=60, seed=0, names=tuple(CONFIGS)):
  """Results of `count` SIGKILLs over the configs of these names, a third of them while a checkpoint is being saved."""
  generator = random.Random(seed)
  outcomes, runs = collections.Counter(), {}
  with tempfile.TemporaryDirectory() as folder:
    for number, name in enumerate(names):
      share = count // len(names) + (number < count % len(names))

      def kill(processes, workdir, moment, before, share=share):
        return _kill(*processes, workdir, moment, before["inside_a_save"] < -(-share // 3), generator)

      start = lambda workdir, name=name: [launch(command(name, workdir))]
      counted, runs[name] = _until(share, start, kill, generator, folder, name)
      outcomes += counted
  violations = [f"{name}: {end}" for name, ends in runs.items() for end in ends if not _sound(end)]
  return {"cases": count, "outcomes": dict(outcomes), "runs": runs, "violations": violations}


def kills_of_two(count=20, seed=0):
  """Results of `count` SIGKILLs of one of the two processes of a run; the other has to end within a minute."""
  generator, waited, said = random.Random(seed), [], []

  def kill(processes, workdir, moment, before):
    time.sleep(moment)
    victim = generator.randrange(2)
    if any(process.poll() is not None for process in processes):
      finish(*processes)
      return None
    processes[victim].kill()
    begun = time.monotonic()
    complaints = processes[1 - victim].communicate(timeout=PATIENCE)[1]
    waited.append(round(time.monotonic() - begun, 1))
    clear = "another process of the run has ended" in complaints
    said.extend([] if clear else [complaints[-500:]])
    processes[victim].communicate()
    return ["kills", "one_clear_line"] if clear else ["kills"]

  with tempfile.TemporaryDirectory() as folder:
    outcomes, ends = _until(count, _start_two, kill, generator, folder, "dense")
  violations = [str(end) for end in ends if not _sound(end)] + [f"waited {s} s" for s in waited if s > 60] + said
  record = {"cases": count, "outcomes": dict(outcomes), "seconds_until_the_other_ended": waited, "runs": ends}
  return record | {"violations": violations}


def _until(count, start, kill, generator, folder, name):
  """Starts and kills runs until there were `count` kills, and leaves the last one alone: (what was counted, ends).

  `start(workdir)` are the processes of a run. `kill(processes, workdir, moment, counted)` kills one of them about
  `moment` seconds after they have begun, and names what is to be counted, or is None where the run had ended before; a
  new one is begun then. The ends say whether each run was in the end the same as one that was never killed.
  """
  straight = pathlib.Path(folder) / f"{name}-straight"
  processes = _begun(start(straight))
  begun = time.monotonic()
  finish(*processes)
  seconds = time.monotonic() - begun
  counted, ends = collections.Counter(), []
  while counted["kills"] < count:
    killed = pathlib.Path(folder) / f"{name}-{len(ends)}"
    while counted["kills"] < count:
      found = kill(_begun(start(killed)), killed, generator.uniform(0, 0.8 * seconds), counted)
      if found is None:
        break
      counted.update(found)
    finish(*start(killed))
    ends.append({"bit_identical": same(straight, killed), **_traces(killed)})
  return counted, ends


def same(a, b):
  """Whether two runs learned the same, bit for bit, and wrote the same records, but for what the clock says."""
  trees = [jax.tree_util.tree_leaves_with_path(ae_jax.load(run).variables) for run in (a, b)]
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


def _begun(processes):
  """The processes, the first of which has said its opening line."""
  processes[0].stdout.readline()
  return processes


def _start_two(workdir):
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    together = [f"--coordinator=127.0.0.1:{probe.getsockname()[1]}", "--processes=2"]
  return [launch(command("dense", workdir, *together, f"--process={number}")) for number in range(2)]


def _kill(process, workdir, moment, inside, generator):
  """Kills a run at a moment, or `inside` the save that follows: what to count; None if it had ended."""
  time.sleep(moment)
  if inside:
    wait_for(lambda: process.poll() is not None or list((workdir / "checkpoints").glob("*orbax-checkpoint-tmp*")))
    time.sleep(generator.uniform(0, 0.01))
  if process.poll() is not None:
    finish(process)
    return None
  process.kill()
  process.communicate(timeout=PATIENCE)
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
