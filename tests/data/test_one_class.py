import numpy as np
import pytest

from ae_jax import data, errors

EXAMPLES = np.arange(24, dtype=np.float32).reshape(24, 1, 1) / 24
MINUS = np.where(np.arange(24) % 3 == 0, -1, 1)


@pytest.fixture
def load(tmp_path):
  """A function that stores arrays and loads them."""

  def stored(one_class=None, placement="memory", **arrays):
    np.savez(tmp_path / "data.npz", **arrays)
    return data.load("npz", str(tmp_path / "data.npz"), "unit", one_class, placement)

  return stored


@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_the_label_minus_one_is_a_label_where_an_example_has_it(load, placement):
  halves = {"x_train": EXAMPLES, "y_train": MINUS, "x_test": EXAMPLES, "y_test": MINUS}
  found = load(-1, placement, **halves)
  np.testing.assert_array_equal(found.train[:][..., 0], EXAMPLES[MINUS == -1])
  np.testing.assert_array_equal(found.anomalous, MINUS == 1)
  assert found.one_class == -1
  everything = load(None, placement, **halves)
  assert len(everything.train) == 24
  assert (everything.anomalous, everything.one_class, everything.remarks) == (None, None, ())


@pytest.mark.parametrize("labels", [None, MINUS + 1, MINUS.astype(float), MINUS.astype(str)])
def test_minus_one_is_all_labels_where_no_example_has_it_and_that_is_said(load, labels):
  given = {} if labels is None else {"y_train": labels}
  found = load(-1, x_train=EXAMPLES, **given)
  assert len(found.train) == 20
  assert (found.anomalous, found.one_class) == (None, None)
  assert found.remarks == ("config.data.one_class=-1: no example has this label, so examples of all labels are used",)


def test_minus_one_in_one_half_alone_is_a_label(load):
  with pytest.raises(errors.UserError, match=r"one_class=-1: no train example of .* has this label; it has 1"):
    load(-1, x_train=EXAMPLES, y_train=np.ones(24, int), x_test=EXAMPLES, y_test=MINUS)


@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_training_examples_without_labels_are_all_of_the_class(load, placement):
  found = load(1, placement, x_train=EXAMPLES, x_test=EXAMPLES, y_test=MINUS)
  assert len(found.train) == 24
  assert found.train_labels is None
  np.testing.assert_array_equal(found.anomalous, MINUS == -1)
  (said,) = found.remarks
  assert said.endswith(
    "have no labels, so all 24 are taken to have this one; the test half has 8 examples of other labels"
  )


def test_the_messages_about_missing_labels_do_not_send_the_user_in_a_circle(load):
  """Neither advises what the other refuses."""
  from ae_jax.evaluators import anomaly

  with pytest.raises(errors.UserError) as first:
    anomaly.EVALUATOR.check(None, load(None, x_train=EXAMPLES))
  assert "config.data.one_class" in str(first.value)
  assert "labels of the test examples" in str(first.value)
  with pytest.raises(errors.UserError) as second:
    load(1, x_train=EXAMPLES)
  assert "no labels of its test examples; add them, or leave out" in str(second.value)
  assert "the evaluator 'anomaly'" in str(second.value)


@pytest.mark.parametrize(("labels", "left_out"), [(MINUS, 6), (np.ones(24, int), 0)])
def test_what_is_left_out_is_said_with_its_number(load, labels, left_out):
  found = load(1, x_train=EXAMPLES, y_train=labels)
  assert 20 - len(found.train) == left_out
  assert len(found.remarks) == (left_out > 0)
  for said in found.remarks:
    assert said.startswith("config.data.one_class=1: 6 training examples of other labels left out; ")
    assert said.endswith("; the test half has 2 examples of other labels")
