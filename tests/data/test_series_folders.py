"""Folders of .npy files: series of unequal lengths, and several recordings that are cut into windows."""

import numpy as np
import pytest

from ae_jax import data, errors
from ae_jax.data import series_folders

RANDOM = np.random.default_rng(0)
STEPS = (23, 9, 41, 30)


def folder(path, steps=STEPS, channels=2, **labels):
  """Saves a series of each length, whose values are 100 * its number + its steps, and the given labels."""
  path.mkdir(parents=True, exist_ok=True)
  for number, count in enumerate(steps):
    values = 100.0 * number + np.arange(count)
    np.save(path / f"s{number}.npy", np.stack([values] * channels, 1) if channels else values)
  for name, values in labels.items():
    np.save(path / f"{name}_labels.npy", values)
  return str(path)


def load(path, **options):
  return data.load("npy", path, "real", **options)


@pytest.mark.parametrize("channels", [0, 2])
def test_series_are_padded_with_zeros_to_the_longest(tmp_path, channels):
  arrays = series_folders.read(folder(tmp_path, channels=channels), 0)
  assert arrays["train"].shape == (4, 41, max(channels, 1))
  np.testing.assert_array_equal(arrays["train_lengths"], STEPS)
  for number, row in enumerate(arrays["train"][np.array([0, 3, 1])]):
    file = (0, 3, 1)[number]
    np.testing.assert_array_equal(row[: STEPS[file], 0], 100 * file + np.arange(STEPS[file]))
    assert (row[STEPS[file] :] == 0).all()


def test_sub_folders_are_the_splits_and_labels_are_read(tmp_path):
  folder(tmp_path / "train", s0=np.eye(23, dtype=int)[4], s1=np.zeros(9, int), s2=[7], s3=np.full(30, 2))
  folder(tmp_path / "test", steps=(50, 6), s0=[0], s1=[1])
  arrays = series_folders.read(str(tmp_path), 0)
  assert arrays["train"].shape == (4, 50, 2)
  assert arrays["test"].shape == (2, 50, 2)
  assert arrays["train_labels"].tolist() == [1, 0, 7, 2]
  assert arrays["test_labels"].tolist() == [0, 1]


def test_series_of_one_length_have_no_mask(tmp_path):
  dataset = load(folder(tmp_path, steps=(12,) * 6), kind="series")
  assert dataset.shape == (12, 2)
  assert (len(dataset.train), len(dataset.test)) == (5, 1)


@pytest.mark.parametrize(("window", "stride"), [(8, 3), (5, 5)])
def test_windows_never_cross_recordings_or_the_split(tmp_path, window, stride):
  path = folder(tmp_path, s0=np.eye(23, dtype=int)[2], s1=[0], s2=[3], s3=[0])
  memory, stream = (load(path, window=window, stride=stride, placement=place) for place in ("memory", "stream"))
  np.testing.assert_array_equal(stream.train[:], memory.train)
  np.testing.assert_array_equal(stream.test, memory.test)
  starts = {"train": [], "test": []}
  for number, count in enumerate(STEPS):
    border = count - count // 5
    for split, first, end in (("train", 0, border), ("test", border, count)):
      starts[split] += [100 * number + start for start in range(first, end - window + 1, stride)]
  for split, examples in (("train", memory.train), ("test", memory.test)):
    np.testing.assert_array_equal(examples[..., 0], np.array(starts[split])[:, None] + np.arange(window))
  expected = [3 if start // 100 == 2 else int(start <= 2 < start + window) for start in starts["train"]]
  np.testing.assert_array_equal(memory.train_labels, expected)
  assert memory.remarks[0].startswith("training recording: 84 steps in 4 recordings")
  captions = [f"s{start // 100}, from step {start % 100}" for start in starts["test"]]
  assert [*memory.test_captions(np.arange(len(memory.test)))] == captions


def test_folders_of_the_arrays_of_a_data_set_are_read_as_before(tmp_path):
  x = RANDOM.normal(size=(9, 6, 2))
  np.save(tmp_path / "x_train.npy", x)
  np.save(tmp_path / "x_test.npy", x[:2])
  dataset = load(str(tmp_path), kind="series")
  np.testing.assert_array_equal(dataset.train, x.astype(np.float32))


@pytest.mark.parametrize(
  ("files", "message"),
  [
    ({"a": np.ones((9, 2)), "b": np.ones((9, 3))}, "b.npy has 3 channels, but a.npy has 2"),
    ({"a": np.ones((9, 2, 2))}, "a.npy has 3 axes; expected a series"),
    ({"a": np.array(["x"] * 9)}, "a.npy has dtype <U1; convert it to numbers"),
    ({"a": np.ones(9), "a_labels": np.ones(4)}, "a_labels.npy has 4 labels, but a.npy has 9 steps"),
    ({"a": np.ones(9), "b": np.ones(9), "b_labels": np.ones(9)}, "a_labels.npy is missing"),
    ({"a": np.ones(9), "b": np.ones(9)}, "has only 2 series, too few to hold out a test set; provide at least 3"),
    ({}, "contains no .npy files of the train series"),
  ],
)
def test_folders_that_do_not_fit_are_refused(tmp_path, files, message):
  for name, values in files.items():
    np.save(tmp_path / f"{name}.npy", values)
  with pytest.raises(errors.UserError, match=message):
    load(str(tmp_path), kind="series")


def test_options_of_other_sources_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match=r"config\.data\.y='labels': is not used for a folder of series"):
    load(folder(tmp_path), kind="series", y="labels")


def test_damaged_files_are_named(tmp_path):
  path = folder(tmp_path)
  (tmp_path / "s1.npy").write_bytes(b"\x93NUMPY")
  with pytest.raises(errors.UserError, match=r"s1\.npy: not a readable NumPy file"):
    load(path, kind="series")


def test_unread_files_are_named(tmp_path):
  path = folder(tmp_path, steps=(12,) * 6, other=[1])
  (tmp_path / "notes.txt").write_text("")
  (remark,) = load(path, kind="series").remarks
  assert "not read: notes.txt, other_labels.npy" in remark


@pytest.mark.parametrize("options", [{"kind": "series"}, {"window": 4}, {"window": 4, "placement": "stream"}])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_named_with_its_file_and_a_fix_that_works(tmp_path, options, value):
  path = folder(tmp_path)
  values = np.load(tmp_path / "s2.npy")
  values[1:, 1] = value
  np.save(tmp_path / "s2.npy", values)
  message = r"the train series s2\.npy: step 1 has NaN or an infinite value in channel 1 \(both .*; fill such values"
  with pytest.raises(errors.UserError, match=message) as caught:
    load(path, **options)
  assert "mask_train" not in str(caught.value)
  assert np.isnan(value) == np.isnan(series_folders.read(path, 0)["train"][:]).any()  # for `ae_jax data`
