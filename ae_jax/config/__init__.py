"""Declares the keys that all configs have, each with its default value and a comment, and checks configs."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import RequiredValueError, placeholder

from ae_jax import errors

LABEL = (int, str)  # types of a label or class name, as a type of ml_collections
ANALYSES = ("latent", "probe", "robustness", "generation")  # evaluators of every trained model by default


def base(data: str) -> ConfigDict:
  """Returns a config with the shared keys set to their defaults; a config file adds `model` and changes values.

  Args:
    data: Name of a data set (see `ae_jax.data.load`), for example "mnist" in `--config=cnn:mnist`.
  """
  config = ConfigDict()
  config.seed = 0  # seed of the initialisation, the order of the examples and all noise
  config.epochs = {"mnist_5k": 60, "digits": 60}.get(data, 20)  # number of epochs; small data sets need more
  # Maximum number of examples in a batch. An epoch is split into batches of nearly equal size, so the last batch is not
  # much smaller than the other batches.
  config.batch_size = 64
  _add_data(config, data)
  _add_objective(config)
  _add_optimizer(config)
  # Names of the evaluators to run in addition to "reconstruction". At each evaluation: anomaly, codebook, denoising,
  # posterior, sparsity. Once on the trained model: anomaly, denoising, disentanglement, generation, latent,
  # logistic_pca, probe, robustness.
  config.evaluators = (*ANALYSES, "disentanglement") if data == "factors" else ANALYSES
  config.trackers = ()  # experiment trackers in addition to TensorBoard: mlflow, wandb
  _add_devices(config)
  _add_early_stopping(config)
  config.eval_every_epochs = 1  # epochs between evaluations; the last epoch is always evaluated
  # Epochs between checkpoints. The last epoch is always saved. The model is evaluated before each of these checkpoints.
  config.checkpoint_every_epochs = {"mnist_5k": 30, "digits": 30}.get(data, 5)
  config.log_every_steps = 50  # steps between records of train/loss; each record is the mean loss over these steps
  return config


def _add_data(config: ConfigDict, data: str) -> None:
  """Adds the keys of the data set."""
  config.data = ConfigDict()
  # mnist_5k, digits, factors, npz, npy, folder (of images), heartbeats, ucr, or the name of an image data set in
  # TensorFlow Datasets (TFDS), such as mnist.
  config.data.name = data
  # Path of the file or folder for npz, npy, folder and ucr, or the data folder of TFDS. "" for TFDS: $TFDS_DATA_DIR, or
  # the default folder of TFDS.
  config.data.path = ""
  # Value range of the examples: unit [0, 1], symmetric [-1, 1] or real. It determines the output activation.
  config.data.range = "unit"
  # Placement of the training examples: memory, stream (read during training), or auto (stream if the examples exceed
  # the memory budget).
  config.data.placement = "auto"
  # Memory budget for the training examples in GiB, for the host and for a device. 0: a quarter of the host's memory and
  # a third of an accelerator's memory.
  config.data.budget_gib = 0.0
  # Label or name of the normal class, such as 3 or good. The model is trained only on examples of this class, and test
  # examples of other classes count as anomalies. None: train on all classes.
  config.data.one_class = placeholder(LABEL)
  # Augmentations of the training examples, applied in order: {"name": "flip"} (left to right), {"name": "shift",
  # "pixels": 2} (for images and series), {"name": "crop", "pixels": 2} (pads, then crops), {"name": "brightness",
  # "level": 0.2}.
  config.data.augment = ()
  # Name of the array of examples in an npz file or a folder of npy files. "": x_train, or train_images as in MedMNIST.
  config.data.x = ""
  # Name of the array of labels of these examples. "": y_train or train_labels, or no labels if config.data.x is set.
  config.data.y = ""
  config.data.layout = "nhwc"  # order of the axes of images in npz and npy: nhwc (channels last) or nchw


def _add_objective(config: ConfigDict) -> None:
  """Adds the keys of the objective, its schedules and the training stages."""
  config.objective = ConfigDict()
  config.objective.name = "reconstruction"  # reconstruction, denoising, layerwise, sparse, contractive or elbo
  # bernoulli (cross-entropy; needs config.data.range=unit) or gaussian (squared error).
  config.objective.likelihood = "bernoulli"
  # Schedules of numeric keys of the objective, such as {"key": "objective.beta", "name": "linear", "start": 0.0,
  # "epochs": 10}: during 10 epochs the value changes from `start` to the value of the key in the config. "steps" may
  # replace "epochs". The names are constant, linear, cosine and cyclic.
  config.schedules = ()
  # Training stages before the main stage, in order. Each is a dict {"epochs": ..., "objective": {...}}. The optimizer
  # state is reset at the start of each stage.
  config.stages = ()


def _add_optimizer(config: ConfigDict) -> None:
  """Adds the keys of the optimizer and of the moving average of the parameters."""
  config.optimizer = ConfigDict()
  config.optimizer.name = "adam"  # adam, nadam, rmsprop, adagrad, sgd, momentum or nesterov
  config.optimizer.learning_rate = 2e-3  # largest learning rate, reached at the end of the warm-up
  config.optimizer.schedule = "cosine"  # learning-rate schedule: constant, linear (decays to 0) or cosine (decays to 0)
  config.optimizer.warmup_epochs = 1.0  # number of epochs of linear warm-up of the learning rate
  config.optimizer.weight_decay = 0.0  # decoupled weight decay, as in AdamW
  config.optimizer.clip_norm = 0.0  # gradients with a larger global norm are scaled to this norm; 0: no clipping
  # Decay of the exponential moving average of the parameters, such as 0.999. If it is not 0, the averages are evaluated
  # instead of the parameters. 0: no averages.
  config.ema_decay = 0.0


def _add_devices(config: ConfigDict) -> None:
  """Adds the keys of precision, devices, memory, non-finite losses and the time limit."""
  # Dtype of the model's arithmetic: float32, or bfloat16 for GPU and TPU. Parameters and losses are always float32.
  config.compute_dtype = "float32"
  config.parallel = "jit"  # data parallelism over all devices: jit (with sharding) or pmap
  # Placement of the parameters and the optimizer state: replicated on each device, or sharded over the devices.
  config.parallel_state = "replicated"
  config.accumulate = 1  # number of microbatches per batch, computed one after the other to save memory
  config.remat = False  # recompute activations in the backward pass to save memory (rematerialisation)
  # What to do if a loss or gradient is not finite: stop (end the run), or skip (do not apply the update, and count it).
  config.on_nan = "stop"
  config.max_minutes = 0.0  # time limit in minutes, checked at the end of each epoch; 0: no limit


def _add_early_stopping(config: ConfigDict) -> None:
  """Adds the keys of early stopping, which applies only to single runs; use --halving in sweeps."""
  config.early_stopping = ConfigDict()
  config.early_stopping.metric = ""  # metric to watch, such as "test/squared_error"; "": no early stopping
  config.early_stopping.patience = 5  # number of evaluations without an improvement after which training stops
  config.early_stopping.min_change = 0.0  # smallest change that counts as an improvement
  config.early_stopping.mode = "min"  # min if the metric should decrease, max if it should increase


def check(config: ConfigDict) -> None:
  """Checks the keys, types and bounds of a config; raises UserError for the first error."""
  if not isinstance(config, ConfigDict):
    raise errors.UserError(
      f"the config has type {type(config).__name__}; it must be a ConfigDict, created with ae_jax.config.base()"
    )
  wanted = _declared()
  try:
    values = config.to_dict()
  except RequiredValueError as error:
    reason = errors.format_key(str(error))
    raise errors.UserError(
      f"config: a required key has no value; set each required_placeholder to a value ({reason})"
    ) from None
  _check_keys(values, {**wanted, "model": {}}, "")
  label = config.data.one_class
  fits = not isinstance(label, int) or -(2**63) <= label < 2**63
  errors.check(fits, "data.one_class", label, "a 64-bit integer, the name of a class, or None")
  errors.check_not_negative("max_minutes", config.max_minutes)
  errors.check(0 <= config.ema_decay < 1, "ema_decay", config.ema_decay, "a number in [0, 1)")
  errors.check(0 <= config.seed < 2**32, "seed", config.seed, "from 0 to 4294967295")
  for key in ("epochs", "batch_size", "accumulate", "eval_every_epochs", "checkpoint_every_epochs", "log_every_steps"):
    errors.check_positive(key, config[key])
  for key, known in {"on_nan": ("stop", "skip"), "parallel_state": ("replicated", "sharded")}.items():
    errors.check(config[key] in known, key, config[key], " or ".join(known))
  most = f"at most config.batch_size={config.batch_size}"
  errors.check(config.accumulate <= config.batch_size, "accumulate", config.accumulate, most)
  if config.parallel == "pmap":
    errors.check(
      config.parallel_state == "replicated", "parallel_state", "sharded", "'replicated' when config.parallel='pmap'"
    )
  limit = errors.MOST_LAYERS
  errors.check(len(config.stages) <= limit, "stages", config.stages, f"a tuple of at most {limit} stages")
  for number, stage in enumerate(config.stages):
    where = f"stages[{number}]"
    errors.check(isinstance(stage, dict), where, stage, 'a dict {"epochs": ..., "objective": {...}}')
    _check_keys(stage, {"epochs": 1, "objective": wanted["objective"]}, f"{where}.")
    errors.check_positive(f"{where}.epochs", stage["epochs"])


def check_trained(config: ConfigDict) -> None:
  """Checks only the keys that are needed to load a trained model, so configs of other versions are accepted."""
  _check_part(config, {"model": {}, "compute_dtype": "", "ema_decay": 0.0, "data": {"range": ""}})


def check_analyzed(config: ConfigDict) -> None:
  """Checks the keys that the evaluators need in addition to the keys that `check_trained` checks."""
  wanted = _declared()
  _check_part(config, {key: wanted[key] for key in ("seed", "data", "objective", "evaluators")})


def _check_part(config, wanted):
  """Raises UserError unless the config has the keys and sections of `wanted`, with values of the same types."""
  kept = {key: value for key, value in config.to_dict().items() if key in wanted}
  for key, section in wanted.items():
    if isinstance(section, dict) and key not in _OPEN_SECTIONS and isinstance(kept.get(key), dict):
      kept[key] = {name: value for name, value in kept[key].items() if name in section}
  _check_keys(kept, wanted, "")


def _declared():
  """Returns the keys of `base` with their defaults; placeholders are kept, because they store the type of a value."""
  return base("").to_dict(preserve_field_references=True)


def as_json(config: ConfigDict) -> dict[str, Any]:
  """Returns the config as nested dicts for JSON, with lists instead of tuples."""
  return _lists(config.to_dict())


def from_json(stored: Mapping[str, Any]) -> ConfigDict:
  """Returns the locked config that `as_json` stored, in this or an earlier version.

  Raises:
    UserError: If a key is not valid.
  """
  try:
    return ConfigDict(_tuples(completed(stored))).lock()
  except (TypeError, ValueError) as error:  # for example a key that contains a dot
    raise errors.UserError(f"config: {errors.one_line(error)}") from None


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns a nested config as {dotted key: value}."""
  values = {}
  for key, value in nested.items():
    values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
  return values


