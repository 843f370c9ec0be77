"""Errors of the columns of a table (`evaluators.columns`): each column has its own result, whatever its name."""

import types

import made_contexts
import numpy as np
import pytest

from ae_jax import data
from ae_jax.data import schema
from ae_jax.evaluators import columns, results
from ae_jax.evaluators import context as contexts
from ae_jax.runs import metric_names


def test_columns_whose_names_differ_in_a_slash_have_separate_results():
  names = ("rate 1/min", "rate 1_min", "visit")
  kinds = ("numeric", "numeric", "date")
  fitted = schema.Schema(tuple(schema.Column(name, kind, spread=1.0) for name, kind in zip(names, kinds, strict=True)))
  test = np.zeros((4, 3), np.float32)
  dataset = data.Dataset("made", "real", test, test, None, None, schema=fitted)
  apply = lambda method, x, given: x + np.float32([3, 2, 1])
  context = contexts.EvalContext(types.SimpleNamespace(model=made_contexts.fake_model(), apply=apply), dataset)
  found = dict(columns.analyze(context, np.arange(4)))
  errors_of = {name: found[f"column_rmse/{metric_names.part(name)}"] for name in names}
  assert errors_of == {"rate 1/min": 3.0, "rate 1_min": 2.0, "visit": 1.0}
  assert found["error_by_column"].names == names
  collected = results.collect(1, [(f"reconstruction/{name}", value) for name, value in found.items()])
  of_dates = [name for name in collected.values if metric_names.days(name, fitted.dates)]
  assert of_dates == ["reconstruction/column_rmse/visit"]


def test_the_baseline_of_a_category_is_the_accuracy_of_the_most_frequent_training_word_on_the_test_rows():
  column = schema.Column("word", "categorical", fill=1.0, spread=0.4, words=("a", "b"))
  fitted = schema.Schema((column,))
  test = np.eye(3, dtype=np.float32)[[0, 0, 0, 1]]  # one element for each word, and one for other words
  dataset = data.Dataset("made", "real", test, test, None, None, schema=fitted)
  context = contexts.EvalContext(
    types.SimpleNamespace(model=made_contexts.fake_model(), apply=lambda method, x, given: x[::-1]), dataset
  )
  found = dict(columns.analyze(context, np.arange(4)))
  assert found["column_accuracy/word"] == 0.5
  assert found["column_accuracy_of_most_frequent/word"] == 0.25
  assert found["error_by_column"].values == pytest.approx([0.5 / 0.75])
