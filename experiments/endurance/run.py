"""Tests that each fault leads to a valid result or to one clear error line.

  pip install -e '.[test]' && python -m experiments.endurance.run

Runs the parts named by the flags and merges their results into results.json in this folder. Exits with status 1 if
there are violations.
"""

import argparse
import datetime
import json
import os
import pathlib
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results.json"


def config(flags):
  """Tests invalid configs, in this process and by the command."""
  from experiments.endurance import config_fuzzer

  return config_fuzzer.run(flags.configs, flags.seed, flags.commands)


def data(flags):
  """Tests damaged data files."""
  from experiments.endurance import data_fuzzer

  return data_fuzzer.run(flags.files, flags.seed)


def stranger(flags):
  """Tests modified run folders from untrusted sources."""
  from experiments.endurance import stranger_fuzzer

  return stranger_fuzzer.run(flags.runs, flags.seed)


def kills(flags):
  """Kills runs at random moments, also during saves."""
  from experiments.endurance import crashes

  return crashes.kills(flags.kills, flags.seed)


def hosts(flags):
  """Kills one of the two processes of a run."""
  from experiments.endurance import crashes

  return crashes.kills_of_two(flags.host_kills, flags.seed)


def damage(flags):
  """Tests damaged checkpoints and logs."""
  from experiments.endurance import faults

  return faults.damages(flags.seed)


def disk(flags):
  """Tests full disks; needs root to mount them."""
  from experiments.endurance import faults

  with tempfile.TemporaryDirectory() as folder:
    return faults.full_disk(pathlib.Path(folder) / "small", flags.disks, flags.inodes)


def saves(flags):
  """Measures the cost of the checkpoints of the default run."""
  from experiments.endurance import saves

  return saves.cost()


def soak(flags):
  """Measures the memory growth during an hour of training."""
  from experiments.endurance import soak

  record = soak.soak(flags.soak)
  soak.draw(record, HERE / "figure.png")
  return record


# name -> function of the flags that returns results; "violations" must be empty
PARTS = {
  "config": config,
  "data": data,
  "stranger": stranger,
  "kills": kills,
  "hosts": hosts,
  "damage": damage,
  "disk": disk,
  "saves": saves,
  "soak": soak,
}


def main():
  """Runs the parts, merges their results, and returns the exit status."""
  flags = parse()
  results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
  violations = 0
  for part in flags.parts:
    start = time.monotonic()
    record = PARTS[part](flags)
    record.setdefault("seconds", round(time.monotonic() - start, 1))
    results[part] = {"date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}", "seed": flags.seed, **record}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    violations += len(record["violations"])
    print(f"{part}: {record['cases']} cases in {record['seconds']} s: {record['outcomes']}", flush=True)
    for violation in record["violations"]:
      print(f"  {violation}", flush=True)
  return 1 if violations else 0


def parse():
  """Returns the parsed flags."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--configs", type=int, default=2000, help="cases of the part config in this process")
  parser.add_argument("--commands", type=int, default=30, help="cases of the part config by the command")
  parser.add_argument("--files", type=int, default=1000, help="cases of the part data")
  parser.add_argument("--runs", type=int, default=300, help="cases of the part stranger")
  parser.add_argument("--kills", type=int, default=60, help="kills of the part kills")
  parser.add_argument("--host_kills", type=int, default=20, help="kills of the part hosts")
  disks = [4, 16, 48, 128, 200, 300, 380, 440]
  parser.add_argument(
    "--disks", type=int, nargs="+", default=disks, help="sizes in KiB of the file systems of the part disk"
  )
  inodes = [5, 10, 14, 18, 24, 32, 46, 52, 60, 76, 78, 80]
  parser.add_argument(
    "--inodes", type=int, nargs="+", default=inodes, help="file limits of further file systems of the part disk"
  )
  parser.add_argument("--soak", type=float, default=3600, help="seconds of training of the part soak")
  return parser.parse_args()


if __name__ == "__main__":
  with tempfile.TemporaryDirectory() as folder:
    os.environ.setdefault("AE_JAX_CACHE", folder)
    sys.exit(main())