# Keys and sections that do not affect the parameters at a given step. Their values may change when a run is resumed.
# The data at another path must have the same fingerprints.
FREE = ("data.path", "data.placement", "data.budget_gib", "trackers", "max_minutes", "early_stopping")


# Keys that configs of earlier versions lack, with the values that reproduce the behaviour of these versions.
_ADDED = {
  "schedules": [],
  "ema_decay": 0.0,
  "data.augment": [],
  "data.x": "",
  "data.y": "",
  "data.layout": "nhwc",
  "model.dropout": 0.0,
  "max_minutes": 0.0,
  "early_stopping": {"metric": "", "patience": 5, "min_change": 0.0, "mode": "min"},
}


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a stored config with the keys that later versions added; missing sections are not added."""
  result = dict(stored)
  for dotted, value in _ADDED.items():
    section, _, key = dotted.rpartition(".")
    if not section:
      result.setdefault(key, value)
    elif isinstance(result.get(section), dict):
      result[section] = {key: value} | result[section]
  return result


def is_free(key: str) -> bool:
  """Returns whether a dotted key is in FREE."""
  return key in FREE or key.partition(".")[0] in FREE


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """Returns one text per key with different values, such as "epochs (20, now 30)"; keys in FREE are ignored.

  Missing keys that a later version added have their default values.
  """
  old, new = flat(completed(old)), flat(completed(new))
  keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key) and not is_free(key))
  return [f"{key} ({old.get(key, 'absent')!r}, now {new.get(key, 'absent')!r})" for key in keys]


# Sections whose options are checked by the functions that use them. For each section: the parameters of these functions
# that must not be options of the config, and the source of their values.
_OPEN_SECTIONS = {
  "model": {"shape": "the data", "compute_dtype": "config.compute_dtype"},
  "objective": {
    "model": "config.model",
    "value_range": "config.data.range",
    "span": "the data",
    "schedules": "config.schedules",
  },
}


def _check_keys(section, wanted, prefix):
  for key in section:
    if key not in wanted:
      where = f"config.{prefix}{errors.format_key(key)}"
      raise errors.UserError(f"{where} is not a key of the config; {errors.list_known(key, wanted)}")
  for key, example in wanted.items():
    if key not in section:
      raise errors.UserError(f"config.{prefix}{key} is missing; add it, or create the config with ae_jax.config.base()")
    value = section[key]
    if isinstance(example, FieldReference):
      kinds = example.get_type()
      names = " or ".join([*(kind.__name__ for kind in kinds), "None"])
      errors.check(value is None or type(value) in kinds, f"{prefix}{key}", value, names)
      continue
    int_for_float = isinstance(example, float) and isinstance(value, int) and not isinstance(value, bool)
    if type(value) is not type(example) and not int_for_float:
      raise errors.UserError(f"config.{prefix}{key}={errors.format_value(value)}: must be {type(example).__name__}")
    if isinstance(example, float):
      errors.check(errors.is_number(value), f"{prefix}{key}", value, "a number that is finite in float32")
    if key not in _OPEN_SECTIONS and isinstance(example, dict):
      _check_keys(value, example, f"{prefix}{key}.")
    elif key in _OPEN_SECTIONS:
      _check_open(value, _OPEN_SECTIONS[key], f"{prefix}{key}.")


def _check_open(section, elsewhere, prefix):
  if "name" not in section:
    raise errors.UserError(f"config.{prefix}name is missing; add it")
  for option in section:
    where = f"config.{prefix}{errors.format_key(option)}"
    if not isinstance(option, str):
      kind = type(option).__name__
      raise errors.UserError(f"{where} is not an option: the option name must be a string, not {kind}")
    if option in elsewhere:
      raise errors.UserError(f"{where} is not an option: its value comes from {elsewhere[option]}; remove this key")


def _lists(value):
  if isinstance(value, dict):
    return {key: _lists(entry) for key, entry in value.items()}
  return [_lists(entry) for entry in value] if isinstance(value, tuple | list) else value


def _tuples(value):
  if isinstance(value, dict):
    return {key: _tuples(entry) for key, entry in value.items()}
  return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value
