import numpy as np
import pytest

from ae_jax import data, errors

BYTES = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), np.uint8)
LABELS = np.arange(20) % 3


def in_archive(folder, **arrays):
  np.savez(folder / "data.npz", **arrays)
  return "npz", str(folder / "data.npz")


def in_files(folder, **arrays):
  for name, values in arrays.items():
    np.save(folder / f"{name}.npy", values)
  return "npy", str(folder)


@pytest.mark.parametrize("write", [in_archive, in_files])
def test_names_of_medmnist_are_known(tmp_path, write):
  arrays = {
    f"{split}_{kind}": v
    for split in ("train", "val", "test")
    for kind, v in (("images", BYTES), ("labels", LABELS[:, None]))
  }
  dataset = data.load(*write(tmp_path, **arrays), "unit")
  np.testing.assert_array_equal(dataset.train, BYTES)
  np.testing.assert_array_equal(dataset.test, BYTES)
  np.testing.assert_array_equal(dataset.train_labels, LABELS)
  np.testing.assert_array_equal(dataset.validation, BYTES)
  np.testing.assert_array_equal(dataset.validation_labels, LABELS)
  assert dataset.remarks == ()
  (remark,) = data.load(*write(tmp_path, **arrays), "unit", read_validation=False).remarks
  assert "not read: val_images" in remark
  assert "val_labels" in remark


@pytest.mark.parametrize("write", [in_archive, in_files])
def test_other_names_are_listed_and_mapped(tmp_path, write):
  where = write(tmp_path, pictures=BYTES, kind=LABELS, other=np.zeros(3))
  with pytest.raises(errors.UserError) as refusal:
    data.load(*where, "unit")
  for text in ("pictures (uint8 [20, 6, 5, 3])", "kind (int64 [20])", "other (float64 [3])"):
    assert text in str(refusal.value)
  assert str(refusal.value).endswith("Add --config.data.x=pictures --config.data.y=kind")
  dataset = data.load(*where, "unit", x="pictures", y="kind", split="random")
  np.testing.assert_array_equal(np.sort(np.r_[dataset.train_labels, dataset.test_labels]), np.sort(LABELS))
  assert "not read: other" in dataset.remarks[0]
  unlabelled = data.load(*where, "unit", x="pictures")
  assert unlabelled.fingerprint() == dataset.fingerprint()
  assert unlabelled.train_labels is None
  with pytest.raises(
    errors.UserError, match=r"config\.data\.y='kinds': .* has no array of this name; did you mean 'kind'\?"
  ):
    data.load(*where, "unit", x="pictures", y="kinds")


def test_own_labels_beside_known_examples(tmp_path):
  where = in_archive(tmp_path, x_train=BYTES, y_train=LABELS, age=LABELS + 5, x_test=BYTES, y_test=LABELS)
  dataset = data.load(*where, "unit", y="age")
  np.testing.assert_array_equal(dataset.train_labels, LABELS + 5)
  np.testing.assert_array_equal(dataset.test_labels, LABELS)
  without = data.load(*where, "unit", x="x_train")
  assert without.train_labels is without.test_labels is None
  assert len(without.test) == 20


@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_channels_first_are_taken_with_the_layout(tmp_path, placement):
  wide = np.random.default_rng(0).integers(0, 256, (20, 6, 7, 3), np.uint8)
  stored = data.load(
    *in_archive(tmp_path, x_train=wide.transpose(0, 3, 1, 2)), "unit", placement=placement, layout="nchw"
  )
  (tmp_path / "last").mkdir()
  expected = data.load(*in_archive(tmp_path / "last", x_train=wide), "unit")
  np.testing.assert_array_equal(stored.train[:], expected.train)
  assert stored.fingerprint() == expected.fingerprint()


def test_options_of_archives_are_refused_elsewhere(tmp_path):
  for options in ({"x": "a"}, {"y": "a"}, {"layout": "nchw"}):
    with pytest.raises(
      errors.UserError, match=r"is used only for config\.data\.name=npz or npy or hdf5( or arrays)?, not for 'digits'"
    ):
      data.load("digits", "", "unit", **options)
  np.save(tmp_path / "x.npy", BYTES)
  with pytest.raises(errors.UserError, match=r"config\.data\.layout='nhc' is unknown; did you mean 'nhwc'"):
    data.load("npy", str(tmp_path / "x.npy"), "unit", layout="nhc")
  with pytest.raises(errors.UserError, match=r"config\.data\.x='x': must be empty, because .*x\.npy is a single array"):
    data.load("npy", str(tmp_path / "x.npy"), "unit", x="x")
