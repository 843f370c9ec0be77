import json

import numpy as np
import pytest
from conftest import CONFIGS, config_of
from ml_collections import ConfigDict, config_dict

from ae_jax import config as configs
from ae_jax import errors


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_config_comes_back_from_json_as_it_was(file):
  config = config_of(file.stem, "digits")
  stored = json.loads(json.dumps(configs.as_json(config)))
  again = configs.from_json(stored)
  assert again.to_dict() == config.to_dict()
  assert configs.differences(stored, configs.as_json(again)) == []
  configs.check(again)
  with pytest.raises(AttributeError, match="locked"):
    again.epocs = 3


def test_differences_name_the_key_and_both_values():
  old, new = configs.as_json(config_of("dense", "digits")), configs.as_json(config_of("dense", "digits"))
  new["optimizer"]["learning_rate"] = 0.5
  del new["model"]["widths"]
  assert configs.differences(old, new) == [
    "model.widths ([256], now 'absent')",
    "optimizer.learning_rate (0.002, now 0.5)",
  ]


def test_whole_numbers_do_for_reals_and_nothing_else_does():
  config = config_of("dense", "digits")
  config.optimizer.warmup_epochs = 1
  configs.check(config)
  with config.ignore_type():
    config.optimizer.warmup_epochs = "1"
  with pytest.raises(errors.UserError, match=r"config\.optimizer\.warmup_epochs='1': must be float"):
    configs.check(config)


def test_a_mistaken_key_is_met_with_the_nearest():
  config = config_of("dense", "digits")
  config.optimizer.learningrate = 1.0
  with pytest.raises(
    errors.UserError, match=r"config\.optimizer\.learningrate is not a key.*did you mean 'learning_rate'"
  ):
    configs.check(config)


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("seed", 2**32, "config.seed=4294967296: must be from 0 to 4294967295"),
    ("epochs", 2**31, "config.epochs=2147483648: must be an integer from 1 to 2147483647"),
    ("batch_size", np.zeros((3, 30)), "config.batch_size=array([[0., 0., 0.,"),
    pytest.param("log_every_steps", 10**5000, "=<int too long to print>: must be an integer", id="huge"),
    ("optimizer", None, "config.optimizer=None: must be dict"),
    ("optimizer.learning_rate", float("nan"), "config.optimizer.learning_rate=nan: must be a number that is finite"),
    ("optimizer.weight_decay", 10**400, "must be a number that is finite in float32"),
    ("optimizer.a\nb", 1, "config.optimizer.a\\nb is not a key of the config"),
    ("data.one_class", 2**63, "config.data.one_class=9223372036854775808: must be a 64-bit integer"),
    ("data.one_class", True, "config.data.one_class=True: must be int or str or None"),
    ("data.one_class", 1.0, "config.data.one_class=1.0: must be int or str or None"),
    ("model.shape", (8, 8, 1), "config.model.shape cannot be set: its value comes from the data"),
    (
      "model.compute_dtype",
      "float32",
      "config.model.compute_dtype cannot be set: its value comes from config.compute_dtype",
    ),
    ("objective.model", "dense", "config.objective.model cannot be set: its value comes from config.model"),
    ("objective.value_range", "unit", "cannot be set: its value comes from config.data.range"),
    ("model", {"latent": 3}, "config.model.name is missing"),
    (
      "stages",
      ({"epochs": 1, "objective": {"name": "sparse", 3: 4}},),
      "config.stages[0].objective.3 is not an option",
    ),
    (
      "stages",
      ({"epochs": 1, "objective": {"name": "reconstruction", "model": 1}},),
      "config.stages[0].objective.model",
    ),
    ("stages", ({},) * 101, "must be a tuple of at most 100 stages"),
    (
      "model.latent",
      config_dict.required_placeholder(int),
      "config.model.latent: has no value; set it with --config.model.latent=VALUE",
    ),
  ],
)
def test_a_value_that_no_run_can_have_is_refused_in_one_line(key, value, message):
  nested = config_of("dense", "digits").to_dict()
  *above, last = key.split(".", 1)
  (nested[above[0]] if above else nested)[last] = value
  with pytest.raises(errors.UserError) as refusal:
    configs.check(ConfigDict(nested))
  assert message in str(refusal.value)
  assert len(str(refusal.value).splitlines()) == 1


def test_a_config_of_an_earlier_version_has_no_augmentation_and_is_whole_again():
  new = configs.as_json(config_of("dense", "digits"))
  old = json.loads(json.dumps(new))
  del old["data"]["augment"]
  assert configs.differences(old, new) == []
  assert configs.from_json(old).to_dict() == configs.from_json(new).to_dict()
  assert "augment" not in old["data"]
  new["data"]["augment"] = [{"name": "flip"}]
  assert configs.differences(old, new) == ["data.augment ([], now [{'name': 'flip'}])"]


def test_a_run_of_an_earlier_version_on_windows_may_be_resumed_with_the_kind_of_the_shipped_config():
  """Earlier versions of configs/sequence.py did not set config.data.kind, which has no effect on windows."""
  new = configs.as_json(config_of("sequence", "npz"))
  assert new["data"]["kind"] == "series"
  old = {**new, "data": {**new["data"], "kind": "auto"}}
  assert configs.differences(old, new) == []


def test_a_config_is_flat():
  assert configs.flat({"a": {"b": 1, "c": {"d": [2]}}, "e": {}}) == {"a.b": 1, "a.c.d": [2], "e": {}}


@pytest.mark.parametrize("label", [None, -1, 0, 3, "good"])
def test_the_one_class_is_a_label_or_none_and_stays_so_in_json_and_in_a_copy(label):
  config = config_of("dense", "digits")
  config.data.one_class = label
  for again in (configs.from_json(configs.as_json(config)), ConfigDict(config.to_dict())):
    configs.check(again)
    configs.check_analyzed(again)
    assert again.data.one_class == label
  assert configs.differences(configs.as_json(config), configs.as_json(again)) == []
