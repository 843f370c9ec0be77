"""Figures of test examples mark the values that are missing in the data."""

import dataclasses

import numpy as np
import pytest
from made_contexts import context_of, images

from ae_jax.data import schema
from ae_jax.evaluators import shown

pytestmark = pytest.mark.quick_compile
CHOSEN = np.array([2, 0])


def masked(context, mask):
  return dataclasses.replace(context, dataset=dataclasses.replace(context.dataset, columns={"test": {"mask": mask}}))


def test_rows_of_a_table_have_the_mask_and_an_explanation_of_completed_rows():
  made = context_of(images(20, shape=(3,)), images(5, shape=(3,)))
  mask = np.random.default_rng(0).random((5, 3)) > 0.5
  figure = shown.example_rows(masked(made, mask), "title", CHOSEN)
  np.testing.assert_array_equal(figure.observed, mask[CHOSEN])
  examples, words = shown.marked(masked(made, mask), CHOSEN)
  np.testing.assert_array_equal(np.isnan(examples), ~mask[CHOSEN])
  assert words == "; values that are missing in the data are left out"
  assert shown.marked(made, CHOSEN)[1] == ""
  assert figure.title == "title; completed: the observed values, and reconstructions of the missing ones"
  assert shown.example_rows(masked(made, mask | True), "title", CHOSEN).observed is None
  assert shown.example_rows(made, "title", CHOSEN).title == "title"


def test_pairs_are_inputs_and_targets():
  made = context_of(images(20), images(5))
  dataset = dataclasses.replace(made.dataset, columns={"test": {"target": images(5, seed=1)}})
  rows = shown.example_rows(dataclasses.replace(made, dataset=dataset), "title", CHOSEN).rows
  assert [*rows] == ["inputs", "targets", "reconstructions"]
  np.testing.assert_array_equal(rows["inputs"], made.test[CHOSEN])


def test_columns_with_indicators_are_missing_where_these_are_one():
  columns = (schema.Column("a", "numeric", indicator=True), schema.Column("b", "categorical", words=("x",)))
  fitted = schema.Schema(columns, missing="mean")
  test = np.float32([[0.5, 1, 0, 1], [0.2, 0, 1, 0], [0.1, 1, 0, 0]])  # a, b=x, b=(other), a missing
  made = context_of(images(20, shape=(4,)), test)
  made = dataclasses.replace(made, dataset=dataclasses.replace(made.dataset, schema=fitted))
  figure = shown.example_rows(made, "title", CHOSEN)
  np.testing.assert_array_equal(figure.observed, [[True] * 4, [False, True, True, True]])
  assert "completed" not in figure.title
  vars(made)["train"], vars(made)["_train_rows"] = test, np.arange(3)
  np.testing.assert_array_equal(np.isnan(shown.marked(made, CHOSEN, "train")[0]), ~figure.observed)


def test_masks_of_training_examples_are_those_of_their_rows():
  made, mask = context_of(images(20), images(5)), np.random.default_rng(0).random((20, 4, 4, 1)) > 0.5
  made = dataclasses.replace(made, dataset=dataclasses.replace(made.dataset, columns={"train": {"mask": mask}}))
  vars(made)["_train_rows"] = np.array([7, 3, 9])
  np.testing.assert_array_equal(made.mask_of("train", [2, 0]), mask[[9, 7]])
  assert made.mask_of("test", [0]) is None


def test_missing_pixels_are_hatched_in_the_test_images_only():
  made = context_of(images(20), images(5))
  mask = np.ones((5, 4, 4, 1), bool)
  mask[2, :2] = False
  figure = shown.example_rows(masked(made, mask), "title", CHOSEN)
  first, *others = figure.rows.values()
  np.testing.assert_array_equal(first[0, 2:], made.test[2, 2:])
  np.testing.assert_array_equal(first[0, :2, :, 0], [[1, 1, 0, 0], [1, 0, 0, 1]])
  np.testing.assert_array_equal(first[1], made.test[0])
  np.testing.assert_array_equal(others[0], made.reconstructions[CHOSEN])
  assert figure.title.endswith("hatched: missing in the data")
  np.testing.assert_array_equal(shown.marked(masked(made, mask), CHOSEN)[0], first)
