"""Trains the autoencoder that a config describes, or resumes an interrupted run.

  ae_jax train --config=cnn --workdir=runs/cnn
  ae_jax train --config=cnn:mnist --config.model.latent=64
  python -m ae_jax.main --config=configs/cnn.py --config.epochs=5

The part of --config after the colon is the data set. --config.KEY=VALUE overrides a key of the config. The same command
with the same --workdir resumes an interrupted run. --profile writes a profiler trace of some training steps to the
run folder.
"""

import os
import pathlib
from collections.abc import Callable

from absl import flags
from ml_collections import ConfigDict

from ae_jax import cli

flags.adopt_module_key_flags(cli)

_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Join the other processes of the run, which are detected from the cluster environment."
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "HOST:PORT of the first process; use the same value for all processes of the run."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes of the run; use with --coordinator.")
_PROCESS = flags.DEFINE_integer("process", None, "Index of this process, counted from 0; use with --coordinator.")
_DETERMINISTIC = flags.DEFINE_bool(
  "deterministic", False, "On GPU, use only kernels with bitwise reproducible results."
)
_PROFILE = flags.DEFINE_bool(
  "profile", False, "Write a profiler trace of some training steps to WORKDIR/profile (for TensorBoard or Perfetto)."
)


def main(config: ConfigDict, workdir: Callable[[ConfigDict], pathlib.Path]) -> None:
  """Trains with `config` in the run folder `workdir(config)`."""
  if _DETERMINISTIC.value:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"
  import jax

  from ae_jax import config as configs  # imported late, because --help must not wait for JAX
  from ae_jax import errors
  from ae_jax.system import distributed
  from ae_jax.training import preemption, train

  with cli.user_errors():
    try:
      configs.check(config)
      if _DISTRIBUTED.value or _COORDINATOR.value:
        preemption.watchdog()
        _join(distributed.initialize)
      train.train_and_evaluate(config, workdir(config), _PROFILE.value, defaults=cli.defaults())
    except preemption.Interrupted:
      raise
    except Exception as error:
      if jax.process_count() > 1:
        if preemption.others_are_lost(error):
          cli.fail(f"{preemption.LOST} ({errors.one_line(error)})", cli.WRONG_INPUT, os._exit)
        preemption.exit_after_delay(cli.WRONG_INPUT)
      if isinstance(error, distributed.FailedElsewhere):
        raise errors.UserError(str(error)) from None
      raise


def _join(start):
  """Joins the other processes of the run by calling `start` with the flags."""
  try:
    start(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
  except (RuntimeError, ValueError) as error:
    fix = "check these flags, and start all processes of the run"
    cli.fail(f"--coordinator, --distributed: the processes could not connect ({error}); {fix}", cli.WRONG_USAGE)


def run() -> None:
  """Runs `ae_jax train`."""
  cli.run(main)


if __name__ == "__main__":
  run()
