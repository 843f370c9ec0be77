"""Exported functions equal the methods of the run, with all preprocessing inside."""

import jax
import numpy as np
import pytest
from made_exports import made

from ae_jax import errors
from ae_jax.data.scaling import Scaling
from ae_jax.data.schema import Column, Schema
from ae_jax.data.standardisation import QuantileScaling, Standardisation
from ae_jax.exporting import examples, onnx_convert, onnx_files, parts

pytestmark = pytest.mark.quick_compile

QUANTILES = QuantileScaling(np.zeros((2, 1), np.float32), np.ones(1, bool))
STANDARD = Standardisation(np.float32([3.0]), np.float32([7.0]))


def table(missing):
  columns = (
    Column("height", "numeric", fill=170.0, spread=9.0, indicator=missing == "mean"),
    Column("town", "categorical", words=("Busan", "Seoul")),
    Column("member", "boolean"),
    Column("day", "date", fill=20_010.0, first=20_000.0),
  )
  schema = Schema(columns, missing)
  mean = np.where(schema.scaled, 5.0, 0.0).astype(np.float32)
  deviation = np.where(schema.scaled, 2.0, 1.0).astype(np.float32)
  shape = (schema.elements,)
  return made(
    shape=shape,
    value_range="real",
    groups=schema.groups,
    schema=schema,
    standardisation=Standardisation(mean, deviation),
  )


CASES = {
  "floats": (made, "float32"),
  "bytes": (made, "uint8"),
  "bytes to -1 and 1": (lambda: made(value_range="symmetric"), "uint8"),
  "16 bits": (lambda: made(scaling=Scaling("uint16", 0.0, 60_000.0, 65_535)), "int32"),
  "booleans": (lambda: made(value_range="symmetric", scaling=Scaling("bool", 0.0, 1.0, 1)), "uint8"),
  "unscaled integers": (
    lambda: made(value_range="real", scaling=Scaling("int64", -9.0, 9.0, 0), standardisation=STANDARD),
    "int32",
  ),
  "standardised series": (lambda: made(shape=(9, 1), value_range="real", standardisation=STANDARD), "float32"),
  "labels that are not 0, 1, ...": (lambda: made("cvae", labels=(2, 5, 7)), "float32"),
  "series with a mask": (
    lambda: made("sequence", (12, 2), {"latent": 2}.items(), "real", masked=True),
    "float32",
  ),
  "table": (lambda: table("error"), "float32"),
  "table with means for gaps": (lambda: table("mean"), "float32"),
  "table with masked gaps": (lambda: table("mask"), "float32"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_parts_equal_the_methods_of_the_run(case):
  make, dtype = CASES[case]
  run = make()
  checked = examples.checked(run, examples.drawn(run), dtype, "random examples")
  for part in parts.parts_of(run, dtype):
    inputs = [checked.inputs[name] for name in part.inputs]
    assert [(v.dtype, v.shape[1:]) for v in inputs] == [(v.dtype, v.shape) for v in part.inputs.values()]
    found, expected = np.asarray(jax.jit(part.function)(*inputs)), checked.results[part.name]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5, err_msg=part.name)
    assert np.ptp(expected) > 1e-3


UNKNOWN = [
  "floats",
  "labels that are not 0, 1, ...",
  "series with a mask",
  *(case for case in CASES if "table" in case),
]


def unknown(case, inputs):
  """Returns inputs of 3 examples whose last two are unknown to the run."""
  x, label = inputs["x"][:3].copy(), np.int32([5, 99, -5])
  match case:
    case "labels that are not 0, 1, ...":
      return {"x": x, "z": inputs["z"][:3], "label": label}
    case "floats":
      x[1, 2, 3], x[2, 0, 0] = np.nan, -np.inf
    case "series with a mask":
      x[1, 2], x[2, 3] = np.nan, np.inf
      mask = np.ones_like(x)
      x[0, 5], mask[0, 5] = np.nan, 0  # was not observed, so its value does not matter
      return {"x": x, "mask": mask}
    case "table":
      x[1, 1], x[2, 2] = np.nan, np.nan
    case "table with means for gaps":
      x[0], x[1, 1], x[2, 2] = np.nan, 3, 0.5
    case "table with masked gaps":
      x[0], x[1, 1], x[2, 0] = np.nan, -1, np.inf
  return {"x": x}


@pytest.mark.parametrize("form", ["jax", "onnx"])
@pytest.mark.parametrize("case", UNKNOWN)
def test_results_of_unknown_inputs_are_nan(case, form):
  make, dtype = CASES[case]
  run = make()
  known = examples.checked(run, examples.drawn(run), dtype, "random examples")
  inputs = unknown(case, known.inputs)
  for part in parts.parts_of(run, dtype):
    if {*part.inputs} <= {*inputs}:
      if form == "onnx":
        found = onnx_files.call(onnx_convert.convert(part), [inputs[name] for name in part.inputs])
      else:
        found = np.asarray(jax.jit(part.function)(*(inputs[name] for name in part.inputs)))
      assert np.isfinite(found[0]).all(), part.name
      assert np.isnan(found[1:]).all(), part.name


@pytest.mark.parametrize(
  ("run", "dtype", "message"),
  [
    (made(), "float64", "input='float64': must be one of"),
    (made(), "int32", "trained on bytes or floats"),
    (made(scaling=Scaling("uint16", 0.0, 60_000.0, 65_535)), "uint8", "60000; use input='int32'"),
    (table("mean"), "uint8", "trained on a table"),
    (
      made(standardisation=QuantileScaling(np.zeros((2, 1), np.float32), np.ones(1, bool))),
      "float32",
      "scale='quantile'",
    ),
  ],
)
def test_what_cannot_be_exported_is_refused(run, dtype, message):
  with pytest.raises(errors.UserError, match=message):
    parts.parts_of(run, dtype)
