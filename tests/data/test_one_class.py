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
  arrays = {"x_train": EXAMPLES, "y_train": MINUS, "x_test": EXAMPLES, "y_test": MINUS}
  dataset = load(-1, placement, **arrays)
  np.testing.assert_array_equal(dataset.train[:][..., 0], EXAMPLES[MINUS == -1])
  np.testing.assert_array_equal(dataset.anomalous, MINUS == 1)
  assert dataset.one_class == -1
  everything = load(None, placement, **arrays)
  assert len(everything.train) == 24
  assert (everything.anomalous, everything.one_class, everything.remarks) == (None, None, ())


@pytest.mark.parametrize("labels", [None, MINUS + 1, MINUS / 2, np.where(MINUS > 0, "a", "b")])
def test_label_minus_one_that_no_example_has_selects_all_with_a_remark(load, labels):
  given = {} if labels is None else {"y_train": labels}
  dataset = load(-1, x_train=EXAMPLES, **given)
  assert len(dataset.train) == 20
  assert (dataset.anomalous, dataset.one_class) == (None, None)
  assert dataset.remarks[-1] == (
    "config.data.one_class=-1: no example has this label, so examples of all labels are used"
  )


def test_label_minus_one_in_one_split_only_is_refused(load):
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


@pytest.mark.parametrize(("labels", "dropped"), [(MINUS, 8), (np.ones(24, int), 0)])
def test_number_of_dropped_examples_is_reported(load, labels, dropped):
  dataset = load(1, x_train=EXAMPLES, y_train=labels, x_test=EXAMPLES, y_test=MINUS)
  assert 24 - len(dataset.train) == dropped
  assert len(dataset.remarks) == (dropped > 0)
  for remark in dataset.remarks:
    assert remark.startswith("config.data.one_class=1: dropped 8 training examples of other labels; ")
    assert remark.endswith("; the test set has 8 examples of other labels")


@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_without_a_test_set_no_example_of_another_class_is_lost(load, placement):
  labels = np.arange(24) % 8 == 0  # 3 anomalies
  everything = load(None, placement, x_train=EXAMPLES, y_train=labels)
  dataset = load(0, placement, x_train=EXAMPLES, y_train=labels)
  assert dataset.anomalous.sum() == 3
  both = np.concatenate([dataset.train[:], dataset.test]).ravel()
  np.testing.assert_array_equal(np.sort(both), EXAMPLES.ravel())
  normal_tested = dataset.test[~dataset.anomalous]  # the examples that are drawn without one_class
  np.testing.assert_array_equal(normal_tested, everything.test[everything.test_labels == 0])
  (remark,) = dataset.remarks
  assert f"the test set has all 3 examples of other classes, and {len(normal_tested)} of this class" in remark


def test_some_of_a_rare_class_is_tested_even_if_none_was_drawn(load):
  drawn = load(None, x_train=EXAMPLES).test.ravel()
  rare = np.flatnonzero(~np.isin(EXAMPLES.ravel(), drawn))[:3]
  labels = np.ones(24, int)
  labels[rare] = 0
  dataset = load(0, x_train=EXAMPLES, y_train=labels)
  assert (len(dataset.train), (~dataset.anomalous).sum()) == (2, 1)
  labels[rare[0]] = 1
  with pytest.raises(errors.UserError, match="has only 2 examples of this class; at least 3"):
    load(0, x_train=EXAMPLES, y_train=labels)


NAMES = np.array(["good", "bent", "broken large"])[np.arange(24) % 3]


@pytest.mark.parametrize("labels", [NAMES, NAMES.astype("S")])
def test_a_class_is_chosen_by_its_name_or_its_label(load, labels):
  arrays = {"x_train": EXAMPLES, "y_train": labels}
  named, numbered = load("good", **arrays), load(2, **arrays)
  assert named.class_names == ("bent", "broken large", "good")
  assert (named.one_class, named.one_class_name) == (2, "2 (good)")
  assert named.fingerprints == numbered.fingerprints
  with pytest.raises(errors.UserError, match=r"'god': is not a class .*did you mean 'good'\? known: bent, broken"):
    load("god", **arrays)
  with pytest.raises(errors.UserError, match=r"=3: no training example .* known labels: 0 \(bent\), 1 \(broken large"):
    load(3, **arrays)


def test_a_number_as_text_means_the_label_and_names_need_named_classes(load):
  arrays = {"x_train": EXAMPLES, "y_train": MINUS}
  assert load("-1", **arrays).one_class == -1
  with pytest.raises(errors.UserError, match=r"'good': is not a class .*; the classes have no names"):
    load("good", **arrays)
  with pytest.raises(errors.UserError, match="have no labels"):
    load("good", x_train=EXAMPLES)
  mixed = np.array(["10", "ant", "bee"])[np.arange(24) % 3]
  assert load(10, x_train=EXAMPLES, y_train=mixed).one_class_name == "0 (10)"
