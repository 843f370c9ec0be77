"""Data sets of any source: fingerprints, peak, path and placement."""

import dataclasses

import numpy as np
import pytest

from ae_jax import data, errors
from ae_jax.data import lazy_arrays, sources

EXAMPLES = np.random.default_rng(0).integers(0, 256, (12, 3, 4, 1), np.uint8)
LABELS = np.arange(12) % 3
FACTORS = np.stack([LABELS, LABELS[::-1]], 1)


def made(**changes):
  arrays = {"train": EXAMPLES[:8], "test": EXAMPLES[8:], "train_labels": LABELS[:8], "test_labels": LABELS[8:]}
  factors = {"train_factors": FACTORS[:8], "test_factors": FACTORS[8:]}
  return data.Dataset(name="made", value_range="unit", **{**arrays, **factors, **changes})


def differing(one, other):
  return {key for key, value in one.fingerprints.items() if other.fingerprints[key] != value}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
  ("part", "key"),
  [("", "fingerprint"), ("_labels", "labels_fingerprint"), ("_factors", "factors_fingerprint")],
)
def test_each_fingerprint_covers_its_part_of_all_splits(split, part, key):
  name = f"{split}{part}"
  values = getattr(made(), name).copy()
  assert differing(made(), made(**{name: values})) == set()
  values[-1] += 1
  assert differing(made(), made(**{name: values})) == {key}
  if part:
    assert differing(made(), made(**{name: None})) == {key}
    absent = made(**{f"train{part}": None, f"test{part}": None})
    assert absent.fingerprints[key] is None


def test_fingerprint_depends_on_the_split_and_shape_of_labels():
  a, b = LABELS[:4], LABELS[4:8]
  one, other = made(train_labels=a, test_labels=b), made(train_labels=b, test_labels=a)
  assert differing(one, other) == {"labels_fingerprint"}
  flat, square = made(train_labels=LABELS[:4]), made(train_labels=LABELS[:4].reshape(2, 2))
  assert differing(flat, square) == {"labels_fingerprint"}
  one, other = made(train_labels=a, test_labels=None), made(train_labels=None, test_labels=a)
  assert differing(one, other) == {"labels_fingerprint"}


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, ">i8", np.uint64])
def test_label_fingerprint_ignores_integer_dtype_and_laziness(dtype):
  typed = LABELS[:8].astype(dtype)
  assert differing(made(), made(train_labels=typed)) == set()
  lazy = lazy_arrays.LazyArray(typed.shape, typed.dtype, lambda numbers: typed[numbers])
  assert differing(made(), made(train_labels=lazy)) == set()
  assert differing(made(), made(train_labels=LABELS[:8].astype(float))) == {"labels_fingerprint"}


@pytest.mark.parametrize("dtype", ["U5", "S3", "M8[s]", bool, [("a", "i4")]])
def test_labels_of_any_dtype_have_a_fingerprint(dtype):
  labels = np.arange(8).astype("i4").view(dtype) if isinstance(dtype, list) else (LABELS[:8] % 2).astype(dtype)
  assert differing(made(train_labels=labels), made(train_labels=labels.copy())) == set()
  assert differing(made(train_labels=labels), made(train_labels=labels[::-1].copy())) == {"labels_fingerprint"}


def test_label_fingerprint_of_large_data_reads_the_probes_only(monkeypatch):
  whole = made().fingerprints["labels_fingerprint"]
  monkeypatch.setattr(data.dataset, "_DIGESTED_WHOLE", 10)
  monkeypatch.setattr(lazy_arrays, "PROBES", 2)
  assert made(train_labels=LABELS[:8].copy()).fingerprints["labels_fingerprint"] != whole
  read = []
  lazy = lazy_arrays.LazyArray((8,), LABELS.dtype, lambda numbers: read.extend(numbers) or LABELS[numbers])
  assert differing(made(), made(train_labels=lazy)) == set()
  assert set(read) == set(lazy_arrays.probe_indices(8))


@pytest.mark.parametrize("small", ["train", "test"])
def test_fingerprint_samples_rows_if_all_splits_together_are_large(monkeypatch, small):
  monkeypatch.setattr(lazy_arrays, "PROBES", 1)
  monkeypatch.setattr(data.dataset, "_DIGESTED_WHOLE", 90)
  parts = {"train": EXAMPLES[:7], "test": EXAMPLES[:7], small: EXAMPLES[:1]}  # 12 bytes per example
  whole = made(**parts).fingerprint()
  monkeypatch.setattr(data.dataset, "_DIGESTED_WHOLE", 96)
  assert made(**parts).fingerprint() != whole


def test_peak_is_the_width_of_the_span_and_never_zero():
  floats = np.linspace(-3, 5, 96, dtype=np.float32).reshape(8, 3, 4, 1)
  for value_range, train, expected in [
    ("unit", EXAMPLES, 1),
    ("symmetric", EXAMPLES, 2),
    ("real", EXAMPLES, 1),
    ("real", floats, 8),
    ("real", np.full_like(floats, 7), 1),  # constant data would divide by zero
  ]:
    assert dataclasses.replace(made(), value_range=value_range, train=train).peak == expected


@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_streamed_training_examples_and_labels_stay_lazy(monkeypatch, placement):
  def source(name, path, **options):
    arrays = {"train": EXAMPLES[:8], "test": EXAMPLES[8:], "train_labels": LABELS[:8], "test_labels": LABELS[8:]}
    return {
      key: lazy_arrays.LazyArray(part.shape, part.dtype, lambda i, part=part: part[i]) for key, part in arrays.items()
    }

  monkeypatch.setitem(sources.SOURCES, "npy", source)
  dataset = data.load("npy", "", "unit", placement=placement)
  for key in ("train", "test", "train_labels", "test_labels"):
    assert isinstance(getattr(dataset, key), lazy_arrays.LazyArray) == (
      placement == "stream" and key.startswith("train")
    ), key
  np.testing.assert_array_equal(dataset.train_labels[:], LABELS[:8])
  np.testing.assert_array_equal(dataset.test_labels, LABELS[8:])


@pytest.mark.parametrize("source", ["npz", "npy", "folder", "ucr"])
def test_path_expands_a_tilde_and_refuses_remote_locations(tmp_path, monkeypatch, source):
  monkeypatch.setenv("HOME", str(tmp_path))
  np.savez(tmp_path / "x.npz", x_train=EXAMPLES)
  paths = []

  def stub(name, path, **options):
    paths.append(path)
    raise errors.UserError("seen")

  monkeypatch.setitem(sources.SOURCES, source, stub)
  with pytest.raises(errors.UserError, match="seen"):
    data.load(source, "~/some/x", "unit")
  assert paths == [str(tmp_path / "some" / "x")]
  for remote in ("gs://bucket/x.npz", "s3://bucket/x", "https://host/x.npz"):
    with pytest.raises(errors.UserError, match=rf"config\.data\.path={remote}: remote paths are not supported"):
      data.load(source, remote, "unit")
  assert len(paths) == 1


def test_tfds_folder_expands_a_tilde(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
  for variable, path in [("nowhere", "~/data"), ("~/data", "")]:
    monkeypatch.setenv("TFDS_DATA_DIR", variable)
    with pytest.raises(errors.UserError, match=rf"not found in {tmp_path}/data"):
      data.load("mnist", path, "unit")
  monkeypatch.setenv("TFDS_DATA_DIR", "gs://bucket")
  with pytest.raises(errors.UserError, match="TFDS_DATA_DIR=gs://bucket: remote paths are not supported"):
    data.load("mnist", "", "unit")
