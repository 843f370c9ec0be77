"""Compares the convolutions of `ae_jax.ops` with XLA's convolutions over a grid of shapes.

  python -m experiments.throughput.convolutions

Each case runs forward and both gradients in a compiled loop, which reuses its buffers like the steps of a training
chunk. The contestants take turns: `ops` (matrix products, images [C, H, W, B]), XLA's convolution on the same axes, and
XLA's convolution with its fastest axes, [B, H, W, C]. Writes convolutions.json in this folder and prints the tables. It
takes about ten minutes on two cores.
"""

import itertools
import math
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ae_jax.ops import convolutions
from experiments.throughput import measure, tables

RESULTS = pathlib.Path(__file__).parent / "convolutions.json"
SIDES, KERNELS, BATCHES = (8, 32, 64, 128, 256), (1, 3, 5, 7), (8, 64, 256)
CHANNELS = ((1, 16), (3, 32), (16, 32), (64, 64), (128, 128), (256, 256), (256, 64))  # input and output
STRIDES = (1, 2)  # 2: transposed convolution
MULTIPLY_ADDS = (1e7, 2e9)  # smallest and largest case; larger ones take seconds, smaller ones measure overhead
MOST_BYTES = 2**29  # of the stacked shifts
CASES = 48  # drawn from the grid
SECONDS = 0.1  # of a call
PARTS = (("forward",), ("gradients",), ("forward", "gradients"))
TOO_SLOW = 20  # times the fastest call: such a contestant is measured once


def cases():
  """Returns the drawn cases (side, kernel, batch, channels, features, stride) of the grid."""
  grid = []
  for side, kernel, batch, (c_in, c_out), stride in itertools.product(SIDES, KERNELS, BATCHES, CHANNELS, STRIDES):
    columns = side * side * batch
    cost = kernel**2 * c_in * c_out * columns
    widest = max(c_in * (kernel**2 if stride == 1 else 1), c_out * kernel**2 if stride > 1 else c_out)
    if MULTIPLY_ADDS[0] <= cost <= MULTIPLY_ADDS[1] and 4 * widest * columns <= MOST_BYTES and kernel >= stride:
      grid.append((side, kernel, batch, c_in, c_out, stride))
  chosen = np.random.default_rng(0).choice(len(grid), CASES, replace=False)
  return [grid[index] for index in sorted(chosen)]


def forms(stride):
  """Returns the contestants {name: (function of images and kernel, axes of the images)}."""
  if stride == 1:
    ops = convolutions.conv_same
  else:
    ops = lambda x, w: convolutions.conv_transpose(x, w, stride, [stride * side for side in x.shape[1:3]])

  def xla(layout):
    if stride == 1:
      return lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=layout)
    return lambda x, w: lax.conv_transpose(x, w, (stride, stride), "SAME", dimension_numbers=layout)

  return {
    "ops": (ops, "CHWB"),
    "XLA, same axes": (xla(("CHWN", "HWIO", "CHWN")), "CHWB"),
    "XLA, channels last": (xla(("NHWC", "HWIO", "NHWC")), "BHWC"),
  }


def program(function, gradients):
  """Returns a compiled function (x, w, y, count) that runs forward or both gradients `count` times."""

  def once(_, carried, x, y):
    w, _ = carried
    outputs = jax.vjp(function, x, w)[1](y) if gradients else (function(x, w),)
    # The loop carries the outputs, so all of each is computed, and each pass needs the one before.
    return w + 1e-30 * sum(output[(0,) * output.ndim] for output in outputs), outputs

  def run(x, w, y, count):
    empty = (jnp.zeros_like(x), jnp.zeros_like(w)) if gradients else (jnp.zeros_like(y),)
    return lax.fori_loop(0, count, lambda i, carried: once(i, carried, x, y), (w, empty))

  return jax.jit(run)


