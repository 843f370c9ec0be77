"""Engines that train the members of a sweep: in this process, as Ray tasks, or as Slurm jobs.

A task is a group of members that one process trains. The machines of a cluster share the sweep folder and the data. If
a worker is lost, its task starts again and continues from the last checkpoint.
"""

import dataclasses
import functools
import importlib
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
from ml_collections import ConfigDict

from ae_jax import data, errors
from ae_jax.sweep import grid, trainer
from ae_jax.system import cache, distributed, gpu_memory
from ae_jax.training import preemption

JOBS = ".jobs"  # subfolder of the sweep folder for the logs of Slurm jobs
Results = Iterator[dict[str, trainer.MemberResult]]
_MAX_TRIES = 5  # maximum number of starts of a task; if the last worker is lost too, an error is raised
_POLL_SECONDS = 1.0
_ONE_CORE_FLAGS = "--xla_cpu_multi_thread_eigen=false --xla_cpu_prefer_vector_width=512"  # for one device per core
_FORWARDED_VARIABLES = ("TFDS_DATA_DIR", "AE_JAX_CACHE", "JAX_PLATFORMS", *gpu_memory.VARIABLES)  # sent to Ray workers


@dataclasses.dataclass(frozen=True)
class Task:
  """Sweep members that share a compiled program and train in one process."""

  config: dict[str, Any]
  keys: list[str]  # config keys of the axes
  points: list[tuple]  # values of the keys for each member
  workdir: pathlib.Path
  options: trainer.SweepOptions
  dataset: data.Dataset | None = None  # data in memory; None: the task loads the data set of the config


@dataclasses.dataclass(frozen=True)
class Engine:
  """A function that trains tasks, and the number of tasks into which the members of a program are split."""

  run: Callable[[Iterable[Task]], Results]  # yields {member name: MemberResult} as members finish
  shares: int = 1  # number of tasks into which the members that share a program are split


@functools.cache
def use_cores(count: int) -> None:
  """Makes each of `count` CPU cores a JAX device; has no effect if JAX finds an accelerator.

  Call this function once per process, before JAX is first used. With one device per core, neither members nor threads
  wait for each other. The XLA flags also select the widest vectors of the CPU, which XLA does not use by default. With
  AVX-512, they shorten a training step to 0.92 of its time for a dense model, and to 0.9 to 0.97 of its time for a CNN.
  """
  os.environ["XLA_FLAGS"] = f"{_ONE_CORE_FLAGS} {os.environ.get('XLA_FLAGS', '')}"
  jax.config.update("jax_num_cpu_devices", count)


def parse_options(texts: Sequence[str]) -> dict[str, int | str]:
  """Parses KEY=VALUE texts into {KEY: VALUE}, the options of `slurm`; raises UserError for other texts."""
  pairs = [text.partition("=") for text in texts]
  for text, (key, sign, _) in zip(texts, pairs, strict=True):
    if not (key.isidentifier() and sign):
      raise errors.UserError(f"--slurm {text}: must be KEY=VALUE, such as slurm_partition=gpu")
  return {key: int(value) if value.isdecimal() else value for key, _, value in pairs}


def local(received: Callable[[], str], report: Callable[[str], None]) -> Engine:
  """Returns a backend that trains in this process, one task after the other.

  Args:
    received: Returns the name of the signal that asked this process to stop, or "" if no signal has arrived.
    report: Called with each line of text for the user.
  """
  return Engine(lambda tasks: (results for task in tasks for results in _train(task, received, report)))


