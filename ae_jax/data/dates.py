"""Recognises dates in the texts of a table, and converts texts and numbers to dates."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool

_PROBES = 1000  # number of texts that are tested first; most columns of texts contain no date
# Forms of a date at the beginning of a text, with the positions of year, month and day. Texts with slashes between day
# and month are dates only if the user says so, because the order of the two differs between countries.
_YEAR_FIRST = re.compile(r"\s*(?P<year>\d{4})[-/](?P<month>\d{1,2})[-/](?P<day>\d{1,2})(?=\D|$)")
_DOTTED = re.compile(r"\s*(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})(?=\D|$)")
_DAY_FIRST = re.compile(r"\s*(?P<day>\d{1,2})[-/](?P<month>\d{1,2})[-/](?P<year>\d{4})(?=\D|$)")
_MONTH_FIRST = re.compile(r"\s*(?P<month>\d{1,2})[-/](?P<day>\d{1,2})[-/](?P<year>\d{4})(?=\D|$)")
_ONLY_TIME = re.compile(r"\s*\d{1,2}:\d{2}")  # pandas would add the date of today
_ZONE = re.compile(r":\d{2}(\.\d+)?\s*(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?)\s*$")
_UNITS = {
  "s": 1e8,
  "ms": 1e11,
  "us": 1e14,
  "ns": 1e17,
}  # unit -> smallest number that counts it since 1970
_DAYS = (1_900_01_01, 2_200_12_31)  # smallest and largest number that is a date such as 20240531


def are_dates(words: Sequence[str]) -> Bool[np.ndarray, " words"]:
  """Returns a boolean mask: True for each string that is a date such as 2024-05-31, 2024/05/31 or 31.05.2024.

  A date can be followed by a time. If few strings are dates, the mask may be False everywhere.
  """
  texts = pd.Series(list(words), dtype=object)
  if len(texts) > _PROBES and are_dates(words[:: len(texts) // _PROBES][:_PROBES]).mean() < 1 / 2:
    return np.zeros(len(texts), bool)
  forms = texts.map(lambda text: bool(_YEAR_FIRST.match(text) or _DOTTED.match(text))).astype(bool)
  found = np.zeros(len(texts), bool)
  found[forms] = parse(texts[forms]).notna()
  return found


def parse(texts: pd.Series) -> pd.Series:
  """Converts distinct values of a column of dates to times in UTC; NaT for those that are no dates.

  The values are strings, dates or timestamps. Days come before months in texts such as 31.05.2024, and in texts with
  slashes if a number is too large for a month.
  """
  strings = texts.map(lambda text: isinstance(text, str)).astype(bool)
  if not strings.all():
    return pd.to_datetime(texts, errors="coerce", utc=True)
  is_day_first = texts.map(lambda text: bool((found := _DAY_FIRST.match(text)) and int(found["day"]) > 12)).any()
  forms = (_YEAR_FIRST, _DOTTED, _DAY_FIRST if is_day_first else _MONTH_FIRST)
  iso = texts.map(lambda text: _as_iso(text, forms))
  found = pd.to_datetime(iso, format="ISO8601", errors="coerce", utc=True)
  others = found.isna() & ~texts.map(lambda text: bool(_ONLY_TIME.match(text))).astype(bool)
  if others.any():
    mixed = pd.to_datetime(texts[others], format="mixed", errors="coerce", utc=True, dayfirst=bool(is_day_first))
    found[others] = mixed.astype(found.dtype)
  return found


def _as_iso(text: str, forms: Sequence[re.Pattern[str]]) -> str:
  """Returns a text in which the date has the form of ISO 8601; a text of none of the forms is returned unchanged."""
  for form in forms:
    if found := form.match(text):
      return f"{found['year']}-{found['month']:0>2}-{found['day']:0>2}{text[found.end() :]}".strip()
  return text


def have_zone(values: pd.Series) -> bool:
  """Returns whether the first date of a column has a time zone or an offset from UTC, such as 12:00+02:00."""
  if pd.api.types.is_datetime64_any_dtype(values.dtype):
    return values.dt.tz is not None
  known = values.dropna()
  return bool(len(known)) and bool(_ZONE.search(str(known.iloc[0])))


def of_numbers(values: pd.Series) -> pd.Series:
  """Converts numbers to times in UTC: dates such as 20240531, or times since 1970 in s, ms, us or ns.

  The largest number determines which of them all numbers are. NaT for missing values, and for smaller numbers.
  """
  largest = float(values.max())
  if _DAYS[0] <= largest <= _DAYS[1] and (values.dropna() % 1 == 0).all():
    texts = values.map(lambda value: f"{value:.0f}", na_action="ignore")
    return pd.to_datetime(texts, format="%Y%m%d", errors="coerce", utc=True)
  unit = next((unit for unit, least in reversed(_UNITS.items()) if largest >= least), None)
  if unit is None:
    return pd.Series(pd.NaT, values.index, dtype="datetime64[ns, UTC]")
  return pd.to_datetime(values, unit=unit, errors="coerce", utc=True)
