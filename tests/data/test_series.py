import numpy as np
import pytest
from conftest import ROOT

from ae_jax import data, errors
from ae_jax.data import series

ECG5000 = ROOT.parent / "shared" / "ucr" / "ECG5000"


def load(path, one_class=None):
  return data.load("ucr", str(path), "real", one_class)


TABLE = np.random.default_rng(0).normal(size=(30, 7)).round(5)
LABELS = np.repeat([-1, 2, 5], (5, 10, 15))


def write(file, table=TABLE, labels=LABELS, delimiter="  "):
  np.savetxt(file, np.column_stack([labels, table]), fmt="%.7e", delimiter=delimiter)
  return file


@pytest.mark.skipif(not ECG5000.exists(), reason="ECG5000 does not lie in ../shared/ucr")
def test_ecg5000_agrees_with_its_file():
  dataset = load(ECG5000)
  table = np.loadtxt(ECG5000 / "ECG5000_TRAIN.txt")
  assert dataset.shape == (140, 1)
  counts = [np.bincount(labels, minlength=6)[1:] for labels in (dataset.train_labels, dataset.test_labels)]
  np.testing.assert_array_equal(sum(counts), [292, 177, 10, 19, 2])
  np.testing.assert_array_equal(counts[1], [58, 35, 2, 4, 0])
  both = np.concatenate([dataset.train, dataset.test])[..., 0]
  assert both.sum(dtype=np.float64) == pytest.approx(table[:, 1:].sum(), abs=1e-3)
  np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(table[:, 1:].astype(np.float32), axis=0))


@pytest.mark.parametrize(("suffix", "delimiter"), [(".txt", "  "), (".tsv", "\t"), ("", ",")])
def test_all_file_formats_load_the_saved_series(tmp_path, suffix, delimiter):
  train = write(tmp_path / f"Made_TRAIN{suffix}", delimiter=delimiter)
  write(tmp_path / f"Made_TEST{suffix}", TABLE[:4] + 1, LABELS[-4:], delimiter)
  for path in (train, tmp_path):
    dataset = load(path)
    np.testing.assert_array_equal(dataset.train[..., 0], TABLE.astype(np.float32))
    np.testing.assert_array_equal(dataset.test[..., 0], (TABLE[:4] + 1).astype(np.float32))
    np.testing.assert_array_equal(dataset.train_labels, LABELS)
    np.testing.assert_array_equal(dataset.test_labels, LABELS[-4:])


def test_unread_files_are_reported(tmp_path):
  train = write(tmp_path / "Made_TRAIN.txt")
  for _ in range(2):
    assert load(tmp_path).remarks == ()
    write(tmp_path / "Made_TEST.txt")
  write(tmp_path / "Made_VAL.txt")
  expected = "not read: Made_VAL.txt; the files that are read are Made_TRAIN.txt and Made_TEST.txt"
  assert load(tmp_path).remarks == (f"config.data.path='{tmp_path}': {expected}",)
  assert load(train).remarks == ()  # a path to a file reports no other files


def test_one_class_accepts_label_minus_one(tmp_path):
  dataset = load(write(tmp_path / "Made_TRAIN.txt"), -1)
  assert set(dataset.train_labels) == {-1}
  np.testing.assert_array_equal(dataset.anomalous, dataset.test_labels != -1)


def test_missing_test_file_holds_out_the_last_fifth_of_each_class(tmp_path):
  dataset = load(write(tmp_path / "Made_TRAIN.txt"))
  held_out = [4, 13, 14, 27, 28, 29]  # classes of 5, 10 and 15 series
  np.testing.assert_array_equal(dataset.test[..., 0], TABLE[held_out].astype(np.float32))
  np.testing.assert_array_equal(dataset.train[..., 0], np.delete(TABLE, held_out, 0).astype(np.float32))
  np.testing.assert_array_equal(dataset.test_labels, LABELS[held_out])


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", "Bad_TRAIN.txt is empty"),
    ("\n \n", "Bad_TRAIN.txt is empty"),
    ("1 2 3\n1 2 3 4\n", "line 2 of Bad_TRAIN.txt has 3 samples after its label; expected 2, as in the first series"),
    ("1\n1\n", "line 1 of Bad_TRAIN.txt has 0 samples"),
    ("1 2 NaN\n1 2 3\n", "line 1 of Bad_TRAIN.txt has missing .* or infinite samples"),
    ("1 2 3\n\n1 2 ?\n", "line 3 of Bad_TRAIN.txt has missing .* or infinite samples"),
    ("1 2 inf\n", "infinite"),
    ("1 2 1e300\n" * 9, "infinite"),
    ("@problemName x\n", "line 1 of Bad_TRAIN.txt is not a line of numbers: .*'@problemName'"),
    ("1.5 2 3\n", "begins with 1.5; expected an integer label"),
    ("1e300 2 3\n", "begins with 1e300; expected an integer label"),
    ("1 2 3\n", "Bad_TEST.txt not found, and no class is large enough"),
    ("1 2 ü\n", "is not an ASCII text file"),
  ],
)
def test_damaged_files_are_refused(tmp_path, text, message):
  (tmp_path / "Bad_TRAIN.txt").write_text(text, encoding="utf-8")
  with pytest.raises(errors.UserError, match=message) as refusal:
    load(tmp_path)
  assert str(refusal.value).startswith("config.data.")
  assert "\n" not in str(refusal.value)


