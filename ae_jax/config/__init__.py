"""The vocabulary of the configs: each key that every config has, declared once, with what it may hold."""

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import RequiredValueError, placeholder

from ae_jax import errors

ANALYSES = ("latent", "probe", "robustness", "generation")  # what is found out about every trained model


def base(data):
  """The keys that all configs share, at their defaults; a config file adds `model` and changes what it likes.

  `data` is the name of a data set (`ae_jax.data.load`), the part after the colon in `--config=configs/cnn.py:mnist`.
  """
  config = ConfigDict()
  config.seed = 0  # of the initialisation, the order of the data and all noise
  config.epochs = {"mnist_5k": 60, "digits": 60}.get(data, 20)  # small sets take more
  config.batch_size = 64  # at most, and at most the training set; an epoch is cut into batches of nearly equal size

  config.data = ConfigDict()
  config.data.name = data  # mnist_5k, digits, factors, npz, heartbeats, ucr, or an image set of TensorFlow Datasets
  config.data.path = ""  # the .npz file, the UCR folder, or TFDS's folder ("" for $TFDS_DATA_DIR or its default)
  config.data.range = "unit"  # what the model sees: unit [0, 1], symmetric [-1, 1] or real; sets the output activation
  config.data.placement = "auto"  # memory, stream (read while it trains), or auto: stream what is over the budget
  config.data.budget_gib = 0.0  # bytes of training examples that are kept in memory, in GiB; 0: a quarter of it all
  config.data.one_class = placeholder(int)  # train on this label only, others in the test set are anomalies; None: all
  # Random changes of the training examples, in order: {"name": "flip"}, left to right; {"name": "shift", "pixels": 2},
  # of images or series; {"name": "crop", "pixels": 2}, after padding; {"name": "brightness", "level": 0.2}.
  config.data.augment = ()

  config.objective = ConfigDict()
  config.objective.name = "reconstruction"
  config.objective.likelihood = "bernoulli"  # bernoulli (BCE, nats; range unit only) or gaussian (squared error)
  # Numbers of the objective that change in training, each {"key": "objective.beta", "name": "linear", "start": 0.0,
  # "epochs": 10}: from the start to the objective's number; constant, linear, cosine or cyclic; in epochs or steps.
  config.schedules = ()
  config.stages = ()  # what is trained before, in order: each {"epochs": ..., "objective": {...}}; same optimizer

  config.optimizer = ConfigDict()
  config.optimizer.name = "adam"  # adam, nadam, rmsprop, adagrad, sgd, momentum, nesterov
  config.optimizer.learning_rate = 2e-3  # at the end of the warm-up
  config.optimizer.schedule = "cosine"  # constant, linear or cosine (both to 0)
  config.optimizer.warmup_epochs = 1.0
  config.optimizer.weight_decay = 0.0  # decoupled
  config.optimizer.clip_norm = 0.0  # longer gradients are shortened to it; 0: not

  config.ema_decay = 0.0  # of a moving average of the parameters, which is evaluated instead of them (0.999); 0: none

  # Besides reconstruction. At each evaluation: anomaly, codebook, denoising, posterior, sparsity. Of the trained model,
  # once: anomaly, denoising, disentanglement, generation, latent, logistic_pca, probe, robustness.
  config.evaluators = (*ANALYSES, "disentanglement") if data == "factors" else ANALYSES
  config.trackers = ()  # besides TensorBoard: mlflow, wandb
  config.compute_dtype = "float32"  # or bfloat16, for GPU and TPU: what the model computes in; all else is float32
  config.parallel = "jit"  # over all devices, the batch split between them; or pmap, the same by jax.pmap
  config.parallel_state = "replicated"  # on each device; or sharded: parameters and optimizer split between them
  config.accumulate = 1  # a batch is computed in so many parts, one after the other, to need less memory
  config.remat = False  # compute activations again for the gradient, to need less memory
  config.on_nan = "stop"  # at a loss or gradient that is not finite; or skip: go on without such steps, counting them
  config.max_minutes = 0.0  # the training stops after the epoch in which so many minutes have passed; 0: no limit
  config.early_stopping = ConfigDict()  # of a single run; a sweep has --halving
  config.early_stopping.metric = ""  # of the test set, such as "test/squared_error"; "" for none
  config.early_stopping.patience = 5  # evaluations without an improvement after which the training stops
  config.early_stopping.min_change = 0.0  # an improvement is a larger change than this
  config.early_stopping.mode = "min"  # what the metric should become: min or max
  config.eval_every_epochs = 1  # and at the end
  config.checkpoint_every_epochs = {"mnist_5k": 30, "digits": 30}.get(data, 5)  # and at the end, after an evaluation
  config.log_every_steps = 50  # train/loss is the mean over so many steps
  return config


