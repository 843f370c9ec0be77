"""Errors for the person who reads them, and the one way to choose a thing by its name."""

import contextlib
import difflib
import inspect

LARGEST_COUNT = 2**31 - 1  # what counts and indexes arrays is int32
SMALLEST, LARGEST = 1.2e-38, 3.4e38  # positive numbers that float32 holds without loss
MOST_LAYERS = 100  # each is traced and compiled on its own
_SHOWN = 80  # characters of a value


class UserError(Exception):
  """Something the user can mend: one line with the key or file, what is wrong, and what would be right."""

  def __init__(self, message):
    super().__init__(" ".join(message.splitlines()))  # the name of a file may hold anything


def shown(value):
  """A value as a message shows it: its repr in one line, cut where it is long."""
  try:
    text = " ".join(line.strip() for line in repr(value).splitlines())
  except ValueError:  # Python prints no integer of thousands of digits
    text = f"<{type(value).__name__} too long to print>"
  return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def plain(key):
  """A key as a message shows it: its letters, in one line."""
  return shown(key)[1:-1] if isinstance(key, str) else shown(key)


def hint(name, known):
  """ "did you mean ...? " with the one that was probably meant, or ""."""
  match = difflib.get_close_matches(plain(name), [str(k) for k in known], n=1)
  return f"did you mean {match[0]!r}? " if match else ""


def nearest(name, known):
  """The end of a sentence that names the known ones, and first the one that was probably meant."""
  return f"{hint(name, known)}known: {', '.join(sorted(map(str, known)))}"


def one_line(error):
  """What another library's exception says, or its type where it says nothing: one line of 200 characters at most."""
  return " ".join(str(error).split())[:200] or type(error).__name__


@contextlib.contextmanager
def writing(where, then=""):
  """An OSError inside becomes a UserError that says what cannot be written, why, and `then` what can be done."""
  try:
    yield
  except OSError as error:
    raise UserError(f"{where}: cannot be written: {error.strerror or one_line(error)}{then}") from None


@contextlib.contextmanager
def explained(words):
  """Any exception inside becomes a UserError, the words and what it says: for libraries that raise all sorts."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    raise UserError(f"{words}: {one_line(error)}") from None


def choose(table, name, key):
  """`table[name]`; an unknown name raises UserError with the config `key`, the known names and the nearest."""
  if not isinstance(name, str) or name not in table:
    raise UserError(f"config.{key}={shown(name)} is unknown; {nearest(name, table)}")
  return table[name]


def call(table, section, name, /, *args, **options):
  """Calls `table[name](*args, **options)`; the options must be the function's keyword-only ones.

  `section` is the part of the config that the options come from. Raises UserError for an unknown name, for an option
  that the chosen function does not take, and for a missing one that has no default.
  """
  function = choose(table, name, f"{section}.name")
  parameters = inspect.signature(function).parameters.values()
  wanted = {p.name: p.default is p.empty for p in parameters if p.kind is p.KEYWORD_ONLY}
  for option in options:
    if option not in wanted:
      raise UserError(f"config.{section}.{plain(option)} is no option of {name!r}; {nearest(option, wanted)}")
  for option, required in wanted.items():
    if required and option not in options:
      raise UserError(f"config.{section}.{option} is missing; {name!r} needs {', '.join(wanted)}")
  return function(*args, **options)


def check(condition, key, value, wanted):
  """Raises UserError `config.key=value: must be wanted` unless the condition holds."""
  if not condition:
    raise UserError(f"config.{key}={shown(value)}: must be {wanted}")


def check_positive(key, value):
  """Raises UserError unless the value is an integer of at least 1, and a count that int32 holds."""
  check(_positive(value), key, value, f"an integer, 1 or more and at most {LARGEST_COUNT}")


def check_all_positive(key, values):
  """Raises UserError unless the values are a tuple of integers of at least 1, one a layer: not empty, and not many."""
  good = isinstance(values, tuple) and 0 < len(values) <= MOST_LAYERS and all(map(_positive, values))
  check(good, key, values, f"a tuple of integers, each 1 or more, of at most {MOST_LAYERS} of them")


def check_reach(key, values, sides):
  """Raises UserError where a kernel or a stride, or one of a tuple, is so large that all but a part sees only padding.

  `sides` are those of the example; each element of a kernel is a step of tracing and compiling.
  """
  limit = max(16, 2 * max(sides))
  every = values if isinstance(values, tuple) else (values,)
  check(max(every) <= limit, key, values, f"at most {limit} for an example of {'x'.join(map(str, sides))}")


def check_not_negative(key, value):
  """Raises UserError unless the value is a number of at least 0."""
  check(is_number(value) and value >= 0, key, value, f"a number of at least 0, at most {LARGEST:g}")


def check_flag(key, value):
  """Raises UserError unless the value is True or False."""
  check(isinstance(value, bool), key, value, "True or False")


def is_number(value):
  """Whether a value is a real number, and no bool, that float32 holds."""
  return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _positive(value):
  return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_COUNT
