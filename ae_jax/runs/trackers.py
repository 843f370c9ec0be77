"""Copies of the metrics of a run for experiment trackers: MLflow and Weights & Biases.

The trackers are configured by their own environment variables. Each copy is sent in a separate thread, so training
never waits for a server. The run folder stores the tracker's ID of the run and the last step that was sent. Therefore
a resumed run remains the same run in the tracker.
"""

import collections
import contextlib
import importlib
import json
import math
import os
import pathlib
import queue
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ae_jax import errors
from ae_jax.runs import tensorboard
from ae_jax.system import atomic

FOLDER = "trackers"  # subfolder of the run folder
_ENVIRONMENT = {  # defaults of environment variables: no output, no telemetry
  "MLFLOW_DISABLE_TELEMETRY": "true",
  "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",  # takes about a minute
  "MLFLOW_LOGGING_LEVEL": "ERROR",
  "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
  "WANDB_ERROR_REPORTING": "false",
  "WANDB_INIT_TIMEOUT": "25",  # seconds
  "WANDB_SILENT": "true",
}
_REFUSED_BY_MLFLOW = re.compile(r"[^/\w.\- :]")  # characters of the name of a metric, e.g. of "glucose (mg%2FdL)"
_PROJECT = "ae_jax"  # default name of the project (W&B) or experiment (MLflow)
_BATCH_SECONDS = 2.0  # records that arrive within this time are sent together
_PATIENCE = {True: 30.0, False: 5.0}  # run is finished -> maximum number of seconds to wait for the tracker at the end
_MAX_CHARACTERS = 500  # limit of an MLflow parameter
_failed: dict[str, float] = {}  # tracker -> time of its last failure; only one sweep member reports a failure

Records = Sequence[tuple[float, int, dict[str, float | int]]]  # (time, step, metrics)


def check(names: Iterable[str]) -> None:
  """Raises UserError if a tracker is unknown, not installed, or has no credentials."""
  for name in names:
    errors.choose(TRACKERS, name, "trackers")
    _check_installed(name)
    if name == "wandb":
      _check_login()


