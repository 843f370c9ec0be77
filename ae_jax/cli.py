"""What the commands share: the flags of a config and a folder, --quiet, and one line with a status for any mistake."""

import contextlib
import datetime
import functools
import os
import pathlib
import sys
import warnings

from absl import app, flags, logging
from ml_collections import config_flags

from ae_jax import errors
from ae_jax.system import malloc, paths, signals


class _WholeNumber(flags.IntegerParser):
  """Parser of integers that takes 1e3 for 1000, as for the keys of the config that are real numbers."""

  def convert(self, argument):
    try:
      return super().convert(argument)
    except ValueError:
      with contextlib.suppress(ValueError):
        if float(argument).is_integer():
          return int(float(argument))
      raise ValueError("must be a whole number, such as 1000 or 1e3") from None


config_flags.register_flag_parser_for_type(int, _WholeNumber())
_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "The config file, perhaps with :DATA behind it.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run or sweep; default: runs/CONFIG-DATA-TIME.")

_QUIET = flags.DEFINE_bool("quiet", False, "Say nothing but what is wrong.")

WRONG_INPUT, WRONG_USAGE = 1, 2


def run(main):
  """Runs a command's `main(config, workdir)`; `workdir(config)` is the folder of the run."""

  def call(rest):
    _refuse(rest, "overrides are written --config.KEY=VALUE")
    if _CONFIG.value is None:
      fail("--config is missing; for instance --config=configs/cnn.py", WRONG_USAGE)
    named = _local(_WORKDIR.value) if _WORKDIR.value else None
    main(_CONFIG.value, lambda config: named or _new_folder(config))

  _start(call, unused=())


def run_on_folder(main):
  """Runs the `main(workdir)` of a command that takes no config but a folder that is there."""

  def call(rest):
    _refuse(rest, "the folder of a run is written --workdir=FOLDER")
    if not _WORKDIR.value:
      fail("--workdir is missing; for instance --workdir=runs/cnn", WRONG_USAGE)
    main(_local(_WORKDIR.value))

  _start(call, unused=("config",))


def run_on_arguments(main, example):
  """Runs the `main(arguments)` of a command that takes texts, at least one, and no config or folder by a flag."""

  def call(rest):
    if not rest:
      fail(f"there are no arguments; for instance {example}", WRONG_USAGE)
    main(rest)

  _start(call, unused=("config", "workdir"))


def _start(call, unused):
  """Runs `call(arguments that are no flags)`, in silence if asked; the `unused` flags are unknown to the command."""
  signals.watch()
  malloc.few_arenas()
  _hush()
  for name in unused:
    delattr(flags.FLAGS, name)

  def main(argv):
    with contextlib.ExitStack() as stack:
      if _QUIET.value:
        stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
      call(argv[1:])

  app.run(main, flags_parser=functools.partial(_parse, with_config="config" not in unused))


def _hush():
  """Silences what Orbax's threads say after a save that failed, which is one line of ours."""
  warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
  told = sys.unraisablehook
  sys.unraisablehook = lambda found: None if str(found.exc_value) == "Event loop is closed" else told(found)


def _refuse(arguments, instead):
  if arguments:
    fail(f"unexpected argument {arguments[0]!r}; {instead}", WRONG_USAGE)


@contextlib.contextmanager
def in_a_line():
  """What the user can mend leaves with one line and a status; a run that was asked to stop says how it goes on."""
  try:
    yield
  except signals.Interrupted as stop:
    print(stop, flush=True)
  except errors.UserError as error:
    fail(str(error), WRONG_INPUT)


def _new_folder(config):
  """Returns the folder of a run for which --workdir names none, from its checked config and the time."""
  file = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"]))
  time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
  return pathlib.Path(f"runs/{file.stem}-{config.data.name.replace('/', '_')}-{time}")


def _local(workdir):
  """Returns the folder that --workdir names; ends the command where it is no local one."""
  try:
    return paths.local_path("--workdir", workdir)
  except errors.UserError as error:
    fail(str(error), WRONG_INPUT)


def _parse(argv, with_config):
  """absl's parser, but with one line for any mistake, and exit status 0 for --help."""
  try:
    rest = flags.FLAGS(argv)
    _ = with_config and _CONFIG.value and _CONFIG.value.keys()  # a file that is not there is an error only now
  except SystemExit:  # absl leaves --help with status 1
    sys.exit(0)
  except flags.Error as error:
    fail(str(error), WRONG_INPUT if "flag --config" in str(error) else WRONG_USAGE)
  except OSError:
    fail(
      f"--config={config_flags.get_config_filename(flags.FLAGS['config'])}: there is no such config file", WRONG_INPUT
    )
  except AttributeError as error:  # around a KeyError that knows the key and the nearest one
    fail(f"the config has no key {getattr(error.args[0], 'args', error.args)[0]}", WRONG_INPUT)
  except Exception as error:  # a config file is code and an override names a key: either may raise anything
    fail(f"--config: {error}", WRONG_INPUT)
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.FATAL)  # Orbax tells of every file, and of each failure that is a line of ours
  return rest


def fail(message, status, leave=sys.exit):
  """Says what is wrong in one line and leaves."""
  print(f"ae_jax: {' '.join(message.split())}", file=sys.stderr, flush=True)
  leave(status)
