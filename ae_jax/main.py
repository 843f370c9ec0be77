"""Trains an autoencoder that a config file describes.

  python -m ae_jax.main --config=configs/cnn.py --workdir=runs/cnn
  python -m ae_jax.main --config=configs/cnn.py:mnist --config.model.latent=64

The part after the colon is the data set; --config.KEY=VALUE overrides any key of the config. The same command again
continues a run that was interrupted. --profile leaves a trace of some steps in the run's folder.
"""

import os

from absl import flags

from ae_jax import cli

flags.adopt_module_key_flags(cli)

_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other processes that the cluster's environment names.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of the first process of several, for all of them.")
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes the run has, with --coordinator.")
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0, with --coordinator.")
_DETERMINISTIC = flags.DEFINE_bool("deterministic", False, "On GPU: only kernels that give the same bits each time.")
_PROFILE = flags.DEFINE_bool("profile", False, "Trace a chunk of steps into WORKDIR/profile (TensorBoard, Perfetto).")


def main(config, workdir):
  """The flags, one call."""
  if _DETERMINISTIC.value:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"
  import jax

  from ae_jax import config as configs  # here, so that --help does not wait for JAX
  from ae_jax import errors
  from ae_jax.system import distributed
  from ae_jax.training import preemption, train

  with cli.in_a_line():
    try:
      configs.check(config)
      if _DISTRIBUTED.value or _COORDINATOR.value:
        preemption.watchdog()
        _join(distributed.start)
      train.train_and_evaluate(config, workdir(config), _PROFILE.value)
    except preemption.Interrupted:
      raise
    except Exception as error:
      if jax.process_count() > 1:
        if preemption.others_are_lost(error):
          cli.fail(f"{preemption.LOST} ({errors.one_line(error)})", cli.WRONG_INPUT, os._exit)
        preemption.leave_soon(cli.WRONG_INPUT)
      if isinstance(error, distributed.FailedElsewhere):
        raise errors.UserError(str(error)) from None
      raise


def _join(start):
  """Joins the other processes of the run, as the flags say."""
  try:
    start(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
  except (RuntimeError, ValueError) as error:
    cli.fail(f"--coordinator, --distributed: the processes did not find each other: {error}", cli.WRONG_USAGE)


if __name__ == "__main__":
  cli.run(main)
