"""Words of boolean columns, such as "no" and "yes": how a table spells false and true."""

from collections.abc import Iterable
from typing import Any

WORDS = (("false", "true"), ("no", "yes"))  # a column of one of these pairs is boolean, in any case
PAIRS = (*WORDS, ("0", "1"))  # words that are read as false and true in a boolean column
_VALUES: dict[str, Any] = {"False": False, "True": True, "0": 0, "1": 1}  # words that stand for a value of another type


def pair(words: Iterable[str]) -> tuple[Any, Any] | None:
  """Returns how a boolean column spells (false, true); None if its words show neither.

  A word that does not occur follows the case of the other one: the pair of the single word "Yes" is ("No", "Yes").
  """
  spelt = {word.lower(): word for word in sorted(words)}
  for false, true in PAIRS:
    if (known := spelt.get(false) or spelt.get(true)) is not None:
      adapted = str.upper if known.isupper() else str.title if known.istitle() else str.lower
      found = [spelt.get(each) or adapted(each) for each in (false, true)]
      return _VALUES.get(found[0], found[0]), _VALUES.get(found[1], found[1])
  return None
