"""Measurements of the contestants, returned as records that JSON can store."""

import argparse
import contextlib
import datetime
import functools
import json
import pathlib
import platform
import statistics
import tempfile
import time
from importlib import metadata

import jax
import jax.numpy as jnp

from ae_jax.errors import UserError
from experiments.throughput import peers, problem, processes
from experiments.throughput.peers import ours

IMAGES_PER_CALL = {"cpu": 4096, "gpu": 60_000}  # images trained between two readings of the clock
CHUNK = 16_384  # images per call of ae_jax in the speed measurement; chunks in its training have at least this size
LONGEST_CALL = 64  # steps, as in `ae_jax.data.batch_schedule`
# Backend -> matrix products {name: (dtype, precision)} and the sides of their matrices. The default precision of
# float32, which models use, is TF32 on GPUs that have it.
PRODUCTS = {
  "cpu": ({"float32": ("float32", None)}, (1024, 2048)),
  "gpu": (
    {"float32": ("float32", None), "highest float32": ("float32", "highest"), "bfloat16": ("bfloat16", None)},
    (4096, 8192),
  ),
}
START_BATCH = 256
RACERS = ("ae_jax", "ae_jax, bfloat16", "PyTorch eager", "PyTorch compile", "Keras on JAX", "Keras on TensorFlow")


def steps_per_call(batch_size, examples, least=0):
  """Returns the number of steps per call, for at least `least` images if the data set has as many."""
  images = min(examples, max(least, IMAGES_PER_CALL[jax.default_backend()]))
  return max(1, min(LONGEST_CALL, images // batch_size))


def speed(model, batches, contestants, rounds, seconds, images, examples, cache):
  """Yields the images per second of all contestants, one record per batch size.

  The contestants take turns. A first call of each, which compiles, is not counted. `images` is a file and `cache` is
  the folder of the compilation caches.
  """
  with contextlib.ExitStack() as stack:
    workers = {
      contestant: stack.enter_context(processes.start_worker(contestant, model, images, cache))
      for contestant in contestants
    }
    for batch_size in batches:
      record = {"model": model, "batch_size": batch_size}
      record["images_per_second"] = {contestant: [] for contestant in contestants}
      for contestant, send in workers.items():
        least = CHUNK if contestant in peers.OURS else 0
        _build(send, contestant, model, batch_size, steps_per_call(batch_size, examples, least))
      for _ in range(rounds):
        for contestant, send in workers.items():
          answer = send("turn", batch_size=batch_size, seconds=seconds)
          record["images_per_second"][contestant].append(answer["images"] / answer["seconds"])
      yield record


def startup(model, contestant, images, examples):
  """Returns the startup time with cold and warm compilation caches, and the peak memory and duration of an epoch.

  Startup time is the time from the start of the process to the end of the first call.
  """
  with tempfile.TemporaryDirectory() as cache:
    batch_size = start_batch(model)
    record = {"model": model, "contestant": contestant, "batch_size": batch_size}
    for kind in ("cold", "warm"):
      start = time.perf_counter()
      with processes.start_worker(contestant, model, images, cache) as send:
        _build(send, contestant, model, batch_size, steps_per_call(batch_size, examples))
        record[f"{kind}_seconds"] = time.perf_counter() - start
        if kind == "cold":
          answer = send("epoch", batch_size=batch_size)
          record["peak_bytes"] = answer["peak_bytes"]
          record["epoch_seconds"] = answer["seconds"] * examples / answer["images"]
  return record


def measured_cases(description, file, measure_cases, rounds):
  """Reads the flags of a script that measures a list of cases; returns its results {"run": machine, "cases": records}.

  With --table, the results are those that the file of the results contains; otherwise they are measured and written.

  Args:
    description: Docstring of the script.
    file: File of the results, unless --results names another one.
    measure_cases: Function (number of rounds) -> list of records.
    rounds: Default number of rounds.
  """
  parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--rounds", type=int, default=rounds)
  parser.add_argument("--table", action="store_true", help="print the tables of the results without measuring")
  parser.add_argument("--results", type=pathlib.Path, default=file, help="file of the results of one processor")
  flags = parser.parse_args()
  if not flags.table:
    results = {"run": machine(), "cases": measure_cases(flags.rounds)}
    flags.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
  return json.loads(flags.results.read_text(encoding="utf-8"))


def race(contestant, images, test):
  """Returns test error and seconds after each epoch of the recipe, with cold caches."""
  with (
    tempfile.TemporaryDirectory() as cache,
    processes.start_worker(contestant, problem.RECIPE_MODEL, images, cache) as send,
  ):
    return {"contestant": contestant, **send("race", test=str(test))}


def _build(send, contestant, model, batch_size, steps):
  answer = send("build", batch_size=batch_size, steps=steps)
  expected = ours.model(model).parameter_count()
  if answer["parameters"] != expected:
    raise UserError(f"{contestant}'s {model} has {answer['parameters']} parameters, not {expected}")


def costs(model):
  """Returns the cost of a step as predicted and as counted by XLA."""
  return {"model": model, "batch_size": start_batch(model), **ours.costs(model, start_batch(model))}


def start_batch(model):
  """Returns the batch size of the measurements with one batch size per model."""
  return problem.batches(model, (START_BATCH,))[0]


def matrix_product_rate(dtype, precision, sides, repetitions=9):
  """Returns the FLOP/s of XLA's product of square matrices: the median over repetitions, for the fastest size."""
  rates = []
  for side in sides:
    matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)  # a GPU multiplies constants faster
    product = jax.jit(functools.partial(jnp.matmul, precision=precision)).lower(matrix, matrix).compile()
    jax.block_until_ready(product(matrix, matrix))
    seconds = []
    for _ in range(repetitions):
      start = time.perf_counter()
      jax.block_until_ready(product(matrix, matrix))
      seconds.append(time.perf_counter() - start)
    rates.append(2 * side**3 / statistics.median(seconds))
  return max(rates)


def machine(backend=None, sides=None):
  """Returns a description of this machine, with versions of packages and the rate of its matrix products.

  Args:
    backend: Key of `PRODUCTS`; default: the backend of JAX.
    sides: Sides of the matrices; default: those of the backend.
  """
  processor, vectors = _processor()
  products, default_sides = PRODUCTS[backend or jax.default_backend()]
  device = jax.devices()[0]
  packages = {"jax", "flax"} | {name for entry in peers.ENTRIES.values() for name in entry.packages}
  rates = {name: matrix_product_rate(*kind, sides or default_sides) for name, kind in products.items()}
  return {
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "processor": processor,
    "vectors": vectors,
    "cores": problem.cores(),
    "device": device.device_kind,
    "python": platform.python_version(),
    "packages": {name: version(name) for name in sorted(packages)},
    "matrix_product_flops": rates,
  }


def _processor():
  """Returns the processor's name and its widest vector instructions ("" outside Linux on x86)."""
  file = pathlib.Path("/proc/cpuinfo")
  lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
  values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
  instructions = {"avx512f": "AVX-512", "avx2": "AVX2"}
  known = [name for flag, name in instructions.items() if flag in values.get("flags", "").split()]
  return values.get("model name") or platform.processor() or platform.machine(), known[0] if known else ""


def version(package):
  """Returns the version of a package, None if it is not installed."""
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:  # tensorflow may be tensorflow-cpu
    return next((metadata.version(name) for name in metadata.packages_distributions().get(package, [])), None)
