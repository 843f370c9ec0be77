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


# name -> (flags) -> plain results, with "violations" that must be empty
PARTS = {"config": config, "data": data, "stranger": stranger}


def main():
  """Runs what the flags say and merges it into the results."""
  flags = parse()
  results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
  found = 0
  for part in flags.parts:
    record = PARTS[part](flags)
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
  parser.add_argument("--runs", type=int, default=500, help="cases of the part stranger")
  return parser.parse_args()


if __name__ == "__main__":
  with tempfile.TemporaryDirectory() as folder:
    os.environ.setdefault("AE_JAX_CACHE", folder)
    sys.exit(main())
