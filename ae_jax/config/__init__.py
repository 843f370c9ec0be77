"""The keys that all configs have (see `config.keys`), checks of configs, and configs stored as JSON."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import RequiredValueError

from ae_jax import errors
from ae_jax.config.keys import AUTO, base


def check(config: ConfigDict) -> None:
  """Checks the keys, types and bounds of a config; raises UserError for the first error."""
  if not isinstance(config, ConfigDict):
    raise errors.UserError(
      f"the config has type {type(config).__name__}; it must be a ConfigDict, created with ae_jax.config.base()"
    )
  wanted = _declared()
  try:
    values = config.to_dict()
  except RequiredValueError:
    key = _required_key(config)
    raise errors.UserError(f"config.{key}: has no value; set it with --config.{key}=VALUE") from None
  _check_keys(values, {**wanted, "model": {}}, "")
  label = config.data.one_class
  fits = not isinstance(label, int) or -(2**63) <= label < 2**63
  errors.check(fits, "data.one_class", label, "a 64-bit integer, the name of a class, or None")
  errors.check_not_negative("max_minutes", config.max_minutes)
  rate = config.optimizer.learning_rate
  wanted_rate = f"a number that is finite in float32, or {AUTO!r}"
  errors.check(rate == AUTO or errors.is_number(rate), "optimizer.learning_rate", rate, wanted_rate)
  errors.check(0 <= config.ema_decay < 1, "ema_decay", config.ema_decay, "a number in [0, 1)")
  errors.check(0 <= config.seed < 2**32, "seed", config.seed, "from 0 to 4294967295")
  for key in ("epochs", "batch_size", "accumulate", "eval_every_epochs", "checkpoint_every_epochs", "log_every_steps"):
    errors.check_positive(key, config[key])
  named = {"on_nan": ("stop", "skip", "halve"), "parallel_state": ("replicated", "sharded")}
  for key, known in named.items():
    errors.check(config[key] in known, key, config[key], " or ".join(known))
  most = f"at most config.batch_size={config.batch_size}"
  errors.check(config.accumulate <= config.batch_size, "accumulate", config.accumulate, most)
  if config.parallel == "pmap":
    errors.check(
      config.parallel_state == "replicated", "parallel_state", "sharded", "'replicated' when config.parallel='pmap'"
    )
  _check_stages(config, wanted["objective"])


def _check_stages(config: ConfigDict, objective: Mapping[str, Any]) -> None:
  """Checks `config.stages`; `objective` holds the declared keys of an objective with their defaults."""
  limit = errors.MOST_LAYERS
  errors.check(len(config.stages) <= limit, "stages", config.stages, f"a tuple of at most {limit} stages")
  for number, stage in enumerate(config.stages):
    where = f"stages[{number}]"
    errors.check(isinstance(stage, dict), where, stage, 'a dict {"epochs": ..., "objective": {...}}')
    _check_keys(stage, {"epochs": 1, "objective": objective}, f"{where}.")
    errors.check_positive(f"{where}.epochs", stage["epochs"])


def check_trained(config: ConfigDict) -> None:
  """Checks only the keys that are needed to load a trained model, so configs of other versions are accepted."""
  _check_part(config, {"model": {}, "compute_dtype": "", "ema_decay": 0.0, "data": {"range": ""}})


def check_analyzed(config: ConfigDict) -> None:
  """Checks the keys that are needed to evaluate a trained model, but not to load it; see `check_trained`."""
  wanted = _declared()
  _check_part(config, {key: wanted[key] for key in ("seed", "data", "objective", "evaluators")})


def _check_part(config, wanted):
  """Raises UserError unless the config has the keys and sections of `wanted`, with values of the same types."""
  kept = {key: value for key, value in config.to_dict().items() if key in wanted}
  for key, section in wanted.items():
    if isinstance(section, dict) and key not in _OPEN_SECTIONS and isinstance(kept.get(key), dict):
      kept[key] = {name: value for name, value in kept[key].items() if name in section}
  _check_keys(kept, wanted, "")


def _required_key(config: ConfigDict) -> str:
  """Returns the first dotted key that has no value but needs one (a required placeholder); "" if there is none."""
  for key in config:
    try:
      value = config[key]
    except RequiredValueError:
      return key
    nested = _required_key(value) if isinstance(value, ConfigDict) else ""
    if nested:
      return f"{key}.{nested}"
  return ""


def _declared():
  """Returns the keys of `base` with their defaults; placeholders are kept, because they store the type of a value."""
  return base("").to_dict(preserve_field_references=True)


def as_json(config: ConfigDict) -> dict[str, Any]:
  """Returns the config as nested dicts for JSON, with lists instead of tuples."""
  return _lists(config.to_dict())


def from_json(stored: Mapping[str, Any]) -> ConfigDict:
  """Returns a locked config from the result of `as_json`; configs stored by earlier versions are accepted, too.

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
# The fingerprints of the data are compared, too, so data.path, data.kind, data.exif_orientation, data.split and
# data.read_validation may change only if the data stay the same.
FREE = (
  "data.path",
  "data.kind",
  "data.placement",
  "data.budget_gib",
  "data.exif_orientation",
  "data.split",
  "data.read_validation",
  "trackers",
  "max_minutes",
  "shorten",
  "early_stopping",
)


