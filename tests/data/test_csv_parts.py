"""A CSV file that is read in parts by several threads gives the rows of `pandas.read_csv`, or is read as a whole."""

import numpy as np
import pandas as pd
import pytest

from ae_jax import errors
from ae_jax.data import csv_parts, table_files

R = np.random.default_rng(0)
ROWS = 400


@pytest.fixture(autouse=True)
def three_small_parts(monkeypatch):
  monkeypatch.setattr(csv_parts, "_SMALLEST_PART", 2)
  monkeypatch.setattr("os.cpu_count", lambda: 3)


def both(path, texts=()):
  """Returns the rows read in parts, or None, and those of pandas."""
  options = {"sep": ",", "dtype": dict.fromkeys(texts, "category"), "low_memory": False}
  names = list(pd.read_csv(path, nrows=9).columns)
  return csv_parts.read(str(path), names, texts, options), lambda: pd.read_csv(path, **options)


FRAME = pd.DataFrame({
  "float": R.normal(size=ROWS),
  "integer": R.integers(-9, 9, ROWS),
  "gaps": np.where(R.random(ROWS) < 0.2, np.nan, R.normal(size=ROWS)),
  "integer, then float": [*range(ROWS - 1), 0.5],
  "first part empty": np.where(np.arange(ROWS) < ROWS // 2, np.nan, 1),
  "boolean": R.random(ROWS) < 0.5,
  "word": [*R.choice(["red", "green"], ROWS - 1), "blue"],
})  # fmt: skip


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_parts_have_the_rows_of_pandas(line_end, encoding, tmp_path):
  FRAME.columns = [name.replace(",", ";") for name in FRAME]
  FRAME.to_csv(tmp_path / "a.csv", index=False, lineterminator=line_end, encoding=encoding)
  rows, expected = both(tmp_path / "a.csv", ("word",))
  pd.testing.assert_frame_equal(rows, expected())


@pytest.mark.parametrize(
  ("lines", "reason"),
  [
    (["a,b", *["1,2"] * 50, "1,x", *["1,2"] * 50], "a column of numbers and words"),
    (["a,b", *["1,True"] * 40, *["1,2"] * 50], "booleans and numbers"),
    (["a,b", *["1,2"] * 50, '"1",2', *["1,2"] * 50], "a quotation mark"),
    (["a,b", *["1,2,3"] * 100], "more fields than names"),
    (["a,b", "1,2", "1" * 3000 + ",2"], "a line longer than a part"),
    (["a,b" + ",2\r1" * 100], "lines that end with a carriage return only"),
  ],
)
def test_other_files_are_read_as_a_whole(lines, reason, tmp_path):
  (tmp_path / "a.csv").write_bytes("\n".join(lines).encode())
  assert both(tmp_path / "a.csv")[0] is None, reason


def test_a_wrong_row_is_named_by_its_line_in_the_file(tmp_path):
  (tmp_path / "a.csv").write_text("\n".join(["a,b", *["1,2"] * 90, "1,2,3", "1,2"]))
  with pytest.raises(errors.UserError, match="Expected 2 fields in line 92, saw 3"):
    list(table_files.read_csv(str(tmp_path / "a.csv"), {}, "a.csv", False))
