"""The measurements: records of plain numbers."""

import contextlib
import datetime
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

IMAGES_PER_CALL = {"cpu": 4096, "gpu": 60_000}  # what a contestant trains on before anyone looks at the clock
CHUNK = 16_384  # images of a call of ae_jax where speed is measured: its training's chunks are as long, or longer
LONGEST_CALL = 64  # steps, as in `ae_jax.data.batch_schedule`
START_BATCH = 256
RACERS = ("ae_jax", "ae_jax, bfloat16", "PyTorch eager", "PyTorch compile", "Keras on JAX", "Keras on TensorFlow")


def steps_per_call(batch_size, examples, least=0):
  """The steps of a call, of at least so many images where there are as many."""
  images = min(examples, max(least, IMAGES_PER_CALL[jax.default_backend()]))
  return max(1, min(LONGEST_CALL, images // batch_size))


def speed(model, batches, contestants, rounds, seconds, images, examples):
  """Yields a record for each batch size; the contestants take turns, after one call each that does not count."""
  with contextlib.ExitStack() as stack:
    cache = stack.enter_context(tempfile.TemporaryDirectory())
    asks = {who: stack.enter_context(processes.started(who, model, images, cache)) for who in contestants}
    for batch_size in batches:
      record = {"model": model, "batch_size": batch_size}
      record["images_per_second"] = {who: [] for who in contestants}
      for who, ask in asks.items():
        _build(ask, who, model, batch_size, steps_per_call(batch_size, examples, CHUNK if who in peers.OURS else 0))
      for _ in range(rounds):
        for who, ask in asks.items():
          answer = ask("turn", batch_size=batch_size, seconds=seconds)
          record["images_per_second"][who].append(answer["images"] / answer["seconds"])
      yield record


def start(model, who, images, examples):
  """Seconds from the start of the process to the end of the first call, cold and warm; memory and time of an epoch."""
  with tempfile.TemporaryDirectory() as cache:
    record = {"model": model, "contestant": who, "batch_size": START_BATCH}
    for kind in ("cold", "warm"):
      begun = time.perf_counter()
      with processes.started(who, model, images, cache) as ask:
        _build(ask, who, model, START_BATCH, steps_per_call(START_BATCH, examples))
        record[f"{kind}_seconds"] = time.perf_counter() - begun
        if kind == "cold":
          answer = ask("epoch", batch_size=START_BATCH)
          record["peak_bytes"] = answer["peak_bytes"]
          record["epoch_seconds"] = answer["seconds"] * examples / answer["images"]
  return record


def race(who, images, test):
  """Test error and seconds after each epoch of the recipe, from empty caches."""
  with (
    tempfile.TemporaryDirectory() as cache,
    processes.started(who, problem.RECIPE_MODEL, images, cache) as ask,
  ):
    return {"contestant": who, **ask("race", test=str(test))}


def _build(ask, who, model, batch_size, steps):
  answer = ask("build", batch_size=batch_size, steps=steps)
  wanted = ours.model(model).parameter_count()
  if answer["parameters"] != wanted:
    raise UserError(f"{who}'s {model} has {answer['parameters']} parameters, not {wanted}")


def costs(model):
  """What a step costs as it was predicted and as XLA counts it."""
  return {"model": model, "batch_size": START_BATCH, **ours.costs(model, START_BATCH)}


def matrix_product_rate(dtype, sides, repetitions=9):
  """Floating-point operations a second of XLA's product of square matrices, the best side's median."""
  rates = []
  for side in sides:
    matrix = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.matmul).lower(matrix, matrix).compile()
    jax.block_until_ready(product(matrix, matrix))
    seconds = []
    for _ in range(repetitions):
      begun = time.perf_counter()
      jax.block_until_ready(product(matrix, matrix))
      seconds.append(time.perf_counter() - begun)
    rates.append(2 * side**3 / statistics.median(seconds))
  return max(rates)


def machine():
  """What the figures were measured on, and how fast it multiplies matrices."""
  processor, vectors = _processor()
  device, packages = (
    jax.devices()[0],
    {"jax", "flax"} | {name for entry in peers.ENTRIES.values() for name in entry.needs},
  )
  rates = {"float32": matrix_product_rate(jnp.float32, (1024, 2048))}
  if device.platform == "gpu":
    rates = {name: matrix_product_rate(name, (4096, 8192)) for name in ("float32", "bfloat16")}
  return {
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "processor": processor,
    "vectors": vectors,
    "cores": problem.cores(),
    "device": device.device_kind,
    "python": platform.python_version(),
    "packages": {name: _version(name) for name in sorted(packages)},
    "matrix_product_flops": rates,
  }


def _processor():
  """The processor's name, and its widest vector instructions, "" where neither is known (outside Linux on x86)."""
  file = pathlib.Path("/proc/cpuinfo")
  lines = file.read_text().splitlines() if file.exists() else []
  values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
  instructions = {"avx512f": "AVX-512", "avx2": "AVX2"}
  known = [name for flag, name in instructions.items() if flag in values.get("flags", "").split()]
  return values.get("model name") or platform.processor() or platform.machine(), known[0] if known else ""


def _version(package):
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:  # tensorflow may be tensorflow-cpu
    return next((metadata.version(name) for name in metadata.packages_distributions().get(package, [])), None)
