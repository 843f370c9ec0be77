"""A contestant's process seen from outside: started, asked, closed."""

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
  """The environment that keeps all compiled programs in a folder; ae_jax and the other JAX users have one each."""
  xla = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/xla", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
  return {"AE_JAX_CACHE": f"{folder}/ae_jax", "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor"}, xla


@contextlib.contextmanager
def started(who, model, images, cache):
  """A process of a contestant; yields `ask`, which sends a request (see `worker`) and waits for the answer."""
  entry = peers.ENTRIES[who]
  common, xla = caches(cache)
  environment = os.environ | QUIET | common | (xla if entry.needs else {}) | entry.environment
  command = [sys.executable, "-m", "experiments.throughput.worker", who, model, str(images), repr(time.time())]
  with tempfile.TemporaryFile("w+") as complaints:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": complaints, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:

      def ask(do, **request):
        try:
          print(json.dumps({"do": do, **request}), file=process.stdin, flush=True)
          return json.loads(process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
          complaints.seek(0)
          raise UserError(f"{who} failed at {do} of {model}:\n{complaints.read()[-2000:]}") from None

      try:
        yield ask
      finally:
        process.stdin.close()
        process.wait()
