"""Trackers of experiments besides TensorBoard, MLflow and Weights & Biases: each is given a copy of what a run records.

They are configured by their own environment variables. A thread copies, so that training waits for no server. What the
run is called there, and how far the copy has come, stands in its folder: a run that goes on is the same one there too.
"""

import collections
import contextlib
import importlib
import json
import math
import os
import queue
import threading
import time
import warnings

from ae_jax import errors
from ae_jax.runs import tensorboard

FOLDER = "trackers"  # in that of a run
_DEFAULTS = {  # of the environment, where it does not say otherwise: no noise, and nothing to anybody else
  "MLFLOW_DISABLE_TELEMETRY": "true",
  "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",  # a minute
  "MLFLOW_LOGGING_LEVEL": "ERROR",
  "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
  "WANDB_ERROR_REPORTING": "false",
  "WANDB_INIT_TIMEOUT": "25",  # seconds
  "WANDB_SILENT": "true",
}
_PROJECT = "ae_jax"  # or experiment, where the environment names none
_LINGER = 2.0  # seconds in which records are gathered, to be sent together
_PATIENCE = {True: 30.0, False: 5.0}  # seconds for what is still to be sent, of a run that has ended; of one cut short
_LONGEST = 500  # characters of a parameter of MLflow
_failed = {}  # tracker -> when it last failed in this process: members of a sweep repeat neither the line nor the wait


def check(names):
  """Raises UserError for a tracker that there is not, that is not installed, or that does not know who you are."""
  for name in names:
    errors.choose(TRACKERS, name, "trackers")
    _check_installed(name)
    if name == "wandb":
      _check_login()


class Copy:
  """A run as one tracker has it; `records` are those of the run so far. Whatever fails is told by `complain(line)`."""

  def __init__(self, name, workdir, description, records, complain):
    self._name, self._workdir, self._description, self._complain = name, workdir, description, complain
    self._file, self._queue, self._end, self._lost = workdir / FOLDER / f"{name}.json", queue.SimpleQueue(), None, False
    self._begun = time.monotonic()
    for record in records:
      self.write(record)
    self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
    self._thread.start()

  def write(self, record):
    """Gives it a record; at once."""
    if not self._lost:
      self._queue.put((time.time(), record))

  def finish(self, numbers, pictures):
    """What it shall have at the end: numbers {name: value}, pictures {name: path of a PNG file}."""
    self._end = (numbers, pictures)

  def close(self):
    """Waits until it has everything, half a minute at most, or a few seconds for a run that was cut short."""
    self._queue.put(None)
    seconds = 0.0 if self._has_failed_since() else _PATIENCE[self._end is not None]
    self._thread.join(seconds)
    if self._thread.is_alive():
      self._give_up(f"it has not answered for {seconds:.0f} s")

  def _work(self):
    try:
      kept = self._read()
      tracker = TRACKERS[self._name](self._workdir, self._description, kept["run"])
      sent, going = kept["step"] if tracker.run == kept["run"] else -1, True
      self._keep({"run": tracker.run, "step": sent})
      while going:
        found = self._gathered()
        going = found[-1] is not None
        new = [(when, record) for when, record in filter(None, found) if record["step"] > sent]
        if new:
          tracker.write([(when, record["step"], _finite(record)) for when, record in new])
          sent = new[-1][1]["step"]
          self._keep({"run": tracker.run, "step": sent})
      if self._end is None:
        tracker.stop()
      else:
        tracker.finish(sent, _finite(self._end[0]), self._end[1])
    except Exception as error:  # whatever a library or a server comes up with, the training is worth more
      self._give_up(errors.one_line(error))

  def _gathered(self):
    """What is there to be sent, once something is: [(when, record), ...], at the end None."""
    found = [self._queue.get()]
    end = time.monotonic() + _LINGER
    with contextlib.suppress(queue.Empty):
      while found[-1] is not None:
        found.append(self._queue.get(timeout=max(0.0, end - time.monotonic())))
    return found

  def _give_up(self, why):
    if not self._lost:
      self._lost = True
      if not self._has_failed_since():
        self._complain(f"{self._name}: {why}; the run goes on without it, and the same command sends what is missing")
      _failed[self._name] = time.monotonic()

  def _has_failed_since(self):
    """Whether the same tracker has failed another run since this copy began."""
    return _failed.get(self._name, -math.inf) > self._begun

  def _read(self):
    try:
      return {"run": None, "step": -1} | json.loads(self._file.read_text())
    except (OSError, ValueError):  # it is new
      return {"run": None, "step": -1}

  def _keep(self, entries):
    self._file.parent.mkdir(exist_ok=True)
    part = self._file.with_suffix(".part")
    part.write_text(json.dumps(entries) + "\n")
    os.replace(part, self._file)


