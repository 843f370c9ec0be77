"""Opening a CSV file of 30 columns with decimal numbers, beside pandas.read_csv."""

import numpy as np
import pandas as pd

from ae_jax import data

# Key of results.json. pandas 3.1 reads with several threads, and pandas 2 with one.
RESULT = f"table, pandas {pd.__version__}"
COUNT = 1_000_000
COLUMNS = 30
_ROWS = 10_000  # number of rows that are written at a time


def write(folder, count):
  """Writes a file with `count` rows; returns its path."""
  generator = np.random.default_rng(0)
  file = folder / "rows.csv"
  names = [f"column_{number}" for number in range(COLUMNS)]
  for begin in range(0, count, _ROWS):
    rows = generator.normal(100, 15, (min(_ROWS, count - begin), COLUMNS))
    pd.DataFrame(rows, columns=names).to_csv(file, mode="a", header=begin == 0, index=False, float_format="%.4f")
  return file


def with_ae_jax(file):
  """Returns the data set; its columns are described, checked and divided into training and test rows."""
  return data.load("csv", str(file), "real", scale="standard")


PEERS = {"pandas.read_csv": pd.read_csv}
