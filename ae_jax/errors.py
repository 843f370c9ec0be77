"""Errors for the person who reads them, and the one way to choose a thing by its name."""

import contextlib
import difflib
import inspect


class UserError(Exception):
  """Something the user can mend: one line with the key or file, what is wrong, and what would be right."""


def hint(name, known):
  """ "did you mean ...? " with the one that was probably meant, or ""."""
  match = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
  return f"did you mean {match[0]!r}? " if match else ""


def nearest(name, known):
  """The end of a sentence that names the known ones, and first the one that was probably meant."""
  return f"{hint(name, known)}known: {', '.join(sorted(map(str, known)))}"


def one_line(error):
  """What another library's exception says, or its type where it says nothing: one line of 200 characters at most."""
  return " ".join(str(error).split())[:200] or type(error).__name__


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
  if name not in table:
    raise UserError(f"config.{key}={name!r} is unknown; {nearest(name, table)}")
  return table[name]


def call(table, section, name, *args, **options):
  """Calls `table[name](*args, **options)`; the options must be exactly the function's keyword-only ones.

  `section` is the part of the config that the options come from. Raises UserError for an unknown name, for an option
  that the chosen function does not take, and for one that it needs and did not get.
  """
  function = choose(table, name, f"{section}.name")
  parameters = inspect.signature(function).parameters.values()
  wanted = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
  for option in options:
    if option not in wanted:
      raise UserError(f"config.{section}.{option} is no option of {name!r}; {nearest(option, wanted)}")
  for option in wanted:
    if option not in options:
      raise UserError(f"config.{section}.{option} is missing; {name!r} needs {', '.join(wanted)}")
  return function(*args, **options)


def check(condition, key, value, wanted):
  """Raises UserError `config.key=value: must be wanted` unless the condition holds."""
  if not condition:
    raise UserError(f"config.{key}={value!r}: must be {wanted}")


def check_positive(key, value):
  """Raises UserError unless the value is an integer of at least 1."""
  check(_positive(value), key, value, "an integer, 1 or more")


def check_all_positive(key, values):
  """Raises UserError unless the values are a tuple, not empty, of integers of at least 1."""
  good = isinstance(values, tuple) and values and all(map(_positive, values))
  check(good, key, values, "a tuple of integers, each 1 or more")


def _positive(value):
  return isinstance(value, int) and not isinstance(value, bool) and value >= 1
