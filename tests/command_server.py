"""Runs commands of ae_jax in forks of a process that has imported the package, since imports take most of their time.

`run` is the client. The server is this file as a script: it reads one request per line and answers with exit statuses.
The imported modules start no JAX backend and compile nothing, so a fork is as good as a new process.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile

PRELOADED = (  # no module of a command: each defines its flags once per process
  "ae_jax.evaluators",
  "ae_jax.report.comparison",
  "ae_jax.report.evaluation",
  "ae_jax.sweep.run",
  "ae_jax.training.train",
  "bokeh.embed",
  "matplotlib.backends.backend_agg",
  "scipy.stats",
  "sklearn.datasets",
  "sklearn.decomposition",
  "tensorboardX",
)
_servers = []  # of this process: at most one


def run(module, arguments, cwd, environment, timeout, pictures=False):
  """Runs `python -m MODULE ARGUMENTS`; returns (exit status, stdout, stderr). Raises TimeoutExpired.

  Trainings draw their pictures only if `pictures` is true; see `conftest.with_pictures`.
  """
  if not _servers:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    _servers.append(subprocess.Popen([sys.executable, __file__], cwd=cwd, **pipes))
  server = _servers[0]
  with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
    request = {"module": module, "arguments": arguments, "cwd": str(cwd), "environment": environment}
    request |= {"out": out.name, "err": err.name, "timeout": timeout, "pictures": pictures}
    print(json.dumps(request), file=server.stdin, flush=True)
    status = json.loads(server.stdout.readline())
    if status == -signal.SIGALRM:
      raise subprocess.TimeoutExpired(module, timeout, out.read(), err.read())
    return status, out.read(), err.read()


def _next_request():
  """Serves requests until the client ends; returns a request in each forked child, and None in the server."""
  for name in PRELOADED:
    importlib.import_module(name)
  gc.freeze()  # else each full collection of a child visits, and thereby copies, the memory that it shares
  for line in sys.stdin:
    child = os.fork()
    if not child:
      return json.loads(line)
    _, status = os.waitpid(child, 0)
    print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)
  return None


def _execute(request):
  """Runs the requested module as the main program of this process."""
  null = os.open(os.devnull, os.O_RDONLY)
  files = (null, os.open(request["out"], os.O_WRONLY), os.open(request["err"], os.O_WRONLY))
  for descriptor, file in enumerate(files):
    os.dup2(file, descriptor)
  os.chdir(request["cwd"])
  os.environ.clear()
  os.environ.update(request["environment"])
  sys.path[0] = request["cwd"]
  sys.argv = [request["module"], *request["arguments"]]
  signal.alarm(request["timeout"])
  if not request["pictures"]:
    sys.modules["ae_jax.report.evaluation"].draw = lambda *_: None
  runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__" and (accepted := _next_request()):
  _execute(accepted)