class Copy:
  """Copy of the metrics of a run for one tracker. Errors are reported by `complain` and never stop the training."""

  def __init__(
    self,
    name: str,
    workdir: pathlib.Path,
    description: Mapping[str, Any] | None,
    records: Iterable[Mapping[str, float | int]],
    complain: Callable[[str], object],
  ) -> None:
    self._name, self._workdir, self._description, self._complain = name, workdir, description, complain
    self._file, self._queue, self._end, self._lost = workdir / FOLDER / f"{name}.json", queue.SimpleQueue(), None, False
    self._begun = time.monotonic()
    for record in records:
      self.write(record)
    self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
    self._thread.start()

  def write(self, record: Mapping[str, float | int]) -> None:
    """Queues a record, without waiting for the tracker."""
    if not self._lost:
      self._queue.put((time.time(), record))

  def finish(self, numbers: Mapping[str, float | int], pictures: Mapping[str, pathlib.Path]) -> None:
    """Stores the final metrics {name: value} and the PNG files {name: path}, which are sent after all records."""
    self._end = (numbers, pictures)

  def close(self) -> None:
    """Waits until everything is sent, but at most 30 seconds, or 5 seconds for an interrupted run."""
    self._queue.put(None)
    seconds = 0.0 if self._has_failed_since() else _PATIENCE[self._end is not None]
    self._thread.join(seconds)
    if self._thread.is_alive():
      self._give_up(f"no answer for {seconds:.0f} s")

  def _work(self) -> None:
    try:
      stored = self._load_progress()
      tracker = TRACKERS[self._name](self._workdir, self._description, stored["run"])
      sent, running = stored["step"] if tracker.run == stored["run"] else -1, True
      self._store_progress(tracker.run, sent)
      while running:
        batch = self._next_batch()
        running = batch[-1] is not None
        new = [(when, record) for when, record in filter(None, batch) if record["step"] > sent]
        if new:
          tracker.write([(when, record["step"], _finite(record)) for when, record in new])
          sent = new[-1][1]["step"]
          self._store_progress(tracker.run, sent)
      if self._end is None:
        tracker.stop()
      else:
        tracker.finish(sent, _finite(self._end[0]), self._end[1])
    except Exception as error:  # no error of a library or server may stop the training
      self._give_up(errors.one_line(error))

  def _next_batch(self) -> list[tuple[float, Mapping[str, float | int]] | None]:
    """Waits for records and returns the next batch [(time, record), ...]; its last element is None at the end."""
    batch = [self._queue.get()]
    end = time.monotonic() + _BATCH_SECONDS
    with contextlib.suppress(queue.Empty):
      while batch[-1] is not None:
        batch.append(self._queue.get(timeout=max(0.0, end - time.monotonic())))
    return batch

  def _give_up(self, reason: str) -> None:
    if not self._lost:
      self._lost = True
      if not self._has_failed_since():
        self._complain(
          f"{self._name}: {reason}; training continues without this tracker. Run the command again to send the rest"
        )
      _failed[self._name] = time.monotonic()

  def _has_failed_since(self) -> bool:
    """Returns whether the tracker has failed, in any run of this process, since this copy was created."""
    return _failed.get(self._name, -math.inf) > self._begun

  def _load_progress(self) -> dict[str, Any]:
    """Returns the tracker's ID of the run and the last step that was sent."""
    try:
      return {"run": None, "step": -1} | json.loads(self._file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a new run, or a damaged file
      return {"run": None, "step": -1}

  def _store_progress(self, run: str, step: int) -> None:
    self._file.parent.mkdir(exist_ok=True)
    atomic.write_text(self._file, json.dumps({"run": run, "step": step}) + "\n")


class _MLflow:
  """A run in MLflow.

  Reads the environment variables MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_ID and MLFLOW_EXPERIMENT_NAME.
  """

  def __init__(self, workdir: pathlib.Path, description: Mapping[str, Any], run: str | None) -> None:
    import mlflow

    self._entities, self._client, self._exception = mlflow.entities, mlflow.MlflowClient(), mlflow.MlflowException
    self.run = run if run and self._resume(run) else self._begin(workdir, description)

  def _resume(self, run: str) -> bool:
    """Resumes a run; returns False if it was deleted or this server does not have it."""
    try:
      if self._client.get_run(run).info.lifecycle_stage != "active":
        return False
    except self._exception as error:
      if error.error_code != "RESOURCE_DOES_NOT_EXIST":
        raise
      return False
    self._client.update_run(run, status="RUNNING")
    return True

  def _begin(self, workdir: pathlib.Path, description: Mapping[str, Any]) -> str:
    experiment = os.environ.get("MLFLOW_EXPERIMENT_ID") or self._experiment()
    tags = {name: str(value) for name, value in _provenance(description).items()}
    tags |= {"mlflow.source.name": _PROJECT, "mlflow.source.git.commit": tags["git_commit"]}
    run = self._client.create_run(experiment, run_name=workdir.name, tags=tags).info.run_id
    config = tensorboard.flat(description["config"])
    params = [self._entities.Param(key, str(value)[:_MAX_CHARACTERS]) for key, value in config.items()]
    self._client.log_batch(run, params=params)
    return run

  def _experiment(self) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _PROJECT
    experiment = self._client.get_experiment_by_name(name)
    if experiment is None:
      with contextlib.suppress(self._exception):  # another run may create it at the same time
        return self._client.create_experiment(name)
      experiment = self._client.get_experiment_by_name(name)
    return experiment.experiment_id

  def write(self, records: Records) -> None:
    metrics = [
      self._entities.Metric(_REFUSED_BY_MLFLOW.sub("_", name), float(value), int(1000 * when), step)
      for when, step, values in records
      for name, value in values.items()
    ]
    self._client.log_batch(self.run, metrics=metrics)  # splits the metrics into requests of the allowed size

  def finish(self, step: int, numbers: Mapping[str, float | int], pictures: Mapping[str, pathlib.Path]) -> None:
    if numbers:
      self.write([(time.time(), step, numbers)])
    for file in pictures.values():
      self._client.log_artifact(self.run, str(file), "pictures")
    self._client.set_terminated(self.run, "FINISHED")

  def stop(self) -> None:
    self._client.set_terminated(self.run, "KILLED")


class _Wandb:
  """A run in Weights & Biases, which stores its local files in the run folder.

  Reads the environment variables WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY and WANDB_DIR.
  """

  def __init__(self, workdir: pathlib.Path, description: Mapping[str, Any], run: str | None) -> None:
    import wandb

    self._image = wandb.Image
    self._run = wandb.init(
      id=run,
      resume="allow",
      reinit="create_new",  # sweep members have runs in the same process
      name=workdir.name,
      project=os.environ.get("WANDB_PROJECT") or _PROJECT,
      dir=os.environ.get("WANDB_DIR") or str(workdir),
      config=tensorboard.flat(description["config"]) | _provenance(description),
      settings=wandb.Settings(console="off"),
    )
    self.run = self._run.id

  def write(self, records: Records) -> None:
    for _, step, values in records:
      self._run.log(values, step=step)

  def finish(self, step: int, numbers: Mapping[str, float | int], pictures: Mapping[str, pathlib.Path]) -> None:
    self._run.summary.update(numbers)
    self._run.log({f"pictures/{name}": self._image(str(file)) for name, file in pictures.items()})
    self._run.finish(0)

  def stop(self) -> None:
    self._run.finish(1)


TRACKERS: dict[str, Any] = {"mlflow": _MLflow, "wandb": _Wandb}


def _check_installed(name: str) -> None:
  """Imports the library of a tracker, in the main thread; raises UserError if it is not installed."""
  for key, value in _ENVIRONMENT.items():
    os.environ.setdefault(key, value)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # warnings of the library's dependencies
      library = importlib.import_module(name)
  except ImportError:
    library = None
  if getattr(library, "__file__", None) is None:  # a folder named like the library; wandb creates one
    raise errors.UserError(f"config.trackers: {name!r} is not installed; run `pip install 'ae_jax[{name}]'`")


def _check_login() -> None:
  """Raises UserError if Weights & Biases has no credentials and would ask for them."""
  import wandb

  online = wandb.setup().settings.mode not in ("offline", "dryrun", "disabled")
  if online and not wandb.login(prompt=False, verify=False):
    raise errors.UserError("config.trackers: 'wandb' has no credentials; run `wandb login`, or set WANDB_MODE=offline")


def _provenance(description: Mapping[str, Any]) -> dict[str, Any]:
  """Returns facts about a run besides its config: commit, devices, data and number of parameters."""
  devices = collections.Counter(description["devices"]).items()
  return {
    "git_commit": description["git_commit"] or "none",
    "devices": ", ".join(f"{count} x {name}" for name, count in devices),
    "data_fingerprint": description["data"]["fingerprint"],
    "parameters": description["parameters"],
  }


def _finite(values: Mapping[str, float | int]) -> dict[str, float | int]:
  """Returns the finite metrics of a record, without "step"."""
  return {name: value for name, value in values.items() if name != "step" and math.isfinite(value)}
