"""Starts the process of a contestant and exchanges requests and answers with it."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time

from ae_jax.errors import UserError
from experiments.throughput import peers

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def caches(folder):
  """Returns environment variables that place all compilation caches in a folder.

  Returns:
    The variables of every contestant, and the additional ones of the other libraries that use JAX.
  """
  xla = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/xla", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
  return {"AE_JAX_CACHE": f"{folder}/ae_jax", "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor"}, xla


@contextlib.contextmanager
def start_worker(contestant, model, images, cache):
  """Starts the process of a contestant; yields a function that sends a request (see `worker`), returning the answer."""
  entry = peers.ENTRIES[contestant]
  common, xla = caches(cache)
  environment = os.environ | QUIET | common | (xla if entry.packages else {}) | entry.environment
  command = [sys.executable, "-m", "experiments.throughput.worker", contestant, model, str(images), repr(time.time())]
  with tempfile.TemporaryFile("w+") as stderr:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": stderr, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:

      def send(do, **request):
        try:
          print(json.dumps({"do": do, **request}), file=process.stdin, flush=True)
          return json.loads(process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
          stderr.seek(0)
          raise UserError(f"{contestant}, {model}: the request {do!r} failed:\n{stderr.read()[-2000:]}") from None

      try:
        yield send
      except BaseException:  # do not wait for the end of a request, which nobody will read
        process.kill()
        raise
      finally:
        process.stdin.close()
        process.wait()
