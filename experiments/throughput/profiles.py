"""Profiles training steps of ae_jax: the time of each kind of operation of the compiled program.

  python -m experiments.throughput.profiles

Prints a table, and writes profiles.json in this folder. It takes about three minutes on two cores.
"""

import collections
import functools
import pathlib
import re
import statistics
import tempfile
import time

import jax
import numpy as np

from experiments.throughput import measure, problem, tables
from experiments.throughput.peers import ours

RESULTS = pathlib.Path(__file__).parent / "profiles.json"
CASES = (("dense", 256), ("vae", 256), ("cnn", 256), ("attention", 256), ("cnn64", 32), ("cnn128", 16))
KINDS = ("products", "small products and softmax", "elementwise", "copies", "optimizer")
_STEPS = 16  # steps of a call
_COPYING = {  # operations of XLA that only move values
  "bitcast", "bitcast-convert", "broadcast", "concatenate", "constant", "copy", "dynamic-slice", "dynamic-update-slice",
  "iota", "pad", "parameter", "reshape", "reverse", "slice", "transpose", "tuple", "get-tuple-element",
}  # fmt: skip
_CONTROL = ("while", "conditional", "call")  # they run other operations of the program
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%(\S+) = .*? ([a-z][a-z0-9-]*)\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%(\S+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|to_apply)=%([^\s,)}]+)")


def main():
  """Profiles all cases, writes the results and prints the table."""
  results = measure.measured_cases(
    __doc__, RESULTS, lambda rounds: [profile(*case, rounds) for case in CASES], rounds=5
  )
  print(markdown(results["cases"]), tables.processor(results["run"]), sep="\n\n")


def profile(name, batch_size, rounds):
  """Returns the milliseconds of a step without the profiler, and those of each kind of operation, in `rounds` calls.

  The time of an operation is that from its start to its end. Operations that run at the same time on two cores are
  counted twice, so the sum of the kinds can exceed the time of the step.
  """
  images = np.random.default_rng(0).integers(0, 256, (_STEPS * batch_size, *problem.shape(name)), np.uint8)
  contestant = ours.build(name, batch_size, images, _STEPS, False)
  rows = problem.calls(len(images), batch_size, _STEPS)[0]
  kinds = kinds_of_operations(contestant.program())
  contestant.train(rows)
  record = {"model": name, "batch_size": batch_size, "step": [], "kinds": {kind: [] for kind in KINDS}}
  for _ in range(rounds):
    start = time.perf_counter()
    contestant.train(rows)
    record["step"].append(1e3 * (time.perf_counter() - start) / _STEPS)
    spent = milliseconds(functools.partial(contestant.train, rows), kinds)
    for kind in KINDS:
      record["kinds"][kind].append(spent[kind] / _STEPS)
  print(markdown([record]).splitlines()[-1], flush=True)
  return record


def kinds_of_operations(program):
  """Returns {operation: one of `KINDS`} for the text of a compiled program."""
  instructions, computation = collections.defaultdict(list), None
  for line in program.splitlines():
    if begins := _COMPUTATION.match(line):
      computation = begins[1]
    elif found := _INSTRUCTION.match(line):
      instructions[computation].append((found[1], found[2], line))
  opcodes = {name: {opcode for _, opcode, _ in listed} for name, listed in instructions.items()}
  kinds = {}
  for listed in instructions.values():
    for name, opcode, line in listed:
      if opcode in _CONTROL:
        continue
      called = _CALLED.search(line)
      kinds[name] = _kind(opcodes.get(called[1], set()) if called else {opcode}, line)
  return kinds


def _kind(opcodes, line):
  """Returns the kind of an operation with the given XLA operations; `line` is its line in the text of the program."""
  if "vmap(" in line:  # `jax.nn.dot_product_attention`, whose products have one matrix for each example and head
    return "small products and softmax"
  if opcodes & {"dot", "convolution", "custom-call"}:
    return "products"
  if opcodes <= _COPYING:
    return "copies"
  return "elementwise" if "jvp(" in line else "optimizer"  # the gradient's operations have `jvp` in their names


def milliseconds(call, kinds):
  """Returns {kind: milliseconds} of a call."""
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      call()
    file = next(pathlib.Path(folder).rglob("*.xplane.pb"))
    spent = collections.Counter()
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
      for event in (event for line in plane.lines for event in line.events):
        if not event.name.startswith("end:") and event.name in kinds:
          spent[kinds[event.name]] += event.duration_ns / 1e6
  return spent


def markdown(records):
  """Returns the table: milliseconds of a step, and medians of the kinds with their part of the sum in percent."""
  rows = []
  for record in records:
    spent = {kind: statistics.median(record["kinds"][kind]) for kind in KINDS}
    total = sum(spent.values())
    steps = record["step"]
    step = f"{statistics.median(steps):.1f} ({min(steps):.1f} to {max(steps):.1f})"
    cells = [f"{each:.1f} ({each / total:.0%})" if each else "" for each in spent.values()]
    rows.append([record["model"], str(record["batch_size"]), step, *cells])
  head = ["model", "batch", "step, ms", *(f"{kind}, ms" for kind in KINDS)]
  return tables.markdown_table(head, rows, left=(0,))


if __name__ == "__main__":
  main()
