"""Labels of new examples: where they are found, their form, and which of them are anomalies."""

import numpy as np
import pandas as pd
import pytest

from ae_jax import errors
from ae_jax.data import lazy_arrays, new_labels

WORDS = np.array(["bee", "ant", "bee"])


def stored(**shapes):
  arrays = {name: np.zeros(shape) for name, shape in shapes.items()}
  return {name: lazy_arrays.LazyArray(a.shape, a.dtype, a.__getitem__, a.copy) for name, a in arrays.items()}


@pytest.mark.parametrize(
  ("names", "examples", "y", "expected"),
  [
    (("x_test", "y_test", "y_train"), "x_test", "", "y_test"),
    (("x", "y"), "x", "", "y"),
    (("test_images", "test_labels"), "test_images", "", "test_labels"),
    (("photos", "y", "kind"), "photos", "kind", "kind"),
    (("photos", "kind"), "photos", "", ""),
    (("x",), "x", "", ""),
  ],
)
def test_the_array_of_labels_belongs_to_the_examples(names, examples, y, expected):
  shapes = {name: (3, 2) if name == examples else (3,) for name in names}
  assert new_labels.name_of_array(stored(**shapes), examples, {"y": y}) == expected


def test_an_array_of_another_length_has_no_labels():
  assert new_labels.name_of_array(stored(x=(3, 2), y=(4,)), "x", {"y": ""}) == ""


def test_classes_of_images_are_their_folders_below_the_folder_of_a_split(tmp_path):
  files = [str(tmp_path / name) for name in ("ant/1.png", "test/bee/deep/2.png", "Train/3.png")]
  assert list(new_labels.of_folder(files, tmp_path).values()) == ["ant", "bee", "Train"]
  assert new_labels.of_folder([*files, str(tmp_path / "4.png")], tmp_path) == {}


@pytest.mark.parametrize("values", [WORDS, WORDS.astype("S"), WORDS[:, None], pd.Series(WORDS, name="kind")])
def test_names_of_classes_stay_names(values):
  # as_integers numbers the words of these examples, which may be fewer than those of the run
  assert new_labels.in_run(values, ("ant", "bee", "cat"), "here").tolist() == ["bee", "ant", "bee"]


def test_numbers_are_labels_unless_the_classes_of_the_run_have_names():
  assert new_labels.in_run(np.array(["3", "7"]), None, "here").tolist() == [3, 7]
  assert new_labels.in_run(np.array(["3", "7"]), ("3", "7", "ant"), "here").tolist() == ["3", "7"]
  assert new_labels.in_run(np.array([1.0, 0.0]), ("3", "7"), "here").tolist() == [1, 0]
  assert new_labels.in_run(np.eye(2), None, "here").tolist() == [0, 1]


@pytest.mark.parametrize("values", [np.array([0.5, 1]), pd.Series(["ant", None], name="kind")])
def test_fractions_and_missing_labels_are_refused(values):
  with pytest.raises(errors.UserError, match=r"numbers with fractions|'kind' has 1 missing value"):
    new_labels.in_run(values, None, "here")


@pytest.mark.parametrize(
  ("values", "class_names", "normal", "expected", "sentence"),
  [
    ([0, 1, 1], None, None, [False, True, True], "normal class is 0; anomalies: 2 examples of other classes"),
    ([3, 1, 1], None, 3, [False, True, True], "normal class is 3;"),
    ([3, 1, 1], None, "3", [False, True, True], "normal class is 3;"),
    ([0, 1, 1], ("good", "bad"), "bad", [True, False, False], "normal class is bad; anomalies: 1 example of"),
    ([0, 1, 1], ("good", "bad"), 1, [True, False, False], "normal class is bad;"),
    (["new", "bad", "bad"], ("good", "bad"), 1, [True, False, False], "normal class is bad;"),
    ([3, 1, 1], None, None, None, "unknown; set --normal to one of the labels 1, 3"),
    ([3, 1, 1], None, -1, None, "unknown; set --normal"),
    ([1, 1, 1], None, 1, None, "all 3 examples are of the normal class 1"),
    ([1, 1, 1], None, 2, None, "all 3 examples are of other classes than 2"),
  ],
)
def test_examples_of_other_classes_than_the_normal_one_are_anomalies(values, class_names, normal, expected, sentence):
  found, text = new_labels.anomalous(np.array(values), class_names, normal)
  assert (None if found is None else found.tolist()) == expected
  assert sentence in text
