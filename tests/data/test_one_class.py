import numpy as np
import pytest
from conftest import config_of

from ae_jax import data, errors, models

EXAMPLES = np.arange(24, dtype=np.float32).reshape(24, 1, 1) / 24
MINUS = np.where(np.arange(24) % 3 == 0, -1, 1)


@pytest.fixture
def load(tmp_path):
  """Returns a function that saves arrays and loads them."""

  def save_and_load(one_class=None, placement="memory", **arrays):
    np.savez(tmp_path / "data.npz", **arrays)
    return data.load("npz", str(tmp_path / "data.npz"), "unit", one_class, placement)

  return save_and_load


@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_label_minus_one_selects_a_class_if_an_example_has_it(load, placement):
  halves = {"x_train": EXAMPLES, "y_train": MINUS, "x_test": EXAMPLES, "y_test": MINUS}
  dataset = load(-1, placement, **halves)
  np.testing.assert_array_equal(dataset.train[:][..., 0], EXAMPLES[MINUS == -1])
  np.testing.assert_array_equal(dataset.anomalous, MINUS == 1)
  assert dataset.one_class == -1
  everything = load(None, placement, **halves)
  assert len(everything.train) == 24
  assert (everything.anomalous, everything.one_class, everything.remarks) == (None, None, ())


@pytest.mark.parametrize("labels", [None, MINUS + 1, MINUS.astype(float), MINUS.astype(str)])
def test_label_minus_one_that_no_example_has_selects_all_with_a_remark(load, labels):
  given = {} if labels is None else {"y_train": labels}
  dataset = load(-1, x_train=EXAMPLES, **given)
  assert len(dataset.train) == 20
  assert (dataset.anomalous, dataset.one_class) == (None, None)
  assert dataset.remarks == ("config.data.one_class=-1: no example has this label, so examples of all labels are used",)


def test_label_minus_one_in_one_half_only_is_refused(load):
  with pytest.raises(
    errors.UserError, match=r"one_class=-1: no training example of .* has this label; known labels: 1"
  ):
    load(-1, x_train=EXAMPLES, y_train=np.ones(24, int), x_test=EXAMPLES, y_test=MINUS)


@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_unlabelled_training_examples_are_all_kept(load, placement):
  dataset = load(1, placement, x_train=EXAMPLES, x_test=EXAMPLES, y_test=MINUS)
  assert len(dataset.train) == 24
  assert dataset.train_labels is None
  np.testing.assert_array_equal(dataset.anomalous, MINUS == -1)
  (remark,) = dataset.remarks
  assert remark.endswith(
    "have no labels, so all 24 are assumed to have this label; the test set has 8 examples of other labels"
  )


def test_error_messages_about_missing_labels_do_not_contradict_each_other(load):
  """Neither advises what the other refuses."""
  from ae_jax.evaluators import anomaly

  model = models.build(shape=(1, 1, 1), **config_of("dense", "digits").model)
  with pytest.raises(errors.UserError) as first:
    anomaly.EVALUATOR.check(model, load(None, x_train=EXAMPLES))
  assert "config.data.one_class" in str(first.value)
  assert "labels of the test examples" in str(first.value)
  with pytest.raises(errors.UserError) as second:
    load(1, x_train=EXAMPLES)
  assert "have no labels; add them, or remove config.data.one_class" in str(second.value)
  assert "the evaluator 'anomaly'" in str(second.value)


@pytest.mark.parametrize(("labels", "dropped"), [(MINUS, 6), (np.ones(24, int), 0)])
def test_number_of_dropped_examples_is_reported(load, labels, dropped):
  dataset = load(1, x_train=EXAMPLES, y_train=labels)
  assert 20 - len(dataset.train) == dropped
  assert len(dataset.remarks) == (dropped > 0)
  for remark in dataset.remarks:
    assert remark.startswith("config.data.one_class=1: dropped 6 training examples of other labels; ")
    assert remark.endswith("; the test set has 2 examples of other labels")