def measured(case, rounds):
  """Returns the seconds of each contestant, forward and for both gradients, in alternating rounds."""
  side, kernel, batch, c_in, c_out, stride = case
  rng = np.random.default_rng(0)
  sizes = {"C": c_in, "H": side, "W": side, "B": batch}
  wide = sizes | {"C": c_out, "H": stride * side, "W": stride * side}
  w = jnp.asarray(rng.normal(size=(kernel, kernel, c_in, c_out)), jnp.float32)
  record = {"side": side, "kernel": kernel, "batch": batch, "channels": c_in, "features": c_out, "stride": stride}
  for part, gradients in (("forward", False), ("gradients", True)):
    calls, counts = {}, {}
    for name, (function, axes) in forms(stride).items():
      x, y = (jnp.asarray(rng.normal(size=[size[axis] for axis in axes]), jnp.float32) for size in (sizes, wide))
      run = program(function, gradients)
      calls[name] = lambda count, run=run, x=x, y=y: timed(run, x, w, y, count)
      calls[name](0)  # compiles
      counts[name] = calls[name](1)
    fastest = min(counts.values())
    seconds = {name: [once] for name, once in counts.items() if once > TOO_SLOW * fastest}
    for _, name in itertools.product(range(rounds), calls):
      if counts[name] <= TOO_SLOW * fastest:
        count = max(1, math.ceil(SECONDS / counts[name]))
        seconds.setdefault(name, []).append(calls[name](count) / count)
    record[part] = seconds
  print(tables.markdown_table([], [row(record)]).splitlines()[-1], flush=True)
  return record


def timed(run, x, w, y, count):
  """Returns the seconds of a call."""
  begun = time.perf_counter()
  jax.block_until_ready(run(x, w, y, count))
  return time.perf_counter() - begun


def row(record):
  """Returns a row of the table: the case, and XLA's time relative to that of `ops`."""
  kind = "transposed, stride 2" if record["stride"] > 1 else "stride 1"
  cells = [f"{kind}, {record['kernel']}x{record['kernel']}"]
  cells += [f"{record['channels']} to {record['features']}", record["side"], record["batch"]]
  for part in ("forward", "gradients"):
    seconds = {name: statistics.median(values) for name, values in record[part].items()}
    cells += [f"{1000 * seconds['ops']:.1f}"]
    cells += [f"{seconds[name] / seconds['ops']:.2f}" for name in seconds if name != "ops"]
  return cells


def main():
  """Measures all cases, writes the results and prints the table."""
  results = measure.measured_cases(__doc__, RESULTS, lambda rounds: [measured(case, rounds) for case in cases()], 3)
  print(markdown(results["cases"]), summary(results["cases"]), tables.processor(results["run"]), sep="\n\n")


def markdown(records):
  """Returns the table of all cases."""
  headings = ["convolution", "channels", "side", "batch"]
  for part in ("forward", "gradients"):
    headings += [f"ops, {part}, ms", "XLA, same axes", "XLA, channels last"]
  return tables.markdown_table(headings, [row(record) for record in records], left=(0, 1))


def summary(records):
  """Returns the table of the kinds of cases: the range of the time of XLA's faster convolution relative to `ops`."""
  kinds = {
    "convolution, from 16 channels": lambda case: case["stride"] == 1 and case["channels"] >= 16,
    "convolution, 1 or 3 channels": lambda case: case["stride"] == 1 and case["channels"] < 16,
    "transposed, at most as many features as channels": lambda case: case["features"] <= case["channels"],
    "transposed, more features than channels": lambda case: True,
  }
  rows, left = [], records
  for kind, belongs in kinds.items():
    cases, left = [case for case in left if belongs(case)], [case for case in left if not belongs(case)]
    columns = [[relative_time(case, parts) for case in cases] for parts in PARTS]
    rows.append([kind, len(cases), *(f"{min(column):.2f} to {max(column):.2f}" for column in columns)])
  headings = ["kind", "cases", *(" and ".join(parts) for parts in PARTS)]
  return tables.markdown_table(headings, rows)


def relative_time(record, parts):
  """Returns the time of the fastest XLA convolution for these parts, relative to that of `ops`."""
  seconds = {name: sum(statistics.median(record[part][name]) for part in parts) for name in record["forward"]}
  return min(value for name, value in seconds.items() if name != "ops") / seconds["ops"]


if __name__ == "__main__":
  main()
