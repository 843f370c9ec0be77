"""The keys that every config has, each declared once with its default and meaning, and their checks."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import RequiredValueError, placeholder

from ae_jax import errors

ANALYSES = ("latent", "probe", "robustness", "generation")  # evaluators that analyze every trained model by default


def base(data: str) -> ConfigDict:
  """Returns the keys that all configs share, at their defaults; a config file adds `model` and changes values.

  Args:
    data: name of a data set (see `ae_jax.data.load`), the part after the colon in `--config=cnn:mnist`.
  """
  config = ConfigDict()
  config.seed = 0  # seed of the initialisation, the order of the data and all noise
  config.epochs = {"mnist_5k": 60, "digits": 60}.get(data, 20)  # number of epochs; small data sets need more
  # Largest number of examples in a batch. An epoch is split into batches of nearly equal size, so that no batch is much
  # smaller than the others.
  config.batch_size = 64
  _add_data(config, data)
  _add_objective(config)
  _add_optimizer(config)
  # Evaluators that run besides "reconstruction". At each evaluation: anomaly, codebook, denoising, posterior, sparsity.
  # Once on the trained model: anomaly, denoising, disentanglement, generation, latent, logistic_pca, probe, robustness.
  config.evaluators = (*ANALYSES, "disentanglement") if data == "factors" else ANALYSES
  config.trackers = ()  # experiment trackers besides TensorBoard: mlflow, wandb
  _add_devices(config)
  _add_early_stopping(config)
  config.eval_every_epochs = 1  # epochs between evaluations; the last epoch is always evaluated
  # Epochs between checkpoints. The last epoch is always saved, and each of these checkpoints follows an evaluation.
  config.checkpoint_every_epochs = {"mnist_5k": 30, "digits": 30}.get(data, 5)
  config.log_every_steps = 50  # steps between records of train/loss, which is the mean over these steps
  return config


def _add_data(config: ConfigDict, data: str) -> None:
  """Adds the keys of the data set."""
  config.data = ConfigDict()
  config.data.name = data  # mnist_5k, digits, factors, npz, heartbeats, ucr, or an image set of TensorFlow Datasets
  config.data.path = ""  # path of the .npz file or UCR folder; for TFDS "" means $TFDS_DATA_DIR or the default folder
  # Range that the model sees: unit [0, 1], symmetric [-1, 1] or real. It determines the output activation.
  config.data.range = "unit"
  # Placement of the training examples: memory, stream (read during training), or auto (stream if they exceed the
  # memory budget).
  config.data.placement = "auto"
  config.data.budget_gib = 0.0  # memory budget for the training examples in GiB; 0: a quarter of the machine's memory
  # Label of the normal class: only its examples are used for training, and all other test examples count as
  # anomalies. None: train on all labels.
  config.data.one_class = placeholder(int)
  # Augmentation of the training examples, in order: {"name": "flip"}, left to right; {"name": "shift", "pixels": 2},
  # of images or series; {"name": "crop", "pixels": 2}, after padding; {"name": "brightness", "level": 0.2}.
  config.data.augment = ()


def _add_objective(config: ConfigDict) -> None:
  """Adds the keys of the objective and of its changes during training."""
  config.objective = ConfigDict()
  config.objective.name = "reconstruction"  # reconstruction, denoising, layerwise, sparse, contractive or elbo
  config.objective.likelihood = "bernoulli"  # bernoulli (cross-entropy; needs the range unit) or gaussian
  # Schedules of numeric keys of the objective, each {"key": "objective.beta", "name": "linear", "start": 0.0, "epochs":
  # 10}: from `start` to the value of the key; constant, linear, cosine or cyclic; over "epochs" or "steps".
  config.schedules = ()
  # Training stages before the main one, in order, each {"epochs": ..., "objective": {...}}; the optimizer restarts at
  # each stage.
  config.stages = ()


def _add_optimizer(config: ConfigDict) -> None:
  """Adds the keys of the optimizer and of the averaged parameters."""
  config.optimizer = ConfigDict()
  config.optimizer.name = "adam"  # adam, nadam, rmsprop, adagrad, sgd, momentum or nesterov
  config.optimizer.learning_rate = 2e-3  # learning rate at the end of the warm-up
  config.optimizer.schedule = "cosine"  # learning-rate schedule: constant, or linear or cosine, which decay to 0
  config.optimizer.warmup_epochs = 1.0  # epochs of linear warm-up of the learning rate
  config.optimizer.weight_decay = 0.0  # decoupled weight decay, as in AdamW
  config.optimizer.clip_norm = 0.0  # largest norm of the gradient; longer gradients are scaled down; 0: no clipping
  # Decay of the exponential moving average of the parameters, such as 0.999. The averages are evaluated instead of the
  # parameters. 0: no averages.
  config.ema_decay = 0.0


def _add_devices(config: ConfigDict) -> None:
  """Adds the keys of precision, devices and memory, and of steps with a loss that is not finite."""
  config.compute_dtype = "float32"  # dtype of the model's computation, or bfloat16 for GPU and TPU; all else is float32
  config.parallel = "jit"  # data parallelism over all devices by jit with sharding, or by pmap
  # Parameters and optimizer state: replicated on each device, or sharded over the devices.
  config.parallel_state = "replicated"
  config.accumulate = 1  # microbatches of a batch, computed one after the other to save memory
  config.remat = False  # rematerialisation: recompute activations in the backward pass to save memory
  # Reaction to a loss or gradient that is not finite: stop ends the run, skip leaves out the step and counts it.
  config.on_nan = "stop"
  config.max_minutes = 0.0  # training stops after the epoch in which this many minutes have passed; 0: no limit


def _add_early_stopping(config: ConfigDict) -> None:
  """Adds the keys of early stopping, which applies to single runs; a sweep has --halving."""
  config.early_stopping = ConfigDict()
  config.early_stopping.metric = ""  # metric of the test set to watch, such as "test/squared_error"; "": none
  config.early_stopping.patience = 5  # evaluations without an improvement after which training stops
  config.early_stopping.min_change = 0.0  # smallest change that counts as an improvement
  config.early_stopping.mode = "min"  # min if the metric should decrease, max if it should increase


def check(config: ConfigDict) -> None:
  """Checks the keys, types and bounds of a config; raises UserError for the first error."""
  if not isinstance(config, ConfigDict):
    raise errors.UserError(
      f"the config is a {type(config).__name__}; get_config must return ae_jax.config.base() with changes"
    )
  wanted = _declared()
  try:
    given = config.to_dict()
  except RequiredValueError as error:
    raise errors.UserError(f"config: a required key has no value: {errors.format_key(str(error))}") from None
  _check_keys(given, {**wanted, "model": {}}, "")
  label = config.data.one_class
  errors.check(label is None or -(2**63) <= label < 2**63, "data.one_class", label, "an integer of 64 bits")
  errors.check_not_negative("max_minutes", config.max_minutes)
  errors.check(0 <= config.ema_decay < 1, "ema_decay", config.ema_decay, "a number from 0 to below 1")
  errors.check(0 <= config.seed < 2**32, "seed", config.seed, "from 0 to 4294967295")
  for key in ("epochs", "batch_size", "accumulate", "eval_every_epochs", "checkpoint_every_epochs", "log_every_steps"):
    errors.check_positive(key, config[key])
  for key, known in {"on_nan": ("stop", "skip"), "parallel_state": ("replicated", "sharded")}.items():
    errors.check(config[key] in known, key, config[key], " or ".join(known))
  errors.check(config.accumulate <= config.batch_size, "accumulate", config.accumulate, "at most the batch_size")
  if config.parallel == "pmap":
    errors.check(
      config.parallel_state == "replicated", "parallel_state", "sharded", "'replicated' with parallel='pmap'"
    )
  most = errors.MOST_LAYERS
  errors.check(len(config.stages) <= most, "stages", config.stages, f"at most {most} stages")
  for number, stage in enumerate(config.stages):
    where = f"stages[{number}]"
    errors.check(isinstance(stage, dict), where, stage, 'a dict {"epochs": ..., "objective": {...}}')
    _check_keys(stage, {"epochs": 1, "objective": wanted["objective"]}, f"{where}.")
    errors.check_positive(f"{where}.epochs", stage["epochs"])


def check_trained(config: ConfigDict) -> None:
  """Checks the keys that loading a trained model needs; other keys may be missing or unknown (other versions)."""
  _check_part(config, {"model": {}, "compute_dtype": "", "ema_decay": 0.0, "data": {"range": ""}})


def check_analyzed(config: ConfigDict) -> None:
  """Checks the keys that the evaluators need besides the trained model."""
  wanted = _declared()
  _check_part(config, {key: wanted[key] for key in ("seed", "data", "objective", "evaluators")})


def _check_part(config, wanted):
  """Raises UserError unless the config has the `wanted` keys and sections with values of their types."""
  kept = {key: value for key, value in config.to_dict().items() if key in wanted}
  for key, section in wanted.items():
    if isinstance(section, dict) and key not in _OPEN_SECTIONS and isinstance(kept.get(key), dict):
      kept[key] = {name: value for name, value in kept[key].items() if name in section}
  _check_keys(kept, wanted, "")


def _declared():
  """Returns the keys of `base` with their defaults; placeholders are preserved, because they hold the type."""
  return base("").to_dict(preserve_field_references=True)


def as_json(config: ConfigDict) -> dict[str, Any]:
  """Returns the config as nested dicts for JSON, with lists instead of tuples."""
  return _lists(config.to_dict())


def from_json(stored: Mapping[str, Any]) -> ConfigDict:
  """Returns the locked config that `as_json` of this or an earlier version stored.

  Raises:
    UserError: If a key is not valid.
  """
  try:
    return ConfigDict(_tuples(completed(stored))).lock()
  except (TypeError, ValueError) as error:  # for example a key that contains a dot
    raise errors.UserError(f"config: {errors.one_line(error)}") from None


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns a nested config as {dotted key: value}."""
  found = {}
  for key, value in nested.items():
    found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
  return found