def ray(received: Callable[[], str], address: str, shares: int) -> Engine:
  """Returns a backend that trains in tasks of a Ray cluster.

  Args:
    received: See `local`.
    address: Address of the cluster; "" starts a cluster on this machine.
    shares: Number of tasks for the members that share a program; 0 for one task per GPU, or one per machine if there
      are no GPUs.

  Raises:
    UserError: If Ray is not installed, or the cluster cannot be reached.
  """
  cluster = _extra("ray", "ray")
  _connect(cluster, address)
  nodes = [node["Resources"] for node in cluster.nodes() if node["Alive"]]
  gpus, cores = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("GPU", "CPU"))
  shares = shares or gpus or len(nodes)
  cores = max(1, cores // shares)
  variables = {name: os.environ[name] for name in _FORWARDED_VARIABLES if name in os.environ}
  limits = {"num_cpus": cores, "num_gpus": min(gpus, 1), "max_retries": _MAX_TRIES}
  remote_train = cluster.remote(**limits, runtime_env={"env_vars": variables})(_work)

  def finished(running: list[Any]) -> Iterator[tuple[Any, Any]]:
    for reference in cluster.wait(running, timeout=_POLL_SECONDS)[0]:
      try:
        yield reference, cluster.get(reference)
      except cluster.exceptions.RayTaskError:  # an error in the code of this package
        raise
      except cluster.exceptions.RayError as error:
        raise errors.UserError(
          f"--engine=ray: a task failed ({errors.one_line(error)}); check the cluster, then run the same command to "
          "continue"
        ) from None

  start = lambda task: remote_train.remote(task, cores)
  return Engine(lambda tasks: _collect(tasks, start, finished, received), shares)


def _connect(cluster: ModuleType, address: str) -> None:
  """Connects Ray to a cluster; raises UserError if it cannot be reached."""
  try:
    with warnings.catch_warnings():
      # JAX warns of deadlocks after a fork; Ray is not affected, because each forked process calls exec at once
      warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
      cluster.init(address or "local", log_to_driver=False, logging_level="ERROR")
  except (ConnectionError, ValueError, RuntimeError) as error:
    raise errors.UserError(
      f"--address={address}: cannot reach or start a Ray cluster ({errors.one_line(error)}); check the address, or "
      "omit --address to start a cluster on this machine"
    ) from None


def slurm(received: Callable[[], str], workdir: pathlib.Path, shares: int, options: Mapping[str, Any]) -> Engine:
  """Returns a backend that trains in Slurm jobs, or in local processes if the machine has no `srun` command.

  `received` is described in `local`. `workdir` is the sweep folder, `shares` is the number of jobs for the members that
  share a program (0 for one job), and `options` holds parameters of submitit's AutoExecutor. Raises UserError if
  submitit is not installed or if an option is invalid.
  """
  submitit = _extra("submitit", "slurm")
  executor = _executor(submitit, workdir, options)
  cores = int(options.get("cpus_per_task", 1))

  def finished(running: list[Any]) -> Iterator[tuple[Any, Any]]:
    done = [job for job in running if job.done()]
    if not done:
      time.sleep(_POLL_SECONDS)
    for job in done:
      try:
        yield job, job.result()
      except submitit.core.utils.FailedJobError:  # an error in the code of this package
        raise
      except submitit.core.utils.UncompletedJobError:
        yield job, None

  def run(tasks: Iterable[Task]) -> Results:
    jobs: list[Any] = []

    def start(task: Task) -> Any:
      jobs.append(executor.submit(_work, task, cores))
      return jobs[-1]

    try:
      yield from _collect(tasks, start, finished, received)
    finally:
      for job in jobs:
        if not job.done():
          job.cancel()

  return Engine(run, shares or 1)


def _executor(submitit: ModuleType, workdir: pathlib.Path, options: Mapping[str, Any]) -> Any:
  """Returns submitit's AutoExecutor with `options`; raises UserError if an option is unknown or invalid."""
  executor = submitit.AutoExecutor(folder=workdir / JOBS)
  try:
    executor.update_parameters(**options)
  except (NameError, TypeError, ValueError, AssertionError) as error:
    raise errors.UserError(
      f"--slurm: submitit refuses an option ({errors.one_line(error)}); correct or remove the option"
    ) from None
  return executor


def _collect(
  tasks: Iterable[Task],
  start: Callable[[Task], Any],
  finished: Callable[[list[Any]], Iterable[tuple[Any, Any]]],
  received: Callable[[], str],
) -> Results:
  """Starts all tasks and yields their results; starts a task again if its worker was lost.

  Args:
    tasks: Tasks to train.
    start: Starts a task and returns its handle.
    finished: Takes the handles of running tasks; yields (handle, result of `_work`) for each task that has ended. The
      result is None if the worker was lost.
    received: See `local`.

  Raises:
    UserError: If a task ends with a UserError, or its workers were lost `_MAX_TRIES` times.
    Interrupted: If this process receives a signal.
  """
  running = {start(task): (task, 1) for task in tasks}
  while running:
    if received():
      raise preemption.Interrupted(
        f"{received()}: stopped; the checkpoints of the workers are kept; run the same command to continue"
      )
    for handle, result in finished(list(running)):
      task, tries = running.pop(handle)
      if isinstance(result, str):
        raise errors.UserError(result)
      if result is not None:
        yield from result
      elif tries < _MAX_TRIES:
        running[start(task)] = task, tries + 1
      else:
        raise errors.UserError(
          f"--engine: {tries} workers were lost in a row while training the same members; check the memory and time "
          "limits of the workers, then run the same command to continue"
        )


def _work(task: Task, cores: int) -> list[dict[str, trainer.MemberResult]] | str | None:
  """Trains a task in a worker process.

  Returns:
    A list of {member name: MemberResult}; the message of a UserError, if one was raised; None, if a signal stopped the
    training.
  """
  use_cores(cores)
  cache.keep_compiled_programs()
  try:
    with preemption.catch_signals() as received:
      return list(_train(task, received, lambda line: print(line, flush=True)))
  except errors.UserError as error:
    return str(error)
  except preemption.Interrupted:
    return None


def _train(task: Task, received: Callable[[], str], report: Callable[[str], None]) -> Results:
  members = grid.members(ConfigDict(task.config), task.keys, task.points, task.dataset)
  yield from trainer.train(members, task.workdir, distributed.mesh(), task.options, received, report)


def _extra(module: str, extra: str) -> ModuleType:
  """Imports an optional library; raises UserError with the install command if the library is missing."""
  try:
    return importlib.import_module(module)
  except ImportError:
    raise errors.UserError(
      f"--engine={extra}: {module} is not installed; run `pip install 'ae_jax[{extra}]'`"
    ) from None
