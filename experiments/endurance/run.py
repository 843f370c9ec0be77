"""Does ae_jax end in numbers or in one clear line, whatever it is given?

  pip install -e '.[test]' && python -m experiments.endurance.run

Runs the parts that the flags name and merges what they found into results.json beside this file. Exits with status 1
where something was found that may not be.
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
  """Mistaken configs, in this process and by the command."""
  from experiments.endurance import config_fuzzer

  return config_fuzzer.run(flags.configs, flags.seed, flags.commands)


def data(flags):
  """Damaged files of data."""
  from experiments.endurance import data_fuzzer

  return data_fuzzer.run(flags.files, flags.seed)


def stranger(flags):
  """Folders of runs that are not to be trusted."""
  from experiments.endurance import stranger_fuzzer

  return stranger_fuzzer.run(flags.runs, flags.seed)


def kills(flags):
  """Runs that are killed at any moment, also while they save."""
  from experiments.endurance import crashes

  return crashes.kills(flags.kills, flags.seed)


def hosts(flags):
  """Runs of two processes, of which one is killed."""
  from experiments.endurance import crashes

  return crashes.kills_of_two(flags.host_kills, flags.seed)


def damage(flags):
  """Damaged files of checkpoints and logs."""
  from experiments.endurance import faults

  return faults.damages(flags.seed)


def disk(flags):
  """Disks that are full at some moment; for root, who may mount them."""
  from experiments.endurance import faults

  with tempfile.TemporaryDirectory() as folder:
    return faults.full_disk(pathlib.Path(folder) / "small", flags.disks, flags.inodes)


def saves(flags):
  """What the checkpoints of the default run cost it."""
  from experiments.endurance import saves

  return saves.cost()


def soak(flags):
  """An hour of training."""
  from experiments.endurance import soak

  record = soak.soak(flags.soak)
  soak.draw(record, HERE / "figure.png")
  return record


# name -> (flags) -> plain results, with "violations" that must be empty
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
  """Runs what the flags say and merges it into the results."""
  flags = parse()
  results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
  found = 0
  for part in flags.parts:
    begun = time.monotonic()
    record = PARTS[part](flags)
    record.setdefault("seconds", round(time.monotonic() - begun, 1))
    results[part] = {"date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}", "seed": flags.seed, **record}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    found += len(record["violations"])
    print(f"{part}: {record['cases']} cases in {record['seconds']} s: {record['outcomes']}", flush=True)
    for violation in record["violations"]:
      print(f"  {violation}", flush=True)
  return 1 if found else 0


def parse():
  """The flags."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--configs", type=int, default=2000, help="cases of the part config, in one process")
  parser.add_argument("--commands", type=int, default=30, help="and by the command, each in a process of its own")
  parser.add_argument("--files", type=int, default=600, help="cases of the part data")
  parser.add_argument("--runs", type=int, default=300, help="cases of the part stranger")
  parser.add_argument("--kills", type=int, default=60, help="of the part kills")
  parser.add_argument("--host_kills", type=int, default=20, help="of the part hosts")
  disks = [4, 16, 48, 128, 200, 300, 380, 440]
  parser.add_argument("--disks", type=int, nargs="+", default=disks, help="KiB of the disks of the part disk")
  inodes = [5, 10, 14, 18, 24, 32, 46, 52, 60, 76, 78, 80]
  parser.add_argument("--inodes", type=int, nargs="+", default=inodes, help="files that fit on more disks of that part")
  parser.add_argument("--soak", type=float, default=3600, help="seconds of the part soak")
  return parser.parse_args()


if __name__ == "__main__":
  with tempfile.TemporaryDirectory() as folder:
    os.environ.setdefault("AE_JAX_CACHE", folder)
    sys.exit(main())