# Keys and sections that do not affect the parameters at a given step: a run may continue with other values.
FREE = ("data.placement", "data.budget_gib", "trackers", "max_minutes", "early_stopping")


# Keys that configs of earlier versions lack, with the values that reproduce the earlier behaviour.
_ADDED = {
  "schedules": [],
  "ema_decay": 0.0,
  "data.augment": [],
  "model.dropout": 0.0,
  "max_minutes": 0.0,
  "early_stopping": {"metric": "", "patience": 5, "min_change": 0.0, "mode": "min"},
}


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a stored config with the keys that later versions added; missing sections stay missing."""
  whole = dict(stored)
  for dotted, value in _ADDED.items():
    section, _, key = dotted.rpartition(".")
    if not section:
      whole.setdefault(key, value)
    elif isinstance(whole.get(section), dict):
      whole[section] = {key: value} | whole[section]
  return whole


def is_free(key: str) -> bool:
  """Returns whether a dotted key is in FREE."""
  return key in FREE or key.partition(".")[0] in FREE


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """Returns the dotted keys in which two configs differ, with both values: "epochs (20, now 30)".

  A key that a later version added counts with its default.
  """
  old, new = flat(completed(old)), flat(completed(new))
  keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key) and not is_free(key))
  return [f"{key} ({old.get(key, 'absent')!r}, now {new.get(key, 'absent')!r})" for key in keys]


# Sections whose options are checked by the functions that take them, and the options that come from elsewhere.
_OPEN_SECTIONS = {
  "model": {"shape": "the data", "compute_dtype": "config.compute_dtype"},
  "objective": {
    "model": "config.model",
    "value_range": "config.data.range",
    "span": "the data",
    "schedules": "config.schedules",
  },
}


def _check_keys(given, wanted, prefix):
  for key in given:
    if key not in wanted:
      where = f"config.{prefix}{errors.format_key(key)}"
      raise errors.UserError(f"{where} is not a key of the config; {errors.list_known(key, wanted)}")
  for key, example in wanted.items():
    if key not in given:
      raise errors.UserError(f"config.{prefix}{key} is missing; start from ae_jax.config.base()")
    value = given[key]
    if isinstance(example, FieldReference):
      kind = example.get_type()
      errors.check(value is None or type(value) is kind, f"{prefix}{key}", value, f"{kind.__name__} or None")
      continue
    number = isinstance(example, float) and isinstance(value, int) and not isinstance(value, bool)
    if type(value) is not type(example) and not number:
      raise errors.UserError(f"config.{prefix}{key}={errors.format_value(value)}: must be {type(example).__name__}")
    if isinstance(example, float):
      errors.check(errors.is_number(value), f"{prefix}{key}", value, "a finite number (of float32)")
    if key not in _OPEN_SECTIONS and isinstance(example, dict):
      _check_keys(value, example, f"{prefix}{key}.")
    elif key in _OPEN_SECTIONS:
      _check_open(value, _OPEN_SECTIONS[key], f"{prefix}{key}.")


def _check_open(section, elsewhere, prefix):
  if "name" not in section:
    raise errors.UserError(f"config.{prefix}name is missing")
  for option in section:
    where = f"config.{prefix}{errors.format_key(option)}"
    if not isinstance(option, str):
      raise errors.UserError(f"{where} is not an option: its name is a {type(option).__name__}; names are strings")
    if option in elsewhere:
      raise errors.UserError(f"{where} is not an option: it is given by {elsewhere[option]}")


def _lists(value):
  if isinstance(value, dict):
    return {key: _lists(entry) for key, entry in value.items()}
  return [_lists(entry) for entry in value] if isinstance(value, tuple | list) else value


def _tuples(value):
  if isinstance(value, dict):
    return {key: _tuples(entry) for key, entry in value.items()}
  return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value