class _MLflow:
  """A run in MLflow: $MLFLOW_TRACKING_URI, $MLFLOW_EXPERIMENT_NAME."""

  def __init__(self, workdir, description, run):
    import mlflow

    self._entities, self._client, self._refused = mlflow.entities, mlflow.MlflowClient(), mlflow.MlflowException
    self.run = run if run and self._goes_on(run) else self._begin(workdir, description)

  def _goes_on(self, run):
    """Whether the run is there to go on; a server that does not know it is another one than that which did."""
    try:
      if self._client.get_run(run).info.lifecycle_stage != "active":
        return False
    except self._refused as error:
      if error.error_code != "RESOURCE_DOES_NOT_EXIST":
        raise
      return False
    self._client.update_run(run, status="RUNNING")
    return True

  def _begin(self, workdir, description):
    experiment = os.environ.get("MLFLOW_EXPERIMENT_ID") or self._experiment()
    tags = {name: str(value) for name, value in _marks(description).items()}
    tags |= {"mlflow.source.name": _PROJECT, "mlflow.source.git.commit": tags["git_commit"]}
    run = self._client.create_run(experiment, run_name=workdir.name, tags=tags).info.run_id
    config = tensorboard.flat(description["config"])
    params = [self._entities.Param(key, str(value)[:_LONGEST]) for key, value in config.items()]
    self._client.log_batch(run, params=params)
    return run

  def _experiment(self):
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _PROJECT
    found = self._client.get_experiment_by_name(name)
    if found is None:
      with contextlib.suppress(self._refused):  # another run has made it just now
        return self._client.create_experiment(name)
      found = self._client.get_experiment_by_name(name)
    return found.experiment_id

  def write(self, records):
    metrics = [
      self._entities.Metric(name, float(value), int(1000 * when), step)
      for when, step, values in records
      for name, value in values.items()
    ]
    self._client.log_batch(self.run, metrics=metrics)  # which makes as few requests of it as the server allows

  def finish(self, step, numbers, pictures):
    if numbers:
      self.write([(time.time(), step, numbers)])
    for file in pictures.values():
      self._client.log_artifact(self.run, str(file), "pictures")
    self._client.set_terminated(self.run, "FINISHED")

  def stop(self):
    self._client.set_terminated(self.run, "KILLED")


class _Wandb:
  """A run in Weights & Biases: $WANDB_MODE, $WANDB_PROJECT, $WANDB_ENTITY; what it keeps lies in the run's folder."""

  def __init__(self, workdir, description, run):
    import wandb

    self._image = wandb.Image
    self._run = wandb.init(
      id=run,
      resume="allow",
      reinit="create_new",  # beside those of the other members of a sweep
      name=workdir.name,
      project=os.environ.get("WANDB_PROJECT") or _PROJECT,
      dir=os.environ.get("WANDB_DIR") or str(workdir),
      config=tensorboard.flat(description["config"]) | _marks(description),
      settings=wandb.Settings(console="off"),
    )
    self.run = self._run.id

  def write(self, records):
    for _, step, values in records:
      self._run.log(values, step=step)

  def finish(self, step, numbers, pictures):
    self._run.summary.update(numbers)
    self._run.log({f"pictures/{name}": self._image(str(file)) for name, file in pictures.items()})
    self._run.finish(0)

  def stop(self):
    self._run.finish(1)


TRACKERS = {"mlflow": _MLflow, "wandb": _Wandb}


def _check_installed(name):
  """Imports the library of a tracker, in the main thread; UserError that names the extra where it is not installed."""
  for key, value in _DEFAULTS.items():
    os.environ.setdefault(key, value)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # those of what it is built upon
      library = importlib.import_module(name)
  except ImportError:
    library = None
  if getattr(library, "__file__", None) is None:  # a folder of that name, as it leaves one itself, is not it
    raise errors.UserError(f"config.trackers: {name!r} needs the extra: pip install 'ae_jax[{name}]'")


def _check_login():
  """Raises UserError where Weights & Biases would ask who you are."""
  import wandb

  asks = wandb.setup().settings.mode not in ("offline", "dryrun", "disabled")
  if asks and not wandb.login(prompt=False, verify=False):
    raise errors.UserError("config.trackers: 'wandb' does not know you: run `wandb login`, or set WANDB_MODE=offline")


def _marks(description):
  """What else a tracker shall know of a run: the commit, the devices, the data."""
  devices = collections.Counter(description["devices"]).items()
  return {
    "git_commit": description["git_commit"] or "none",
    "devices": ", ".join(f"{count} x {name}" for name, count in devices),
    "data_fingerprint": description["data"]["fingerprint"],
    "parameters": description["parameters"],
  }


def _finite(values):
  """The entries of a record that can be drawn."""
  return {name: value for name, value in values.items() if name != "step" and math.isfinite(value)}
