"""Tests that runs recover from damaged checkpoints and logs, and from full disks."""

import contextlib
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np

from experiments.endurance import crashes, ingredients

NAME = "dense"
KEYS = {"epochs": 20}


def damages(seed=0):
  """Damages each file of the newest checkpoint in two ways, truncates the log, and returns the results."""
  generator = np.random.default_rng(seed)
  result = {"files": 0, "set_aside": 0, "bit_identical": 0, "logs_cut": 0, "logs_complete_again": 0}
  violations = []
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    uninterrupted, partial = folder / "straight", folder / "half"
    _train(uninterrupted)
    _train_partially(partial)
    newest = max((partial / "checkpoints").iterdir(), key=lambda path: int(path.name))
    files = (path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
    for file in sorted(path.relative_to(partial) for path in files):
      for damage in (ingredients.cut, ingredients.flipped):
        result["files"] += 1
        with _resumed(partial, folder, file, lambda data, damage=damage: damage(data, generator)) as damaged:
          result["set_aside"] += bool(list(damaged.glob("damaged/*")))
          equal = crashes.equal(uninterrupted, damaged)
        result["bit_identical"] += equal
        violations += [] if equal else [f"{damage.__name__} {file}"]
    torn = b'{"step": 1234567, "epoch": 1'
    for _ in range(5):
      result["logs_cut"] += 1
      with _resumed(partial, folder, "metrics.jsonl", lambda data: data + torn[: generator.integers(1, 28)]) as damaged:
        result["logs_complete_again"] += crashes.equal(uninterrupted, damaged)
  violations += ["a log"] if result["logs_complete_again"] < result["logs_cut"] else []
  return {"cases": result["files"] + result["logs_cut"], "outcomes": result, "violations": violations}


def full_disk(folder, sizes, counts):
  """Trains on small file systems that become full, and returns the messages and whether the runs recover.

  Each run is afterwards resumed in a folder with enough space. Needs root.

  Args:
    folder: Mount point of the file systems.
    sizes: Sizes in KiB, one file system for each.
    counts: Numbers of files and folders, one file system with this limit for each.
  """
  disks = [f"size={size}k" for size in sizes] + [f"nr_inodes={count}" for count in counts]
  result, messages = {"full": 0, "one_clear_line": 0, "ended_as_it_should": 0}, []
  with tempfile.TemporaryDirectory() as temporary:
    uninterrupted = pathlib.Path(temporary) / "straight"
    _train(uninterrupted)
    for disk in disks:
      with _mounted(folder, disk):
        process = crashes.launch(crashes.command(NAME, folder / "run", *_flags()))
        _, stderr = process.communicate(timeout=crashes.TIMEOUT)
        lines = stderr.splitlines()
        clear = process.returncode == 1 and len(lines) == 1 and lines[0].startswith("ae_jax: ")
        result["full"] += process.returncode != 0
        result["one_clear_line"] += clear
        stderr = stderr.replace(str(folder), folder.name)  # removes the name of the temporary folder
        messages += [stderr[:300] if clear else stderr[-2000:]]
        copy = pathlib.Path(temporary) / disk
        shutil.copytree(folder / "run", copy)
      _train(copy)
      result["ended_as_it_should"] += crashes.equal(uninterrupted, copy)
  valid = result["one_clear_line"] == result["full"] and result["ended_as_it_should"] == len(disks)
  record = {"cases": len(disks), "disks": disks, "outcomes": result, "said": messages}
  return record | {"violations": [] if valid else messages}


def _train(workdir):
  crashes.finish(crashes.launch(crashes.command(NAME, workdir, *_flags())))


def _train_partially(workdir):
  """Trains a run and stops it by a signal after some checkpoints."""
  process = crashes.launch(crashes.command(NAME, workdir, *_flags()))
  crashes.wait_for(lambda: len(list((workdir / "checkpoints").glob("[0-9]*"))) > 1)
  process.terminate()
  process.communicate(timeout=crashes.TIMEOUT)


def _flags():
  return [f"--config.{key}={value}" for key, value in KEYS.items()]


@contextlib.contextmanager
def _resumed(run, folder, file, change):
  """Copies a run, changes one of its files, trains the copy to its end, and yields its folder."""
  copy = folder / "changed"
  shutil.copytree(run, copy)
  (copy / file).write_bytes(change((copy / file).read_bytes()))
  _train(copy)
  yield copy
  shutil.rmtree(copy)


@contextlib.contextmanager
def _mounted(folder, option):
  """Mounts a file system in memory with an option that limits its size."""
  folder.mkdir(parents=True, exist_ok=True)
  subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)], check=True)
  try:
    yield
  finally:
    subprocess.run(["umount", str(folder)], check=True)
