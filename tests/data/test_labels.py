import numpy as np
import pytest

from ae_jax import data, errors
from ae_jax.data import labels

EXPECTED = np.arange(24) % 3
ONE_HOT = np.eye(3)[EXPECTED]
WORDS = np.array(["ant", "bee", "cat"])


@pytest.mark.parametrize(
  "stored",
  [
    EXPECTED.astype(np.uint8),
    EXPECTED.astype(np.float32),
    EXPECTED[:, None],
    EXPECTED[:, None].astype(float),
    ONE_HOT,
    ONE_HOT.astype(bool),
    ONE_HOT.astype(np.int8),
    EXPECTED.astype(str),
    WORDS[EXPECTED],
    WORDS.astype("S")[EXPECTED],
    WORDS[EXPECTED][:, None],
  ],
)
def test_every_form_of_labels_gives_the_same_integers(stored):
  converted, names, notes = labels.as_integers({"y": stored}, "here")
  np.testing.assert_array_equal(converted["y"], EXPECTED)
  assert np.issubdtype(converted["y"].dtype, np.integer)
  assert names == (tuple(WORDS) if stored.dtype.kind in "US" and "ant" in str(stored) else None)
  assert notes == []


def test_booleans_are_0_and_1_and_integers_keep_their_values():
  stored = {"a": np.array([True, False]), "b": np.array([-3, 70])}
  converted, names, _ = labels.as_integers(stored, "here")
  assert {key: values.tolist() for key, values in converted.items()} == {"a": [1, 0], "b": [-3, 70]}
  assert names is None


def test_names_are_numbered_over_all_splits():
  converted, names, _ = labels.as_integers({"a": np.array(["b", "d"]), "b": np.array(["a", "b"])}, "here")
  assert (converted["a"].tolist(), converted["b"].tolist(), names) == ([1, 2], [0, 1], ("a", "b", "d"))


def test_fractions_are_no_labels_and_are_named():
  converted, names, notes = labels.as_integers({"price": np.array([0.5, 2.0])}, "here")
  assert (converted["price"].tolist(), names) == ([0.5, 2.0], None)
  assert notes == ["here: `price` contains numbers with fractions, so it is not used as class labels"]


@pytest.mark.parametrize(
  ("stored", "message"),
  [
    (
      {"y": np.ones((4, 3))},
      r"`y` has dtype float64 and shape \[4, 3\], so its rows must be one-hot; .*--config\.data\.x=NAME",
    ),
    ({"y": np.zeros((4, 2, 2), int)}, r"`y` has dtype int64 and shape \[4, 2, 2\], so it cannot be class labels"),
    ({"y": np.zeros(4, complex)}, r"`y` has dtype complex128 and shape \[4\], so it cannot be class labels"),
    ({"y": np.zeros((4, 1001))}, "so it cannot be class labels"),
    ({"y": np.array(["a" * 300])}, "so it cannot be class labels"),
    ({"y": np.array([b"\xff\xfe"])}, "`y` contains bytes that are not UTF-8"),
    ({"y": np.array(["a"]), "z": np.array([1])}, "`y` contains strings, but `z` has dtype int64"),
    ({"y": np.array([f"{n}.png" for n in range(1001)])}, "1,001 different strings; the limit is 1,000 classes. If"),
  ],
)
def test_other_arrays_are_refused_with_dtype_and_shape(stored, message):
  with pytest.raises(errors.UserError, match=message):
    labels.as_integers(stored, "here")


def test_whole_numbers_are_labels_unless_two_names_are_the_same_number():
  assert labels.numbered(["10", "9"]) == ({"10": 10, "9": 9}, None)
  assert labels.numbered(["1", "01"]) == ({"01": 0, "1": 1}, ("01", "1"))


@pytest.mark.parametrize("label", ["cat", np.array(["cat", "cat"]), 2])
def test_a_label_of_a_batch_may_be_a_class_name(label):
  np.testing.assert_array_equal(data.class_indices(label, (1, 2), 2, tuple(WORDS)), [1, 1])


def test_an_unknown_class_name_of_a_batch_is_refused():
  with pytest.raises(errors.UserError, match="label='cot': is not a class of this run; did you mean 'cat'"):
    data.class_indices("cot", (1, 2), 2, tuple(WORDS))
  with pytest.raises(errors.UserError, match=r"label=0: is not a training label; known labels: 1 \(bee\), 2 \(cat\)"):
    data.class_indices("ant", (1, 2), 2, tuple(WORDS))


def test_a_class_in_words_has_its_name_or_the_word_class():
  assert [labels.class_in_words(label, ("good", "7")) for label in (0, 1, 2)] == ["good", "7", "class 2"]
  assert labels.class_in_words(3, None) == "class 3"
