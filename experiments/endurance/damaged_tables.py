"""Damaged tables: functions (folder, generator) -> (name of the source, path)."""

import io
import pickle

import numpy as np

from experiments.endurance.ingredients import BYTE_DAMAGES, UnpickleDetector, image_bytes, write

SOURCES = ("csv", "parquet")
COLUMNS = ("weight", "count", "colour", "sold", "day")
_ODD_CELLS = ("", "NA", "nan", "inf", "-1e400", "abc", '"', "1,5", "  3 ", "true", "2020-13-45", "\0", "é", "9" * 400)


def _rows(generator, count=12):
  """Returns the cells of an undamaged table with a column of each kind."""
  return [
    [f"{generator.normal():.3f}", str(row), str(generator.choice(["red", "blue"])), "True", f"2024-01-{row + 1:02}"]
    for row in range(count)
  ]


def _csv(rows, separator=",", names=COLUMNS):
  """Returns the bytes of a CSV file."""
  return "\n".join(separator.join(row) for row in ([*names], *rows)).encode()


def csv_damaged(folder, generator):
  """Writes a truncated, altered or shuffled file."""
  data = BYTE_DAMAGES[generator.integers(len(BYTE_DAMAGES))](_csv(_rows(generator)), generator)
  return "csv", write(folder, "mine.csv", data)


def csv_cells(folder, generator):
  """Writes cells that are missing, infinite, of another type, or no text."""
  rows = _rows(generator)
  for _ in range(generator.integers(1, 4)):
    rows[generator.integers(len(rows))][generator.integers(len(COLUMNS))] = str(generator.choice(_ODD_CELLS))
  return "csv", write(folder, "mine.csv", _csv(rows))


def csv_ragged(folder, generator):
  """Writes rows with more or fewer cells than the header."""
  rows = _rows(generator)
  row = rows[generator.integers(len(rows))]
  rows[rows.index(row)] = row[: generator.integers(len(row))] if generator.integers(2) else [*row, "7", "8"]
  return "csv", write(folder, "mine.csv", _csv(rows))


def csv_form(folder, generator):
  """Writes a file with another separator, encoding or header."""
  rows = _rows(generator)
  data = _csv(rows)
  forms = (
    _csv(rows, ";"),
    _csv(rows, "\t"),
    b"\xef\xbb\xbf" + data,
    data.decode().encode("utf-16"),
    data.replace(b"red", "grün".encode("latin-1")),
    data.replace(b"\n", b"\r\n"),
    data.replace(b"\n", b"\r"),
    data.replace(b"red", b'"red'),
    data.replace(b"\n", b"\n\n"),
    data + b"\n# a comment",
    _csv(rows, names=("a",) * len(COLUMNS)),
    _csv(rows, names=("",) * len(COLUMNS)),
    _csv(rows, names=(r"../a", "x" * 500, "b\tc", "'", "{}")),
    _csv(rows, names=rows[0]),  # no header
    _csv([["0"] * len(COLUMNS)] * 9),  # constant columns
  )
  return "csv", write(folder, "mine.csv", forms[generator.integers(len(forms))])


def csv_of_another_kind(folder, generator):
  """Writes a file of another kind, or a table without enough rows, with the name of a table."""
  others = (
    b"",
    b"\n" * 9,
    generator.bytes(500),
    bytes(500),
    image_bytes(generator),
    pickle.dumps(UnpickleDetector()),
    _csv([]),
    _csv(_rows(generator, 1)),
    b"PK\3\4" + bytes(60),
    b"<html><body>Not found</body></html>",
    ",".join(["1"] * 20_000).encode(),
  )
  name = SOURCES[generator.integers(2)]
  return name, write(folder, f"mine.{name}", others[generator.integers(len(others))])


def csv_splits(folder, generator):
  """Writes a folder of a training and a test table whose columns, words or order of columns may differ."""
  write(folder, "train.csv", _csv(_rows(generator)))
  rows = _rows(generator, 5)
  tests = (
    _csv(rows),
    _csv([row[:-1] for row in rows], names=COLUMNS[:-1]),
    _csv([row[::-1] for row in rows], names=COLUMNS[::-1]),
    _csv([[*row, "3"] for row in rows], names=(*COLUMNS, "more")),
    _csv([[row[0], row[1], "green", *row[3:]] for row in rows]),
    _csv([["heavy", *row[1:]] for row in rows]),
    b"",
  )
  write(folder, "test.csv", tests[generator.integers(len(tests))])
  return "csv", str(folder)


def parquet_damaged(folder, generator):
  """Writes a truncated, altered or shuffled file."""
  data = _parquet({"a": generator.normal(size=12), "b": np.arange(12)})
  return "parquet", write(folder, "mine.parquet", BYTE_DAMAGES[generator.integers(len(BYTE_DAMAGES))](data, generator))


def parquet_types(folder, generator):
  """Writes a column of an unusual type."""
  import decimal

  import pandas as pd

  columns = (
    [[1, 2], [3]] * 6,
    [{"a": 1}] * 12,
    [b"\xff\0"] * 12,
    [None] * 12,
    [decimal.Decimal("1.5")] * 12,
    pd.date_range("2024-01-01", periods=12, tz="Europe/Paris"),
    pd.timedelta_range("1s", periods=12),
    pd.Categorical(["a", "b", None] * 4),
    pd.array([True, None, False] * 4, "boolean"),
    pd.array([1, None, 3] * 4, "Int8"),
    np.full(12, 2**64 - 1, np.uint64),
    np.full(12, np.inf),
    np.linspace(0, 1, 12).astype(np.float16),
    [f"word {number}" for number in range(12)],
  )
  odd = columns[generator.integers(len(columns))]
  return "parquet", write(folder, "mine.parquet", _parquet({"a": generator.normal(size=12), "odd": odd}))


def _parquet(columns):
  """Returns the bytes of a Parquet file."""
  import pandas as pd

  file = io.BytesIO()
  pd.DataFrame(columns).to_parquet(file)
  return file.getvalue()


TABLES = (
  csv_damaged,
  csv_cells,
  csv_cells,
  csv_ragged,
  csv_form,
  csv_of_another_kind,
  csv_splits,
  parquet_damaged,
  parquet_types,
)
