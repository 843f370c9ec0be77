"""Test and validation sets: where they are found, and how they are drawn from the training examples."""

import numpy as np
import pytest
from PIL import Image

from ae_jax import config as configs
from ae_jax import data, errors
from ae_jax.data import draws

X = np.random.default_rng(0).integers(0, 256, (120, 4, 5), np.uint8)
LABELS = np.repeat([3, 5, 8, 9], [70, 40, 9, 1])


def earlier_fifth(count):
  """Returns the mask of the test examples of earlier versions."""
  return np.random.default_rng(0).permutation(count) < max(1, min(count // 5, 10_000))


def saved(folder, **arrays):
  np.savez(folder / "a.npz", **arrays)
  return str(folder / "a.npz")


def load(path, **options):
  return data.load("npz", path, "unit", **options)


def counts(dataset):
  """Returns the numbers of training, validation and test examples."""
  return tuple(0 if split is None else len(split) for split in (dataset.train, dataset.validation, dataset.test))


def images(folder, **sizes):
  for split, count in sizes.items():
    (folder / split).mkdir()
    for number in range(count):
      Image.fromarray(X[number]).save(folder / split / f"{number}.png")
  return data.load("folder", str(folder), "unit")


@pytest.mark.parametrize(
  ("sizes", "expected"),
  [
    ({"train": 20, "val": 6, "test": 5}, (20, 6, 5)),
    ({"train": 20, "valid": 6, "test": 5}, (20, 6, 5)),
    ({"Train": 20, "Test": 5, "Validation": 6}, (20, 6, 5)),
    ({"Train": 20, "Test": 5}, (20, 0, 5)),
    ({"train": 20, "val": 6}, (16, 6, 4)),
  ],
)
def test_folders_of_splits_are_found(tmp_path, sizes, expected):
  dataset = images(tmp_path, **sizes)
  assert counts(dataset) == expected
  assert not any("not read" in remark for remark in dataset.remarks)
  drawn = [remark for remark in dataset.remarks if "the folder val is the validation set" in remark]
  assert len(drawn) == (expected[0] == 16)


def test_two_validation_folders_are_refused_unless_they_are_not_read(tmp_path):
  with pytest.raises(errors.UserError, match="contains both `val` and `valid`"):
    images(tmp_path, train=9, val=2, valid=2, test=2)
  assert counts(data.load("folder", str(tmp_path), "unit", read_validation=False)) == (9, 0, 2)


@pytest.mark.parametrize(
  ("x", "y", "train", "labels", "test"),
  [
    ("x_val", "y_val", "x_train", "y_train", "x_test"),
    ("x_valid", "y_valid", "x_train", "y_train", "x_test"),
    ("x_validation", "y_validation", "x_train", "y_train", "x_test"),
    ("val_images", "val_labels", "train_images", "train_labels", "test_images"),
  ],
)
def test_validation_arrays_are_found(tmp_path, x, y, train, labels, test):
  arrays = {train: X, labels: LABELS, x: X[:7], y: LABELS[:7]}
  dataset = load(saved(tmp_path, **arrays, **{test: X[:9]}))
  assert counts(dataset) == (120, 7, 9)
  np.testing.assert_array_equal(dataset.validation[..., 0], X[:7])
  np.testing.assert_array_equal(dataset.validation_labels, LABELS[:7])
  without_test = load(saved(tmp_path, **arrays))
  assert counts(without_test) == (96, 7, 24)
  assert f"`{x}` is the validation set; there is no test set" in without_test.remarks[0]
  for name, values in arrays.items():
    np.save(tmp_path / f"{name}.npy", values)
  (tmp_path / "a.npz").unlink()
  assert counts(data.load("npy", str(tmp_path), "unit")) == (96, 7, 24)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("sizes", [(70, 40, 9, 1), (1, 1, 2, 30), (33,), (5,) * 40])
def test_stratified_draw_holds_the_share_of_each_class_and_empties_none(sizes, share):
  labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)), sizes))
  mask = draws._stratified({"train": labels, "train_labels": labels}, share, "test", "here")
  selected = np.bincount(labels[mask], minlength=len(sizes))
  drawn = int(share * len(labels)) / len(labels)
  assert (np.abs(selected - drawn * np.array(sizes)) < 1).all()
  assert (selected < sizes).all()
  assert 0 < mask.sum() <= share * len(labels)


def test_no_group_is_on_two_sides(tmp_path):
  patients = np.arange(120) // 8  # the first eight have only the label 3
  path = saved(tmp_path, x_train=X, y_train=LABELS, patient=patients)
  for options in ({}, {"one_class": 3}):
    dataset = load(path, group="patient", validation=0.2, **options)
    groups = [set(patients[dataset.split.rows[split]]) for split in ("test", "validation")]
    pixels = {image.tobytes(): patient for image, patient in zip(X, patients, strict=True)}
    groups.append({pixels[image.tobytes()] for image in dataset.train[..., 0]})
    assert not groups[0] & groups[1]
    assert not groups[2] & (groups[0] | groups[1])
    assert min(counts(dataset)) > 0
    assert not any("not read" in remark for remark in dataset.remarks)


def test_groups_that_leave_no_training_examples_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match=r"each group of config\.data\.group has"):
    load(saved(tmp_path, x_train=X, y_train=LABELS, g=np.arange(120) % 8), group="g", one_class=3)
  with pytest.raises(errors.UserError, match="all in one group"):
    load(saved(tmp_path, x_train=X, g=np.zeros(120)), group="g")
  with pytest.raises(errors.UserError, match="expected one group per example"):
    load(saved(tmp_path, x_train=X, g=np.zeros(3)), group="g")