# Keys that configs of earlier versions lack, with the values that reproduce the behaviour of these versions.
_ADDED = {
  "schedules": [],
  "ema_decay": 0.0,
  "data.augment": [],
  "data.kind": "auto",
  "data.window": 0,
  "data.stride": 0,
  "data.max_gap": 0.0,
  "data.scale": "none",
  "data.size": [],
  "data.fit": "stretch",
  "data.channels": 0,
  "data.on_bad": "error",
  "data.exif_orientation": False,
  "data.follow_links": False,
  "data.patch": [],
  "data.x": "",
  "data.y": "",
  "data.layout": "nhwc",
  "data.split": "random",
  "data.group": "",
  "data.test": 0.2,
  "data.validation": 0.0,
  "data.read_validation": False,
  "data.label": "",
  "data.columns": [],
  "data.missing": "error",
  "model.dropout": 0.0,
  "init_from": "",
  "init_only": "",
  "freeze": "",
  "max_minutes": 0.0,
  "shorten": False,
  "early_stopping": {"metric": "", "patience": 5, "min_change": 0.0, "mode": "min"},
}


# Keys that only some model families have and that configs of earlier versions lack: model family -> {key: value}.
_ADDED_TO_FAMILIES = {family: {"model.linear_path": "none"} for family in ("cnn", "dense")}


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a stored config with the keys that later versions added; missing sections are not added."""
  result = dict(stored)
  model = result.get("model")
  family = model.get("name") if isinstance(model, dict) else None
  of_family = _ADDED_TO_FAMILIES.get(family, {}) if isinstance(family, str) else {}
  for dotted, value in (_ADDED | of_family).items():
    section, _, key = dotted.rpartition(".")
    if not section:
      result.setdefault(key, value)
    elif isinstance(result.get(section), dict):
      result[section] = {key: value} | result[section]
  return result


def is_free(key: str) -> bool:
  """Returns whether a dotted key, or its section, is in FREE."""
  return key in FREE or key.partition(".")[0] in FREE


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """Returns one text per key with different values, such as "epochs (20, now 30)"; keys in FREE are ignored.

  If a config of an earlier version lacks a key in `_ADDED`, the value in `_ADDED` is compared.
  """
  old, new = flat(completed(old)), flat(completed(new))
  keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key) and not is_free(key))
  return [f"{key} ({old.get(key, 'absent')!r}, now {new.get(key, 'absent')!r})" for key in keys]


# Sections whose options are checked by the functions that use them. For each section: the parameters of these functions
# that must not be options of the config, and the source of their values.
_OPEN_SECTIONS = {
  "model": dict.fromkeys(("shape", "labels", "groups", "masked"), "the data")
  | {"compute_dtype": "config.compute_dtype", "value_range": "config.data.range"},
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
      raise errors.UserError(f"{where} cannot be set: its value comes from {elsewhere[option]}; remove this key")


def _lists(value):
  if isinstance(value, dict):
    return {key: _lists(entry) for key, entry in value.items()}
  return [_lists(entry) for entry in value] if isinstance(value, tuple | list) else value


def _tuples(value):
  if isinstance(value, dict):
    return {key: _tuples(entry) for key, entry in value.items()}
  return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value
