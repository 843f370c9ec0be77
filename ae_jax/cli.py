"""Functions that all commands use: flags, --help, and one-line error messages with an exit status."""

import contextlib
import datetime
import functools
import io
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from ae_jax import config as configs
from ae_jax import errors
from ae_jax.config import shipped
from ae_jax.config.keys import AUTO, LABEL, RATE
from ae_jax.system import gpu_memory, malloc, paths, signals


class _WholeNumber(flags.IntegerParser):
  """Parser of integer flags. It accepts 1e3 for 1000, like the parser of float flags."""

  def convert(self, argument: Any) -> int:
    try:
      return super().convert(argument)
    except ValueError:
      with contextlib.suppress(ValueError):
        if float(argument).is_integer():
          return int(float(argument))
      raise ValueError("must be a whole number, such as 1000 or 1e3") from None


class _Label(_WholeNumber):
  """Parser of labels: None, an integer, or a class name (any other text)."""

  def convert(self, argument: Any) -> Any:
    if argument in (None, "None"):
      return None
    try:
      number = super().convert(argument)
    except ValueError:
      return argument
    is_name = str(argument).startswith("0") and str(number) != argument  # such as 007
    return argument if is_name else number


class _Rate(flags.FloatParser):
  """Parser of learning rates: a number or `auto`."""

  def convert(self, argument: Any) -> Any:
    return argument if argument == AUTO else super().convert(argument)


class _NoConfigFile(Exception):
  """The value of --config is neither a file nor the name of a shipped config."""


class _ConfigFile(flags.ArgumentParser):
  """Parser of FILE.py:DATASET. That of ml_collections ends FILE.py at its first colon, also in C:/configs/cnn.py."""

  def parse(self, argument: str) -> Any:
    file, data = shipped.split(argument)
    if not os.path.isfile(file):
      raise _NoConfigFile(argument)
    return shipped.execute(file, data, _flags_of)


def _flags_of(config: ConfigDict) -> dict[str, Any]:
  """Returns {dotted key: value} of the flags --config.KEY=VALUE of this command, with the types of the config."""
  given, values = _config_values(sys.argv), flags.FlagValues()
  arguments = [each for place, each in enumerate(sys.argv) if place not in given and each not in _CONFIG_FLAG]
  config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
  values(arguments, known_only=True)
  return config_flags.get_override_values(values["config"])


config_flags.register_flag_parser_for_type(int, _WholeNumber())
config_flags.register_flag_parser_for_type(RATE, _Rate())
config_flags.register_flag_parser_for_type(LABEL, _Label())
_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Config file or name of a shipped config, optionally with :DATASET.", lock_config=True
)
flags.FLAGS["config"].parser = _ConfigFile()
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run or sweep. Commands that train create runs/CONFIG-DATA-TIME by default."
)
_QUIET = flags.DEFINE_bool("quiet", False, "Print only errors.")
_GPU_MEMORY = flags.DEFINE_float(
  "gpu_memory",
  None,
  "Fraction of the memory of each GPU that the process may use, such as 0.5; default: that of JAX, 0.75.",
)
_PREALLOCATE = flags.DEFINE_bool(
  "preallocate", None, "Reserve this fraction of the GPU memory at the start (default), or allocate it as needed."
)

WRONG_INPUT, WRONG_USAGE = 1, 2  # exit statuses
_CONFIG_FLAG = ("--config", "-config")
_HELP = {"--help", "-h", "-help", "--helpshort", "--helpfull"}


def run(main: Callable[[ConfigDict, Callable[[ConfigDict], pathlib.Path]], Any]) -> None:
  """Runs `main(config, workdir)` of a command that expects a config; `workdir(config)` returns the run folder."""

  def call(arguments):
    _refuse(arguments, "write overrides as --config.KEY=VALUE")
    if _CONFIG.value is None:
      fail("--config is missing; for example --config=cnn", WRONG_USAGE)
    named = _local(_WORKDIR.value) if _WORKDIR.value else None
    main(_CONFIG.value, lambda config: named or _new_folder(config))

  _start(call, main, unused=())


def run_on_folder(main: Callable[[pathlib.Path], Any]) -> None:
  """Runs `main(workdir)` of a command that expects an existing run folder and no config."""

  def call(arguments):
    _refuse(arguments, "write the run folder as --workdir=FOLDER")
    if not _WORKDIR.value:
      fail("--workdir is missing; for example --workdir=runs/cnn", WRONG_USAGE)
    main(_local(_WORKDIR.value))

  _start(call, main, unused=("config",))


def run_on_arguments(main: Callable[[list[str]], Any], example: str) -> None:
  """Runs `main(arguments)` of a command that expects one or more positional arguments, and no config or run folder."""

  def call(arguments):
    if not arguments:
      fail(f"arguments are missing; for example {example}", WRONG_USAGE)
    main(arguments)

  _start(call, main, unused=("config", "workdir"))