def test_division_by_time_takes_the_last_examples(tmp_path):
  dataset = load(saved(tmp_path, x_train=X), split="time", test=0.3, validation=0.1)
  assert counts(dataset) == (76, 8, 36)
  np.testing.assert_array_equal(dataset.split.rows["test"], np.arange(84, 120))
  np.testing.assert_array_equal(dataset.split.rows["validation"], np.arange(76, 84))


def test_auto_is_stratified_with_class_labels_and_random_without(tmp_path):
  for labels, rule in [(LABELS, "stratified"), (np.arange(120), "random"), (LABELS + 0.5, "random"), (None, "random")]:
    dataset = load(saved(tmp_path, x_train=X, **({} if labels is None else {"y_train": labels})))
    assert (dataset.split.rule, *counts(dataset)) == (rule, 96, 0, 24)


def test_earlier_config_has_the_earlier_division(tmp_path):
  path = saved(tmp_path, x_train=X, y_train=LABELS, x_val=X[:5])
  stored = {"data": {"name": "npz", "path": path, "range": "unit", "one_class": None, "placement": "auto"}}
  dataset = data.load(**configs.from_json(stored).data)
  held_out = earlier_fifth(120)
  np.testing.assert_array_equal(dataset.test[..., 0], X[held_out])
  np.testing.assert_array_equal(dataset.train[..., 0], X[~held_out])
  assert dataset.validation is None
  assert "validation_fingerprint" not in dataset.fingerprints
  assert any("not read: x_val" in remark for remark in dataset.remarks)


@pytest.mark.parametrize("count", [3, 4, 5, 14, 15, 999, 1000, 50_000, 50_010])
def test_random_draw_is_that_of_earlier_versions(count):
  mask = draws._random({"train": np.zeros(count)}, draws.TEST_SHARE, "test", "here")
  np.testing.assert_array_equal(mask, earlier_fifth(count))


@pytest.mark.parametrize("options", [{"validation": 0.1}, {"validation": 0.1, "one_class": 3}, {"split": "time"}])
def test_streaming_divides_like_memory(tmp_path, options):
  path = saved(tmp_path, x_train=X, y_train=LABELS)
  memory, stream = (load(path, placement=placement, **options) for placement in ("memory", "stream"))
  assert stream.streams
  assert isinstance(stream.validation, np.ndarray) or "validation" not in options
  assert memory.fingerprints == stream.fingerprints
  assert memory.split.as_json() == stream.split.as_json()


def test_drawn_validation_set_of_one_class_is_normal_and_a_given_one_is_kept(tmp_path):
  drawn = load(saved(tmp_path, x_train=X, y_train=LABELS), one_class=3, validation=0.25)
  assert set(drawn.validation_labels) == set(drawn.train_labels) == {3}
  assert counts(drawn) == (42, 14, 64)  # all 50 others and a fifth of 70 are test examples
  arrays = {"x_train": X, "y_train": LABELS, "x_test": X, "y_test": LABELS, "x_val": X[60:80]}
  given = load(saved(tmp_path, **arrays, y_val=LABELS[60:80]), one_class=3)
  assert set(given.validation_labels) == {3, 5}
  assert given.on_validation.anomalous.sum() == 10
  unlabelled = load(saved(tmp_path, **arrays), one_class=3)
  assert not unlabelled.on_validation.anomalous.any()
  with pytest.raises(errors.UserError, match=r"no validation example of .* has this label"):
    load(saved(tmp_path, **arrays, y_val=np.zeros(20, int)), one_class=3)


def test_record_has_windows_of_three_parts(tmp_path):
  np.save(tmp_path / "r.npy", np.arange(1000.0).reshape(-1, 1))
  dataset = data.load("npy", str(tmp_path / "r.npy"), "real", window=10, validation=0.1)
  assert counts(dataset) == (72, 8, 20)
  assert (dataset.validation[0, 0, 0], dataset.test[0, 0, 0]) == (720, 800)
  assert dataset.split.as_json() == {"rule": "time", "test": {"share": 0.2}, "validation": {"share": 0.1}}
  with pytest.raises(errors.UserError, match="only be split by time"):
    data.load("npy", str(tmp_path / "r.npy"), "real", window=10, split="stratified")


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"split": "strata"}, "did you mean 'stratified'"),
    ({"split": "group"}, "needs config.data.group"),
    ({"group": "y", "split": "time"}, "config.data.group='y': is not used with config.data.split='time'"),
    ({"group": "patient"}, "config.data.group='patient': .* has no array of this name"),
    ({"test": 1.0}, "config.data.test=1.0: must be a fraction in \\(0, 1\\)"),
    ({"validation": 1.0}, "config.data.validation=1.0: must be 0"),
    ({"validation": 0.2}, "config.data.validation=0.2: .* already has 5 validation examples"),
    ({"split": "stratified"}, "has no integer training labels, or no label occurs twice"),
  ],
)
def test_wrong_keys_are_refused(tmp_path, options, message):
  with pytest.raises(errors.UserError, match=message):
    load(saved(tmp_path, x_train=X, x_val=X[:5]), **options)


@pytest.mark.parametrize("options", [{"test": 0.3}, {"split": "time"}])
def test_keys_that_nothing_uses_are_refused(options):
  with pytest.raises(errors.UserError, match=r"remove (this key|these keys)"):
    data.load("digits", "", "unit", **options)


def test_digits_get_a_stratified_validation_set():
  dataset = data.load("digits", "", "unit", validation=0.1)
  assert counts(dataset) == (1295, 143, 359)
  assert np.ptp(np.bincount(dataset.validation_labels)) <= 1
