import json

import pytest
from conftest import CONFIGS, config_of

from ae_jax import config as configs
from ae_jax import errors


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_config_comes_back_from_json_as_it_was(file):
  config = config_of(file.stem, "mnist")
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
    errors.UserError, match=r"config\.optimizer\.learningrate is no key.*did you mean 'learning_rate'"
  ):
    configs.check(config)
