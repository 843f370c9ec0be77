"""Damaged and missing files, and a full disk: what a run makes of them, and that it still ends as it should."""

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
  """Results of damaging each file of the newest checkpoint in turn, in two ways, and of cutting the log short."""
  generator = np.random.default_rng(seed)
  result = {"files": 0, "set_aside": 0, "bit_identical": 0, "logs_cut": 0, "logs_complete_again": 0}
  violations = []
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    straight, half = folder / "straight", folder / "half"
    _train(straight)
    _interrupted(half)
    newest = max((half / "checkpoints").iterdir(), key=lambda path: int(path.name))
    for file in sorted(path.relative_to(half) for path in newest.rglob("*") if path.is_file() and path.stat().st_size):
      for way in (ingredients.cut, ingredients.flipped):
        result["files"] += 1
        with _changed(half, folder, file, lambda data, way=way: way(data, generator)) as damaged:
          result["set_aside"] += bool(list(damaged.glob("damaged/*")))
          equal = crashes.same(straight, damaged)
        result["bit_identical"] += equal
        violations += [] if equal else [f"{way.__name__} {file}"]
    torn = b'{"step": 1234567, "epoch": 1'
    for _ in range(5):
      result["logs_cut"] += 1
      with _changed(half, folder, "metrics.jsonl", lambda data: data + torn[: generator.integers(1, 28)]) as damaged:
        result["logs_complete_again"] += crashes.same(straight, damaged)
  violations += ["a log"] if result["logs_complete_again"] < result["logs_cut"] else []
  return {"cases": result["files"] + result["logs_cut"], "outcomes": result, "violations": violations}


def full_disk(folder, sizes, counts):
  """Results of training on small file systems, one after the other, that are full at some moment.

  `folder` is a mount point; of the `sizes`, in KiB, there is room for as many bytes, of the `counts` for as many files
  and folders. Root alone may do that. What a run says on each is kept, and whether it goes on, and ends as it should,
  once there is room.
  """
  disks = [f"size={size}k" for size in sizes] + [f"nr_inodes={count}" for count in counts]
  result, said = {"full": 0, "one_clear_line": 0, "ended_as_it_should": 0}, []
  with tempfile.TemporaryDirectory() as kept:
    straight = pathlib.Path(kept) / "straight"
    _train(straight)
    for disk in disks:
      with _mounted(folder, disk):
        process = crashes.launch(crashes.command(NAME, folder / "run", *_flags()))
        _, complaints = process.communicate(timeout=crashes.PATIENCE)
        lines = complaints.splitlines()
        clear = process.returncode == 1 and len(lines) == 1 and lines[0].startswith("ae_jax: ")
        result["full"] += process.returncode != 0
        result["one_clear_line"] += clear
        complaints = complaints.replace(str(folder), folder.name)  # a temporary one, of no interest to anybody
        said += [complaints[:300] if clear else complaints[-2000:]]
        roomy = pathlib.Path(kept) / disk
        shutil.copytree(folder / "run", roomy)
      _train(roomy)
      result["ended_as_it_should"] += crashes.same(straight, roomy)
  sound = result["one_clear_line"] == result["full"] and result["ended_as_it_should"] == len(disks)
  record = {"cases": len(disks), "disks": disks, "outcomes": result, "said": said}
  return record | {"violations": [] if sound else said}


def _train(workdir):
  crashes.finish(crashes.launch(crashes.command(NAME, workdir, *_flags())))


def _interrupted(workdir):
  """A run that a signal has stopped after some checkpoints."""
  process = crashes.launch(crashes.command(NAME, workdir, *_flags()))
  crashes.wait_for(lambda: len(list((workdir / "checkpoints").glob("[0-9]*"))) > 1)
  process.terminate()
  process.communicate(timeout=crashes.PATIENCE)


def _flags():
  return [f"--config.{key}={value}" for key, value in KEYS.items()]


@contextlib.contextmanager
def _changed(run, folder, file, change):
  """A copy of a run, one file of which is changed, trained to its end."""
  copy = folder / "changed"
  shutil.copytree(run, copy)
  (copy / file).write_bytes(change((copy / file).read_bytes()))
  _train(copy)
  yield copy
  shutil.rmtree(copy)


@contextlib.contextmanager
def _mounted(folder, option):
  """A file system in memory, mounted in a folder with an option that says how small it is."""
  folder.mkdir(parents=True, exist_ok=True)
  subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)], check=True)
  try:
    yield
  finally:
    subprocess.run(["umount", str(folder)], check=True)
