"""Descriptions of inputs and outputs say what a caller of an exported file has to pass."""

import numpy as np
import pytest
from made_exports import made

from ae_jax.data.scaling import Scaling
from ae_jax.data.schema import Column, Schema
from ae_jax.exporting import meanings

COLUMNS = (
  Column("height", "numeric", fill=170.0, indicator=True),
  Column("town", "categorical", words=("Busan", "Seoul")),
  Column("day", "date", first=20_000.0),
)


@pytest.mark.parametrize(
  ("options", "dtype", "values"),
  [
    ({}, "float32", "floats from 0 to 1"),
    ({"value_range": "symmetric"}, "float32", "floats from -1 to 1"),
    ({"value_range": "real"}, "float32", "floats in the unit of the training data"),
    ({"value_range": "real"}, "uint8", "bytes from 0 to 255, not scaled"),
    ({"scaling": Scaling("uint16", 0.0, 60_000.0, 65_535)}, "int32", "integers in the unit of the training data"),
  ],
)
def test_the_range_of_the_examples_is_named(options, dtype, values):
  described = meanings.of_run(made(**options), dtype)
  assert described["x"] == {"axes": ["batch", "height", "width", "channel"], "values": values}
  assert described["x_hat"]["values"].startswith("floats")


def test_the_columns_and_the_elements_of_a_table_are_named_in_order():
  schema = Schema(COLUMNS, "mean")
  run = made(shape=(schema.elements,), value_range="real", groups=schema.groups, schema=schema)
  described = meanings.of_run(run, "float32")
  assert [column["name"] for column in described["x"]["columns"]] == ["height", "town", "day"]
  assert described["x"]["columns"][1]["words"] == ["Busan", "Seoul"]
  assert described["x"]["missing_values"] == "NaN"
  elements = described["x_hat"]["elements"]
  assert len(elements) == schema.elements
  row = schema.encode(np.array([[1.0, 1.0, 20_003.0]]))[0]
  assert dict(zip(elements, row.tolist(), strict=True)) == {
    "height": 1,
    "town=Busan": 0,
    "town=Seoul": 1,
    "town=(other)": 0,
    "day (days since 1970-01-01) - 20000": 3,
    "height missing": 0,
  }


def test_the_labels_of_a_conditional_model_are_named():
  run = made("cvae", labels=(0, 2), class_names=("ant", "bee", "cat"))
  label = meanings.of_run(run, "float32")["label"]
  assert (label["labels"], label["class_names"]) == ([0, 2], ["ant", "cat"])
