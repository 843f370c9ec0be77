"""Where the members of a sweep are trained: in this process, as tasks of Ray, or as jobs of Slurm.

The machines of a cluster share the folder of the sweep and the data. What is lost with a worker is tried again and goes
on from its last checkpoint.
"""

import dataclasses
import functools
import importlib
import os
import pathlib
import time
import warnings
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from ae_jax import errors
from ae_jax.sweep import grid, trainer
from ae_jax.system import cache, distributed
from ae_jax.training import preemption

JOBS = ".jobs"  # the folder, in that of the sweep, of what Slurm's jobs say
_TRIES = 5  # of a task whose worker was lost
_LOOK = 1.0  # seconds between two looks at what runs elsewhere
_ONE_CORE = "--xla_cpu_multi_thread_eigen=false --xla_cpu_prefer_vector_width=512"  # to XLA, of a device that is one
_SENT = ("TFDS_DATA_DIR", "AE_JAX_CACHE", "JAX_PLATFORMS")  # of the environment, to the workers of a cluster


@dataclasses.dataclass(frozen=True)
class Task:
  """Members that share a program, to be trained by one process, which may be another."""

  config: dict
  keys: list[str]  # of the config
  points: list[tuple]  # of each member the values of the keys
  workdir: pathlib.Path
  options: trainer.SweepOptions


@dataclasses.dataclass(frozen=True)
class Engine:
  """`run(tasks)` generates {name: packs.MemberResult} as they come in; a group of members is cut into `shares` tasks."""

  run: Callable
  shares: int = 1


@functools.cache
def use_cores(count):
  """Makes each of so many cores a device, where JAX finds no other; before JAX is first used, and once in a process.

  A member then waits for no other, and no thread for another. A core computes with the widest vectors it has, which
  it does not by itself: a dense member's step takes 0.92 of the time with AVX-512, a CNN's 0.9 to 0.97.
  """
  os.environ["XLA_FLAGS"] = f"{_ONE_CORE} {os.environ.get('XLA_FLAGS', '')}"
  jax.config.update("jax_num_cpu_devices", count)


def options(texts):
  """What `slurm` takes, of KEY=VALUE texts; UserError for anything else."""
  pairs = [text.partition("=") for text in texts]
  for text, (key, sign, _) in zip(texts, pairs, strict=True):
    if not (key.isidentifier() and sign):
      raise errors.UserError(f"--slurm {text}: must be KEY=VALUE, such as slurm_partition=gpu")
  return {key: int(value) if value.isdecimal() else value for key, _, value in pairs}


def local(received, report):
  """In this process, one task after the other."""
  return Engine(lambda tasks: (ended for task in tasks for ended in _train(task, received, report)))


def ray(received, address, shares):
  """On the Ray cluster at an address, "" for one on this machine; by default a task for each GPU, or each machine.

  UserError without the extra, and where there is no cluster.
  """
  cluster = _extra("ray", "ray")
  try:
    with warnings.catch_warnings():
      warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # JAX's: what Ray forks starts a program at once
      cluster.init(address or "local", log_to_driver=False, logging_level="ERROR")
  except (ConnectionError, ValueError, RuntimeError) as error:
    raise errors.UserError(f"--address={address}: there is no Ray cluster ({errors.one_line(error)})") from None
  nodes = [node["Resources"] for node in cluster.nodes() if node["Alive"]]
  gpus, cores = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("GPU", "CPU"))
  shares = shares or gpus or len(nodes)
  cores = max(1, cores // shares)
  sent = {name: os.environ[name] for name in _SENT if name in os.environ}
  options = {"num_cpus": cores, "num_gpus": min(gpus, 1), "max_retries": _TRIES, "runtime_env": {"env_vars": sent}}
  task_of = cluster.remote(**options)(_work)

  def finished(running):
    for each in cluster.wait(running, timeout=_LOOK)[0]:
      try:
        yield each, cluster.get(each)
      except cluster.exceptions.RayTaskError:  # raised by our own code: a bug
        raise
      except cluster.exceptions.RayError as error:
        raise errors.UserError(f"--engine=ray: {errors.one_line(error)}") from None

  return Engine(lambda tasks: _collected(tasks, lambda task: task_of.remote(task, cores), finished, received), shares)


def slurm(received, workdir, shares, options):
  """As jobs of Slurm, with options {name: value} of submitit's AutoExecutor; without `srun`, as processes here.

  UserError without the extra, and for options that there are not.
  """
  submitit = _extra("submitit", "slurm")
  executor = submitit.AutoExecutor(folder=workdir / JOBS)
  try:
    executor.update_parameters(**options)
  except (NameError, TypeError, ValueError, AssertionError) as error:
    raise errors.UserError(f"--slurm: {errors.one_line(error)}") from None
  cores = int(options.get("cpus_per_task", 1))

  def finished(running):
    done = [job for job in running if job.done()]
    if not done:
      time.sleep(_LOOK)
    for job in done:
      try:
        yield job, job.result()
      except submitit.core.utils.FailedJobError:  # raised by our own code: a bug
        raise
      except submitit.core.utils.UncompletedJobError:
        yield job, None

  def run(tasks):
    jobs = []
    try:
      yield from _collected(tasks, lambda task: _kept(jobs, executor.submit(_work, task, cores)), finished, received)
    finally:
      for job in jobs:
        if not job.done():
          job.cancel()

  return Engine(run, shares or 1)


def _collected(tasks, begin, finished, received):
  """Generates what the tasks give, each begun by `begin(task)`, which returns what stands for it while it runs.

  `finished(running)` generates (what stands for it, what it gave) of those that are done; None was lost, and is begun
  again. Raises UserError, and Interrupted when a signal has come in.
  """
  running = {begin(task): (task, 1) for task in tasks}
  while running:
    if received():
      raise preemption.Interrupted(
        f"{received()}: stopped, and what the workers had saved is kept; the same command continues"
      )
    for done, found in finished(list(running)):
      task, tries = running.pop(done)
      if isinstance(found, str):
        raise errors.UserError(found)
      if found is not None:
        yield from found
      elif tries < _TRIES:
        running[begin(task)] = task, tries + 1
      else:
        raise errors.UserError(f"--engine: {tries} workers were lost, one after the other, with the same members")


def _work(task, cores):
  """What another process does: a list of {name: packs.MemberResult}, a line for the user, or None if it was told to stop."""
  use_cores(cores)
  cache.keep_compiled_programs()
  try:
    with preemption.caught() as received:
      return list(_train(task, received, lambda line: print(line, flush=True)))
  except errors.UserError as error:
    return str(error)
  except preemption.Interrupted:
    return None


def _train(task, received, report):
  members = grid.members(ConfigDict(task.config), task.keys, task.points)
  yield from trainer.train(members, task.workdir, distributed.mesh(), task.options, received, report)


def _extra(module, extra):
  """An optional library; UserError that names the extra where it is not installed."""
  try:
    return importlib.import_module(module)
  except ImportError:
    raise errors.UserError(f"--engine={extra} needs the extra: pip install 'ae_jax[{extra}]'") from None


def _kept(jobs, job):
  jobs.append(job)
  return job
