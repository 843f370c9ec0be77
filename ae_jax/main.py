"""Trains an autoencoder that a config file describes.

  python -m ae_jax.main --config=configs/cnn.py --workdir=runs/cnn
  python -m ae_jax.main --config=configs/cnn.py:mnist --config.model.latent=64

The part after the colon is the data set; --config.KEY=VALUE overrides any key of the config. The same command again
continues a run that was interrupted. --profile leaves a trace of some steps in the run's folder.
"""

import datetime
import os
import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "The config file, perhaps with :DATA behind it.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run; default: runs/CONFIG-DATA-TIME.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other processes that the cluster's environment names.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of the first process of several, for all of them.")
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes the run has, with --coordinator.")
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0, with --coordinator.")
_DETERMINISTIC = flags.DEFINE_bool("deterministic", False, "On GPU: only kernels that give the same bits each time.")
_PROFILE = flags.DEFINE_bool("profile", False, "Trace a chunk of steps into WORKDIR/profile (TensorBoard, Perfetto).")

WRONG_INPUT, WRONG_USAGE = 1, 2


def main(argv):
  """The flags, one call."""
  if len(argv) > 1:
    _fail(f"unexpected argument {argv[1]!r}; overrides are written --config.KEY=VALUE", WRONG_USAGE)
  if _DETERMINISTIC.value:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"
  import jax

  from ae_jax import config as configs  # here, so that --help does not wait for JAX
  from ae_jax import errors, interruptions, parallel, train

  config = _CONFIG.value
  try:
    configs.check(config)
    if _DISTRIBUTED.value or _COORDINATOR.value:
      interruptions.witness()
      _join(parallel.start)
    file = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"]))
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    default = pathlib.Path("runs") / f"{file.stem}-{config.data.name.replace('/', '_')}-{time}"
    train.train_and_evaluate(config, pathlib.Path(_WORKDIR.value or default), _PROFILE.value)
  except interruptions.Interrupted as stop:
    print(f"{stop}; the same command continues", flush=True)
  except Exception as error:
    if jax.process_count() > 1:
      if interruptions.others_are_lost(error):
        _fail(f"{interruptions.LOST} ({errors.one_line(error)})", WRONG_INPUT, os._exit)
      interruptions.leave_soon(WRONG_INPUT)
    if not isinstance(error, errors.UserError | parallel.FailedElsewhere):
      raise
    _fail(str(error), WRONG_INPUT)


def _join(start):
  """Joins the other processes of the run, as the flags say."""
  try:
    start(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
  except (RuntimeError, ValueError) as error:
    _fail(f"--coordinator, --distributed: the processes did not find each other: {error}", WRONG_USAGE)


def _parse(argv):
  """absl's parser, but with one line for any mistake, and exit status 0 for --help."""
  try:
    rest = flags.FLAGS(argv)
    _ = _CONFIG.value and _CONFIG.value.keys()  # a file that is not there is an error only now
  except SystemExit:  # absl leaves --help with status 1
    sys.exit(0)
  except flags.Error as error:
    _fail(str(error), WRONG_INPUT if "flag --config" in str(error) else WRONG_USAGE)
  except OSError:
    _fail(
      f"--config={config_flags.get_config_filename(flags.FLAGS['config'])}: there is no such config file", WRONG_INPUT
    )
  except AttributeError as error:  # around a KeyError that knows the key and the nearest one
    _fail(f"the config has no key {getattr(error.args[0], 'args', error.args)[0]}", WRONG_INPUT)
  except Exception as error:  # a config file is code and an override names a key: either may raise anything
    _fail(f"--config: {error}", WRONG_INPUT)
  if _CONFIG.value is None:
    _fail("--config is missing; for instance --config=configs/cnn.py", WRONG_USAGE)
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.FATAL)  # Orbax tells of every file, and of each failure that is a line of ours
  return rest


def _fail(message, status, leave=sys.exit):
  print(f"ae_jax: {' '.join(message.split())}", file=sys.stderr, flush=True)
  leave(status)


if __name__ == "__main__":
  app.run(main, flags_parser=_parse)
