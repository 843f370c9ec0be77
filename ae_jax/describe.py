"""Prints every key of a config with its type, value and meaning, then the size and cost of the model.

  ae_jax describe --config=cnn
  ae_jax describe --config=cnn:mnist --config.model.latent=64
  python -m ae_jax.describe --config=configs/vae.py

Nothing is compiled, trained or written. The data set is read, because its shape determines the size of the model.
"""

import pathlib
from collections.abc import Callable

from absl import flags
from ml_collections import ConfigDict

from ae_jax import cli, overrides
from ae_jax.config import keys

flags.adopt_module_key_flags(cli)


def main(config: ConfigDict, workdir: Callable[[ConfigDict], pathlib.Path]) -> None:
  """Prints the keys, then the size and cost of the model."""
  del workdir
  from ae_jax import config as configs
  from ae_jax.config import reference

  with cli.user_errors():
    configs.check(config)
    meanings = reference.meanings(cli.config_file())
    defaults = configs.flat(configs.as_json(configs.base(config.data.name)))
    for key, value in configs.flat(configs.as_json(config)).items():
      changed = f"; default {defaults[key]!r}" if key in defaults and defaults[key] != value else ""
      print(f"{key}  ({type(value).__name__}) = {value!r}{changed}")
      if meanings.get(key):
        print(f"    {meanings[key]}")
    print()
    for line in _size_and_cost(config):
      print(line)


def _size_and_cost(config):
  """Yields lines of text about the latent code, the parameters, and the memory and multiply-adds of a training step."""
  import jax

  from ae_jax.models import cost
  from ae_jax.training import setup

  if config.optimizer.learning_rate == keys.AUTO:
    config = overrides.apply(config, {"optimizer.learning_rate": 1e-3})  # size and cost do not depend on it
  experiment = setup.build_experiment(config, 1)
  model, stage = experiment.model, experiment.stages[-1]
  step = cost.step_cost(model, stage.objective, stage.optimizer, config.batch_size, platform=jax.default_backend())
  yield f"examples: {' x '.join(map(str, model.shape))}; {len(experiment.dataset.train):,} for training"
  yield f"latent code: {' x '.join(map(str, model.code.shape))}" + (
    f", {model.code.bits:,.0f} bits" if model.code.bits is not None else ""
  )
  yield f"parameters: {step.parameters:,}"
  yield f"multiply-adds per example: {step.forward:,.0f} to reconstruct, {step.training:,.0f} to train"
  state, gradients, activations = (
    size / 2**20 for size in (step.state_bytes, step.gradient_bytes, step.activation_bytes * config.batch_size)
  )
  yield (
    f"memory of a training step at batch size {config.batch_size}: {state:.1f} MiB of parameters and optimizer state, "
    f"{gradients:.1f} MiB of gradients, {activations:.1f} MiB of activations"
  )


def run() -> None:
  """Runs `ae_jax describe`."""
  cli.run(main)


if __name__ == "__main__":
  run()