def test_missing_and_ambiguous_files_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match=r"config\.data\.path is empty; set it to the UCR folder"):
    load("")
  with pytest.raises(errors.UserError, match=r"contains no \.\.\._TRAIN\.txt or \.\.\._TRAIN\.tsv"):
    load(tmp_path)
  with pytest.raises(errors.UserError, match="file or folder not found"):
    load(tmp_path / "Absent_TRAIN.txt")
  with pytest.raises(errors.UserError, match=r"must end in _TRAIN\.txt or _TRAIN\.tsv"):
    load(write(tmp_path / "Made.txt"))
  write(tmp_path / "A_TRAIN.txt"), write(tmp_path / "B_TRAIN.tsv")
  with pytest.raises(errors.UserError, match=r"contains A_TRAIN\.txt and B_TRAIN\.tsv; set the path"):
    load(tmp_path)
  (tmp_path / "A_TEST.txt").mkdir()
  with pytest.raises(errors.UserError, match=r"A_TEST\.txt cannot be read"):
    load(tmp_path / "A_TRAIN.txt")


def test_single_series_and_splits_of_unequal_length_are_refused(tmp_path):
  train = write(tmp_path / "Made_TRAIN.txt", TABLE[:1], LABELS[:1])
  write(tmp_path / "Made_TEST.txt")
  with pytest.raises(errors.UserError, match="only one training example"):
    load(train)
  write(tmp_path / "Made_TRAIN.txt", TABLE[:, :5])
  with pytest.raises(errors.UserError, match=r"the array of test examples is float32 \(7, 1\), but the training"):
    load(train)


def test_one_class_drops_training_examples_only(tmp_path):
  path = write(tmp_path / "Made_TRAIN.txt")
  write(tmp_path / "Made_TEST.txt", TABLE[::2], LABELS[::2])
  whole, part = load(path), load(path, 5)
  np.testing.assert_array_equal(part.train, whole.train[whole.train_labels == 5])
  assert set(part.train_labels) == {5}
  np.testing.assert_array_equal(part.test, whole.test)
  np.testing.assert_array_equal(part.test_labels, whole.test_labels)
  np.testing.assert_array_equal(part.anomalous, whole.test_labels != 5)
  assert whole.anomalous is None
  assert part.fingerprint() != whole.fingerprint()


def test_one_class_works_for_any_source_and_needs_integer_labels(tmp_path):
  digits = data.load("digits", "", "unit", 3)
  assert set(digits.train_labels) == {3}
  assert digits.anomalous.sum() == (digits.test_labels != 3).sum()
  with pytest.raises(errors.UserError, match=r"config\.data\.one_class=10: no training example of .*'digits'"):
    data.load("digits", "", "unit", 10)
  images = np.zeros((9, 3, 3), np.uint8)
  for arrays, message in [
    ({}, "the test examples of .* have no labels; add them, or remove .* 'anomaly'"),
    ({"y_train": np.arange(9) / 2}, "labels of dtype float64; expected integers"),
    ({"y_train": np.arange(9), "x_test": images}, "the test examples of .* have no labels"),
  ]:
    np.savez(tmp_path / "data.npz", x_train=images, **arrays)
    with pytest.raises(errors.UserError, match=message):
      data.load("npz", str(tmp_path / "data.npz"), "unit", 0)


@pytest.fixture(scope="module")
def beats():
  return data.load("heartbeats", "", "real")


def test_heartbeats_are_reproducible_and_stratified(beats):
  assert data.load("heartbeats", "", "real").fingerprint() == beats.fingerprint()
  assert beats.train.shape == (4000, 140, 1)
  np.testing.assert_array_equal(np.bincount(beats.train_labels), [2400, 400, 400, 400, 400])
  np.testing.assert_array_equal(np.bincount(beats.test_labels), [600, 100, 100, 100, 100])
  assert len(series.HEARTBEATS) == 5
  with pytest.raises(errors.UserError, match="heartbeats is built in"):
    data.load("heartbeats", "x", "real")


def test_heartbeats_have_mean_0_and_standard_deviation_1(beats):
  np.testing.assert_allclose(beats.train.mean(1), 0, atol=2e-5)
  np.testing.assert_allclose(beats.train.std(1, ddof=1), 1, atol=2e-4)


def around_the_peaks(x, labels, kind):
  """Returns the mean of a kind of series, aligned at the highest sample: 20 samples before it to 30 after [51]."""
  of_kind = x[labels == kind, :, 0]
  peaks = of_kind[:, 20:-30].argmax(1) + 20
  return np.stack([row[peak - 20 : peak + 31] for row, peak in zip(of_kind, peaks, strict=True)]).mean(0)


def test_each_anomaly_changes_its_wave(beats):
  normal, no_p, early, depressed, inverted = (around_the_peaks(beats.train, beats.train_labels, k) for k in range(5))
  p, st, t = (
    slice(6, 11),
    slice(26, 31),
    slice(36, 43),
  )  # the peak is at 20; P 0.2 to 0.13 s before it, ST 0.1 s and T 0.25 s after
  assert no_p[p].mean() < normal[p].mean() - 0.4
  np.testing.assert_allclose(no_p[16:], normal[16:], atol=0.35)  # the rest is normal
  assert depressed[st].mean() < normal[st].mean() - 0.3
  assert inverted[t].mean() < -0.5 < 0.5 < normal[t].mean()
  assert early[17] > normal[17] + 0.5  # wider
