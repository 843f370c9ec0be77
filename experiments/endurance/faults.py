"""Damaged and missing files, and a full disk: what a run makes of them, and that it still ends as it should."""

import contextlib
import pathlib
import random
import shutil
import subprocess
import tempfile

from experiments.endurance import crashes

NAME = "dense"
KEYS = {"epochs": 20}


def damages(seed=0):
  """Results of damaging each file of the newest checkpoint in turn, in two ways, and of cutting the log short."""
  generator = random.Random(seed)
  result = {"files": 0, "set_aside": 0, "bit_identical": 0, "logs_cut": 0, "logs_complete_again": 0}
  violations = []
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    straight, half = folder / "straight", folder / "half"
    _train(straight)
    _interrupted(half)
    newest = max((half / "checkpoints").iterdir(), key=lambda path: int(path.name))
    for file in sorted(path.relative_to(half) for path in newest.rglob("*") if path.is_file()):
      for way in (_cut, _flip):
        result["files"] += 1
        damaged = folder / "damaged"
        shutil.copytree(half, damaged)
        (damaged / file).write_bytes(way((damaged / file).read_bytes(), generator))
        _train(damaged)
        result["set_aside"] += bool(list(damaged.glob("damaged/*")))
        equal = crashes.same(straight, damaged)
        result["bit_identical"] += equal
        violations += [] if equal else [f"{way.__name__[1:]} {file}"]
        shutil.rmtree(damaged)
    for _ in range(5):
      result["logs_cut"] += 1
      damaged = folder / "damaged"
      shutil.copytree(half, damaged)
      log = damaged / "metrics.jsonl"
      log.write_bytes(log.read_bytes() + b'{"step": 1234567, "epoch": 1'[: generator.randrange(1, 28)])
      _train(damaged)
      result["logs_complete_again"] += crashes.same(straight, damaged)
      shutil.rmtree(damaged)
  violations += ["a log"] if result["logs_complete_again"] < result["logs_cut"] else []
  return {"cases": result["files"] + result["logs_cut"], "outcomes": result, "violations": violations}


def full_disk(folder, sizes):
  """Results of training on small file systems, one after the other, that are full at some moment.

  `folder` is a mount point, `sizes` are in KiB; root alone may do that. What a run of each size says is kept, and
  whether it goes on, and ends as it should, once there is room.
  """
  result, said = {"one_clear_line": 0, "ended_as_it_should": 0}, []
  with tempfile.TemporaryDirectory() as kept:
    straight = pathlib.Path(kept) / "straight"
    _train(straight)
    for size in sizes:
      with _mounted(folder, size):
        process = crashes.launch(crashes.command(NAME, folder / "run", *_flags()))
        _, complaints = process.communicate(timeout=crashes.PATIENCE)
        lines = complaints.splitlines()
        clear = process.returncode == 1 and len(lines) == 1 and lines[0].startswith("ae_jax: ")
        result["one_clear_line"] += clear
        said += [complaints[:300] if clear else complaints[-2000:]]
        roomy = pathlib.Path(kept) / str(size)
        shutil.copytree(folder / "run", roomy)
      _train(roomy)
      result["ended_as_it_should"] += crashes.same(straight, roomy)
  sound = result["one_clear_line"] == result["ended_as_it_should"] == len(sizes)
  record = {"cases": len(sizes), "sizes_in_kib": list(sizes), "outcomes": result, "said": said}
  return record | {"violations": [] if sound else said}


def _train(workdir):
  process = crashes.launch(crashes.command(NAME, workdir, *_flags()))
  _, complaints = process.communicate(timeout=crashes.PATIENCE)
  if process.returncode:
    raise RuntimeError(complaints[-2000:])


def _interrupted(workdir):
  """A run that a signal has stopped after some checkpoints."""
  process = crashes.launch(crashes.command(NAME, workdir, *_flags()))
  crashes.wait_for(lambda: len(list((workdir / "checkpoints").glob("[0-9]*"))) > 1)
  process.terminate()
  process.communicate(timeout=crashes.PATIENCE)


def _flags():
  return [f"--config.{key}={value}" for key, value in KEYS.items()]


def _cut(data, generator):
  return data[: generator.randrange(len(data))] if data else data


def _flip(data, generator):
  if not data:
    return data
  place = generator.randrange(len(data))
  return data[:place] + bytes([data[place] ^ 1 << generator.randrange(8)]) + data[place + 1 :]


@contextlib.contextmanager
def _mounted(folder, size):
  """A file system of `size` KiB of memory in a folder."""
  folder.mkdir(parents=True, exist_ok=True)
  subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)], check=True)
  try:
    yield
  finally:
    subprocess.run(["umount", str(folder)], check=True)