def check(config):
  """Raises UserError unless the config has the keys of `base`, of their types, and whole numbers in their bounds."""
  if not isinstance(config, ConfigDict):
    raise errors.UserError(
      f"the config is a {type(config).__name__}: get_config must return ae_jax.config.base() and more"
    )
  wanted = _declared()
  try:
    given = config.to_dict()
  except RequiredValueError as error:
    raise errors.UserError(f"config: a required key has no value: {errors.plain(str(error))}") from None
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


def check_trained(config):
  """Raises UserError unless the config has what its trained model needs; the rest may be of another version."""
  _check_part(config, {"model": {}, "compute_dtype": "", "ema_decay": 0.0, "data": {"range": ""}})


def check_analyzed(config):
  """Raises UserError unless the config has what the evaluators need beside its trained model."""
  wanted = _declared()
  _check_part(config, {key: wanted[key] for key in ("seed", "data", "objective", "evaluators")})


def _check_part(config, wanted):
  """Raises UserError unless the config has these keys, and in their sections these, of their types."""
  kept = {key: value for key, value in config.to_dict().items() if key in wanted}
  for key, section in wanted.items():
    if isinstance(section, dict) and key not in _OPEN_SECTIONS and isinstance(kept.get(key), dict):
      kept[key] = {name: value for name, value in kept[key].items() if name in section}
  _check_keys(kept, wanted, "")


def _declared():
  """The keys of `base` with examples of their values; a placeholder stays one, for it tells the type."""
  return base("").to_dict(preserve_field_references=True)


def as_json(config):
  """The config as JSON stores it: nested dicts, lists for tuples."""
  return _lists(config.to_dict())


def from_json(stored):
  """Returns the locked config that `as_json` stored, of this or an earlier version; UserError for anything else."""
  try:
    return ConfigDict(_tuples(completed(stored))).lock()
  except (TypeError, ValueError) as error:  # a key with a dot in it, for one
    raise errors.UserError(f"config: {errors.one_line(error)}") from None


def flat(nested, prefix=""):
  """A nested config, as config.json has it, as {dotted key: value}."""
  found = {}
  for key, value in nested.items():
    found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
  return found


# Keys, and sections, that change nothing that is learned up to a step: a run may continue with other values of these.
FREE = ("data.placement", "data.budget_gib", "trackers", "max_minutes", "early_stopping")


# Dotted keys that configs of earlier versions do not have, with what they meant.
_ADDED = {
  "schedules": [],
  "ema_decay": 0.0,
  "data.augment": [],
  "model.dropout": 0.0,
  "max_minutes": 0.0,
  "early_stopping": {"metric": "", "patience": 5, "min_change": 0.0, "mode": "min"},
}


def completed(stored) -> dict:
  """Returns a stored config with the keys that were added since; a section that is absent stays so."""
  whole = dict(stored)
  for dotted, value in _ADDED.items():
    section, _, key = dotted.rpartition(".")
    if not section:
      whole.setdefault(key, value)
    elif isinstance(whole.get(section), dict):
      whole[section] = {key: value} | whole[section]
  return whole


def is_free(key) -> bool:
  """Returns whether a dotted key is in FREE."""
  return key in FREE or key.partition(".")[0] in FREE


def differences(old, new):
  """Returns the dotted keys in which two runs' configs differ, each with both values: "epochs (20, now 30)".

  A key that was added since the run began counts with its default.
  """
  old, new = flat(completed(old)), flat(completed(new))
  keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key) and not is_free(key))
  return [f"{key} ({old.get(key, 'absent')!r}, now {new.get(key, 'absent')!r})" for key in keys]


# Sections of any options, checked by whoever takes them; but not of these, that come from elsewhere.
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
      where = f"config.{prefix}{errors.plain(key)}"
      raise errors.UserError(f"{where} is no key of the config; {errors.nearest(key, wanted)}")
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
      raise errors.UserError(f"config.{prefix}{key}={errors.shown(value)}: must be {type(example).__name__}")
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
    where = f"config.{prefix}{errors.plain(option)}"
    if not isinstance(option, str):
      raise errors.UserError(f"{where} is no option: its name is a {type(option).__name__}; names are strings")
    if option in elsewhere:
      raise errors.UserError(f"{where} is no option: it is given by {elsewhere[option]}")


def _lists(value):
  if isinstance(value, dict):
    return {key: _lists(entry) for key, entry in value.items()}
  return [_lists(entry) for entry in value] if isinstance(value, tuple | list) else value


def _tuples(value):
  if isinstance(value, dict):
    return {key: _tuples(entry) for key, entry in value.items()}
  return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value