def _start(call, main, unused):
  """Parses the flags and runs `call(positional arguments)`. The command has no flags named in `unused`."""
  signals.watch()
  malloc.limit_arenas()
  _silence_orbax()
  if isinstance(sys.stdout, io.TextIOWrapper):  # names of files and classes may have characters that it cannot encode
    sys.stdout.reconfigure(errors="backslashreplace")
  for name in unused:
    delattr(flags.FLAGS, name)

  def run_command(argv):
    with contextlib.ExitStack() as stack:
      if _QUIET.value:
        stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w", encoding="utf-8"))))
      with user_errors():
        gpu_memory.configure(_GPU_MEMORY.value, _PREALLOCATE.value)
      try:
        call(argv[1:])
      except BrokenPipeError:  # the process that reads the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

  app.run(run_command, flags_parser=functools.partial(_parse, main=main, with_config="config" not in unused))


def _silence_orbax():
  """Silences warnings of Orbax's threads after a failed save; the command itself reports the failure in one line."""
  warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
  report = sys.unraisablehook
  sys.unraisablehook = lambda error: None if str(error.exc_value) == "Event loop is closed" else report(error)


def _refuse(arguments, instead):
  if arguments:
    fail(f"unexpected argument {arguments[0]!r}; {instead}", WRONG_USAGE)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
  """On UserError, prints one line and exits with an error status; on Interrupted, prints how to continue."""
  try:
    yield
  except signals.Interrupted as stop:
    print(stop, flush=True)
  except errors.UserError as error:
    fail(str(error), WRONG_INPUT)


def _new_folder(config):
  """Returns the default run folder; its name contains the config file, the data set and the time."""
  time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
  return pathlib.Path(f"runs/{config_file().stem}-{paths.file_name(config.data.name)}-{time}")


def config_file() -> pathlib.Path:
  """Returns the path in `--config=PATH:DATASET`, without `:DATASET`."""
  name = config_flags.get_config_filename(flags.FLAGS["config"])
  return pathlib.Path(shipped.split(name)[0] or name)


def defaults() -> set[str]:
  """Returns the config keys with a value of a shipped config; the user sets the other keys, by a file or by flags."""
  if not shipped.is_shipped(config_file()):
    return set()
  return {*configs.flat(_CONFIG.value.to_dict())} - {*config_flags.get_override_values(flags.FLAGS["config"])}


def _local(workdir):
  """Returns --workdir as a local path; ends the command with an error if the path is remote."""
  try:
    return paths.local_path("--workdir", workdir)
  except errors.UserError as error:
    fail(str(error), WRONG_INPUT)


def _parse(argv, main, with_config):
  """Parses the flags. On an error, prints one line and exits; for --help, prints the command's docstring and flags."""
  if _HELP & {*argv[1:]}:
    _print_help(argv[0], main)
    sys.exit(0)
  try:
    rest = flags.FLAGS(_with_shipped_config(argv) if with_config else argv)
  except flags.Error as error:
    fail(shipped.by_name(str(error)), WRONG_INPUT if "flag --config" in str(error) else WRONG_USAGE)
  except _NoConfigFile as error:
    fail(shipped.no_such_config(error), WRONG_INPUT)
  except AttributeError as error:  # wraps a KeyError that names the key and the most similar known key
    fail(f"the config has no key {getattr(error.args[0], 'args', error.args)[0]}", WRONG_INPUT)
  except Exception as error:  # the code of a config file, or the parser of an override, may raise any exception
    fail(f"--config: {error}", WRONG_INPUT)
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.FATAL)  # Orbax logs every file, and failures that the command itself reports
  return rest


def _with_shipped_config(argv: Sequence[str]) -> list[str]:
  """Returns the arguments; if --config is the name of a shipped config, it is replaced by the path of its file."""
  resolved = [*argv]
  for place, value in _config_values(argv).items():
    path = shipped.resolve(value)
    resolved[place] = path if argv[place] == value else f"--config={path}"
  return resolved


def _config_values(argv: Sequence[str]) -> dict[int, str]:
  """Returns {position: value} of --config; the argument there is `--config=value`, or `value` after `--config`."""
  values: dict[int, str] = {}
  for place, argument in enumerate(argv):
    flag, equals, value = argument.partition("=")
    if place and argv[place - 1] in _CONFIG_FLAG and place - 1 not in values:
      values[place] = argument
    elif equals and flag in _CONFIG_FLAG:
      values[place] = value
  return values


def _print_help(program, main):
  """Prints the docstring and the flags of a command's module."""
  module = program if main.__module__ == "__main__" else main.__module__
  print(f"{main.__globals__['__doc__'].strip()}\n\n{flags.FLAGS.module_help(module)}", flush=True)


def fail(message: str, status: int, leave: Callable[[int], Any] = sys.exit) -> NoReturn:
  """Prints an error in one line on stderr and exits by calling `leave(status)`."""
  print(f"ae_jax: {' '.join(message.split())}", file=sys.stderr, flush=True)
  leave(status)
  raise AssertionError("leave() returned")
