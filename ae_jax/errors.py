"""Errors for users, checks of config values, and lookup by name."""

import contextlib
import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

LARGEST_COUNT = 2**31 - 1  # counts and array indices are int32
SMALLEST, LARGEST = 1.2e-38, 3.4e38  # range of the positive normal numbers of float32
MOST_LAYERS = 100  # the time of tracing and compiling grows with the number of layers
_MAX_CHARACTERS = 80  # maximum length of a value in a message


class UserError(ValueError):
  """An error that the user can fix; the message names the key or file, the problem and the fix in one line."""

  def __init__(self, message: str) -> None:
    super().__init__(" ".join(message.splitlines()))  # file names may contain line breaks


class DifferentData(UserError):
  """The data are not those of a run; `differing` names what differs."""

  def __init__(self, message: str, differing: Sequence[str]) -> None:
    super().__init__(message)
    self.differing = differing


class WriteError(UserError):
  """A file of a run folder cannot be written. The run can be resumed from its newest checkpoint."""


def format_value(value: object) -> str:
  """Returns the repr of a value for a message, as one line, truncated to 80 characters."""
  try:
    text = " ".join(line.strip() for line in repr(value).splitlines())
  except ValueError:  # Python refuses to print integers of more than 4,300 digits
    text = f"<{type(value).__name__} too long to print>"
  return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 3]}..."


def format_key(key: object) -> str:
  """Returns a key as text for a message: one line, without quotes, truncated to 80 characters."""
  return format_value(key)[1:-1] if isinstance(key, str) else format_value(key)


def suggestion(name: object, known: Iterable[object]) -> str:
  """Returns "did you mean 'NAME'? " for the most similar known name, or "" if no known name is similar."""
  match = difflib.get_close_matches(format_key(name), [str(k) for k in known], n=1)
  return f"did you mean {match[0]!r}? " if match else ""


def list_known(name: object, known: Collection[object]) -> str:
  """Returns the end of a message about an unknown name: the most similar known name, and a list of all known names."""
  return f"{suggestion(name, known)}known: {', '.join(sorted(map(str, known)))}"


def one_line(error: BaseException) -> str:
  """Returns the text of an exception as one line of at most 200 characters, or the name of its type if it is empty."""
  return " ".join(str(error).split())[:200] or type(error).__name__


@contextlib.contextmanager
def convert_os_errors(where: object, then: str = "", kind: type[UserError] = UserError) -> Iterator[None]:
  """Re-raises an OSError as a `kind` with the message `<where>: cannot be written: <reason><then>`."""
  try:
    yield
  except OSError as error:
    raise kind(f"{where}: cannot be written: {error.strerror or one_line(error)}{then}") from None


@contextlib.contextmanager
def convert_errors(prefix: str) -> Iterator[None]:
  """Re-raises any exception as a UserError with the message `<prefix>: <exception text>`.

  For calls of libraries that do not document their exception types.
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    raise UserError(f"{prefix}: {one_line(error)}") from None


def choose(table: Mapping[str, Any], name: object, key: str) -> Any:
  """Returns `table[name]`, where `name` is the value of the config key `key`.

  Args:
    table: {name: value}.
    name: Value of the config key.
    key: Name of the config key, for the error message.

  Raises:
    UserError: The name is unknown. The message lists the known names and suggests the most similar one.
  """
  if not isinstance(name, str) or name not in table:
    raise UserError(f"config.{key}={format_value(name)} is unknown; {list_known(name, table)}")
  return table[name]


def call(table: Mapping[str, Callable[..., Any]], section: str, name: object, /, *args: Any, **options: Any) -> Any:
  """Returns `table[name](*args, **options)`, where `options` must be keyword-only parameters of the function.

  Args:
    table: {name: function}.
    section: Section of the config that contains the name and the options, for the error message.
    name: Name of the function.
    *args: Positional arguments of the function.
    **options: Options from the config.

  Raises:
    UserError: The name is unknown, the function does not accept an option, or a required option is missing.
  """
  function = choose(table, name, f"{section}.name")
  parameters = inspect.signature(function).parameters.values()
  required = {p.name: p.default is p.empty for p in parameters if p.kind is p.KEYWORD_ONLY}
  for option in options:
    if option not in required:
      raise UserError(
        f"config.{section}.{format_key(option)} is not an option of {name!r}; {list_known(option, required)}"
      )
  for option, is_required in required.items():
    if is_required and option not in options:
      raise UserError(f"config.{section}.{option} is missing; {name!r} needs {', '.join(required)}")
  return function(*args, **options)


def check(condition: object, key: str, value: object, wanted: str) -> None:
  """Raises the UserError "config.KEY=VALUE: must be WANTED" if the condition is false."""
  if not condition:
    raise UserError(f"config.{key}={format_value(value)}: must be {wanted}")


def check_positive(key: str, value: object) -> None:
  """Raises UserError unless the value is an integer from 1 to LARGEST_COUNT."""
  check(_is_count(value), key, value, f"an integer from 1 to {LARGEST_COUNT}")


def check_all_positive(key: str, values: object) -> None:
  """Raises UserError unless `values` is a tuple of 1 to MOST_LAYERS positive integers, one per layer."""
  valid = isinstance(values, tuple) and 0 < len(values) <= MOST_LAYERS and all(map(_is_count, values))
  check(valid, key, values, f"a tuple of integers, each 1 or more, with 1 to {MOST_LAYERS} entries")


def check_kernel_size(key: str, values: int | tuple[int, ...], sides: Collection[int]) -> None:
  """Raises UserError if a kernel size or stride is larger than 16 and larger than twice the longest side of an example.

  Larger kernels read mostly padding, and the time of tracing and compiling grows with the size of a kernel.

  Args:
    key: Config key.
    values: One size, or one per layer.
    sides: Sizes of the spatial axes of an example.
  """
  limit = max(16, 2 * max(sides))
  sizes = values if isinstance(values, tuple) else (values,)
  check(max(sizes) <= limit, key, values, f"at most {limit} for an example of {'x'.join(map(str, sides))}")


def check_not_negative(key: str, value: Any) -> None:
  """Raises UserError unless the value is a number in [0, LARGEST]."""
  check(is_number(value) and value >= 0, key, value, f"a number of at least 0 and at most {LARGEST:g}")


def check_flag(key: str, value: object) -> None:
  """Raises UserError unless the value is True or False."""
  check(isinstance(value, bool), key, value, "True or False")


def is_number(value: object) -> TypeGuard[float]:
  """Returns whether the value is an int or float (not a bool) whose float32 value is finite."""
  return bool(isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST)


def _is_count(value: object) -> bool:
  return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_COUNT
