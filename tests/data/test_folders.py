import os
import shutil

import numpy as np
import pytest
from PIL import Image

from ae_jax import data, errors
from ae_jax.data import decoding, lazy_arrays

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 4, 5), np.uint8)


def load(path, **options):
  return data.load("folder", str(path), "unit", **options)


def write(file, pixels):
  file.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(file)


@pytest.fixture
def flat(tmp_path):
  """30 grey images in one folder, with files that are not images."""
  for number, pixels in enumerate(IMAGES):
    write(tmp_path / "photos" / f"{number:02}.png", pixels)
  (tmp_path / "photos" / "notes.txt").write_text("no image")
  (tmp_path / "photos" / ".hidden.png").write_text("no image")
  return tmp_path / "photos"


@pytest.fixture
def classes(tmp_path):
  """20 training and 10 test images in class folders, as in torchvision's ImageFolder; `moth` is in `test` only."""
  for number, pixels in enumerate(IMAGES):
    split, names = ("train", ("ant", "bee", "cat")) if number < 20 else ("test", ("bee", "moth"))
    write(tmp_path / split / names[number % len(names)] / "deep" / f"{number:02}.bmp", pixels)
  return tmp_path


@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_folder_without_splits_holds_out_a_fifth(flat, placement):
  dataset = load(flat, placement=placement)
  assert isinstance(dataset.train, np.ndarray) == (placement == "memory")
  assert (dataset.train.shape, dataset.test.shape) == ((24, 4, 5, 1), (6, 4, 5, 1))
  both = np.concatenate([dataset.train[:], dataset.test])[..., 0]
  np.testing.assert_array_equal(np.unique(both, axis=0), np.unique(IMAGES, axis=0))
  np.savez(flat / "same.npz", x_train=IMAGES)
  assert data.load("npz", str(flat / "same.npz"), "unit").fingerprint() == dataset.fingerprint()
  assert dataset.train_labels is dataset.test_labels is None


@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_subfolders_define_splits_and_classes(classes, placement):
  dataset = load(classes, placement=placement)
  order = np.argsort(np.arange(20) % 3, kind="stable")
  np.testing.assert_array_equal(dataset.train[:][..., 0], IMAGES[:20][order])
  np.testing.assert_array_equal(dataset.train_labels, np.sort(np.arange(20) % 3))
  np.testing.assert_array_equal(dataset.test_labels, [1] * 5 + [3] * 5)
  ants = load(classes, placement=placement, one_class=1)
  np.testing.assert_array_equal(ants.train[:][..., 0], IMAGES[1:20:3])
  assert ants.anomalous.sum() == 5


def test_numeric_class_names_are_the_labels(tmp_path):
  for number, name in enumerate(["10", "9", "2"] * 5):
    write(tmp_path / name / f"{number}.png", IMAGES[number])
  dataset = load(tmp_path)
  assert {*dataset.train_labels, *dataset.test_labels} == {2, 9, 10}
  (tmp_path / "10").rename(tmp_path / "x")
  dataset = load(tmp_path)
  assert {*dataset.train_labels, *dataset.test_labels} == {0, 1, 2}


def test_colour_images_have_three_channels(tmp_path):
  colours = IMAGES[:27].reshape(9, 3, 4, 5).transpose(0, 2, 3, 1).copy()
  for number, pixels in enumerate(colours):
    write(tmp_path / f"{number}.PNG", pixels)
  assert load(tmp_path).shape == (4, 5, 3)


@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_error_counts_sizes_and_names_single_files(flat, placement):
  write(flat / "13.png", IMAGES[0, :3])
  write(flat / "14.png", IMAGES[0, :2])
  sizes = r"4 x 5 \(28 images\), 3 x 5 \(1 image: 13\.png\), 2 x 5 \(1 image: 14\.png\)"
  with pytest.raises(errors.UserError, match=f"the images differ: height x width {sizes}"):
    load(flat, placement=placement)
  (flat / "14.png").unlink()
  write(flat / "13.png", IMAGES[:3].transpose(1, 2, 0).copy())
  with pytest.raises(errors.UserError, match=r"modes L \(28 images\), RGB \(1 image: 13\.png\)"):
    load(flat, placement=placement)


@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_error_names_an_unreadable_file(flat, placement):
  (flat / "07.png").write_bytes((flat / "07.png").read_bytes()[:60])
  with pytest.raises(errors.UserError, match=r"photos/07\.png: not a readable image"):
    load(flat, placement=placement)
  (flat / "07.png").write_text("no image")
  with pytest.raises(errors.UserError, match=r"photos/07\.png: not a readable image"):
    load(flat, placement=placement)


def test_error_names_a_file_that_changes_during_the_run(flat):
  dataset = load(flat, placement="stream")
  for file in flat.glob("*.png"):
    write(file, IMAGES[0, :3])
  with pytest.raises(errors.UserError, match=r"\.png: is 3 x 5 with 1 channel, but the other images are 4 x 5 with 1"):
    dataset.train[:]


def test_all_links_are_followed_on_request_and_a_loop_is_named(tmp_path):
  (tmp_path / "subset" / "deep").mkdir(parents=True)
  for number, pixels in enumerate(IMAGES[:6]):
    write(tmp_path / "all" / f"{number}.png", pixels)
    if number < 3:
      (tmp_path / "subset" / f"{number}.png").symlink_to(tmp_path / "all" / f"{number}.png")
  with pytest.raises(errors.UserError, match=r"or set --config\.data\.follow_links=True"):
    load(tmp_path / "subset")
  assert len(load(tmp_path / "subset", follow_links=True).train) == 2
  (tmp_path / "subset" / "others").symlink_to(tmp_path / "all")
  (tmp_path / "subset" / "others-again").symlink_to(tmp_path / "all")
  with pytest.raises(errors.UserError, match="is not in a class folder"):
    load(tmp_path / "subset", follow_links=True)
  for number in range(3):
    (tmp_path / "subset" / f"{number}.png").unlink()
  dataset = load(tmp_path / "subset", follow_links=True)
  assert (len(dataset.train) + len(dataset.test), dataset.class_names) == (12, ("others", "others-again"))
  (tmp_path / "subset" / "deep" / "loop").symlink_to(tmp_path / "subset")
  with pytest.raises(errors.UserError, match=r"deep/loop: links to .*subset, which contains it; remove the link"):
    load(tmp_path / "subset", follow_links=True)
  (tmp_path / "subset" / "deep" / "loop").unlink()
  (tmp_path / "subset" / "deep" / "gone.png").symlink_to(tmp_path / "nowhere.png")
  with pytest.raises(errors.UserError, match=r"gone\.png: is a pipe, a device or a broken link"):
    load(tmp_path / "subset", follow_links=True)


def test_images_with_several_frames_are_counted(tmp_path):
  for number in range(6):
    frames = [Image.fromarray(each) for each in IMAGES[number : number + 3]]
    more = {"save_all": True, "append_images": frames[1:]} if number < 2 else {}
    frames[0].save(tmp_path / f"{number}.{'gif' if number % 2 else 'tif'}", **more)
  dataset = load(tmp_path, channels=1)  # grey GIF files have a palette
  assert any("2 images: only the first frame or page is read" in remark for remark in dataset.remarks)
  both = np.concatenate([dataset.train, dataset.test])[..., 0]
  np.testing.assert_array_equal(np.unique(both, axis=0), np.unique(IMAGES[:6], axis=0))


def test_links_are_followed_only_to_files_inside_the_folder(flat, tmp_path):
  (flat / "30.png").symlink_to(flat / "00.png")
  dataset = load(flat)
  assert len(dataset.train) + len(dataset.test) == 31
  write(tmp_path / "secret.png", IMAGES[0])
  (tmp_path / "photos-too").mkdir()
  write(tmp_path / "photos-too" / "secret.png", IMAGES[0])
  (flat / "inside").mkdir()
  for name, target in [
    ("31.png", tmp_path / "secret.png"),
    ("31.png", "../secret.png"),
    ("31.png", "../photos-too/secret.png"),
    ("31.png", "absent.png"),
    ("31", tmp_path),
    ("31", flat / "inside"),
    ("31", flat),
  ]:
    (flat / name).symlink_to(target)
    with pytest.raises(errors.UserError, match=rf"photos/{name}: links to"):
      load(flat)
    (flat / name).unlink()
  (flat / "train").symlink_to(tmp_path / "photos-too")
  with pytest.raises(errors.UserError, match="photos/train: links to"):
    load(flat)
  (flat / "train").unlink()
  (tmp_path / "link").symlink_to(flat)  # the folder itself may be a link
  assert len(load(tmp_path / "link").train) == len(dataset.train)


def test_images_are_decoded_once_and_again_after_a_file_changes(flat, monkeypatch):
  first = load(flat)
  with monkeypatch.context() as patch:
    patch.setattr(decoding, "decode", None)
    patch.setattr(decoding, "header", None)
    np.testing.assert_array_equal(load(flat).train, first.train)
  write(flat / "05.png", 255 - IMAGES[5])
  os.utime(flat / "05.png", ns=(1, 1))
  assert load(flat).fingerprint() != first.fingerprint()


def test_streamed_images_are_decoded_on_demand(flat, monkeypatch):
  dataset = load(flat, placement="stream")
  assert isinstance(dataset.train, lazy_arrays.LazyArray)
  decoded, decode = [], decoding.decode
  monkeypatch.setattr(decoding, "decode", lambda *args, **kwargs: decoded.append(args) or decode(*args, **kwargs))
  dataset.train[[3, 1]]
  assert len(decoded) == 2


def test_missing_and_incomplete_folders_are_refused(flat, tmp_path):
  with pytest.raises(errors.UserError, match=r"config\.data\.path is empty; set it to the folder of images"):
    load("")
  with pytest.raises(errors.UserError, match="folder not found"):
    load(flat / "00.png")
  (tmp_path / "empty").mkdir()
  with pytest.raises(
    errors.UserError, match=r"found 0 images under .*empty; at least 3 are required, with names that end in \.bmp"
  ):
    load(tmp_path / "empty")
  shutil.copytree(flat, flat / "test")
  with pytest.raises(errors.UserError, match="a folder `test` but no folder `train`"):
    load(flat)
  (flat / "train").mkdir()
  with pytest.raises(errors.UserError, match=r"0 images under .*train; at least 2"):
    load(flat)
  (flat / "test").rename(flat / "train" / "ant")
  write(flat / "train" / "loose.png", IMAGES[0])
  with pytest.raises(errors.UserError, match=r"loose\.png: is not in a class folder"):
    load(flat)


def split_folders(root, counts):
  """Writes {folder: number of images}, divided between two classes."""
  for folder, count in counts.items():
    for number in range(count):
      write(root / folder / "ab"[number % 2] / f"{number:02}.png", IMAGES[number])
  return root


@pytest.mark.parametrize(
  ("train", "test"),
  [("train", "test"), ("Train", "Test"), ("TRAIN", "TEST"), ("Training", "Testing"), ("train", "Test")],
)
def test_splits_are_recognised_in_all_spellings(tmp_path, train, test):
  dataset = load(split_folders(tmp_path, {train: 20, test: 6}))
  assert (len(dataset.train), len(dataset.test)) == (20, 6)
  assert (set(dataset.train_labels), set(dataset.test_labels)) == ({0, 1}, {0, 1})
  assert dataset.remarks == ()


@pytest.mark.parametrize("name", ["val", "Valid", "validation"])
@pytest.mark.parametrize("test", [0, 6])
def test_validation_folder_that_is_not_read_is_reported_and_is_not_a_class(tmp_path, name, test):
  folder = split_folders(tmp_path, {"Train" if name == "Valid" else "train": 20, name: 7, "test": test})
  dataset = load(folder, read_validation=False)
  assert len(dataset.train) + len(dataset.test) == 20 + test
  assert set(dataset.train_labels) == {0, 1}
  (remark,) = dataset.remarks
  assert f": not read: {name} (7 images); the folders that are read are " in remark


def test_train_beside_other_classes_is_a_class(tmp_path):
  for names, classes in [(("Bus", "Train"), 2), (("Bus", "Test", "Val"), 3), (("Training",), 1)]:
    dataset = load(split_folders(tmp_path / names[-1], dict.fromkeys(names, 10)))
    assert len(dataset.train) + len(dataset.test) == 10 * len(names)
    assert len({*dataset.train_labels, *dataset.test_labels}) == classes
    assert dataset.remarks == ()


def test_two_folders_for_one_split_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match="contains both `Train` and `train`; keep one folder"):
    load(split_folders(tmp_path, {"Train": 4, "train": 4, "test": 4}))


def test_unread_files_are_reported_with_their_counts(tmp_path):
  split_folders(tmp_path, {"train": 20, "test": 4, "ground_truths": 3})
  write(tmp_path / "loose.png", IMAGES[0])
  for name in ("a.HEIC", "b.heic", "c.npy", "d"):
    (tmp_path / "train" / "a" / name).touch()
  for name in (".hidden", "notes.txt"):
    (tmp_path / name).touch()
  dataset = load(tmp_path)
  assert (len(dataset.train), len(dataset.test)) == (20, 4)
  outside, inside = dataset.remarks
  expected = "not read: ground_truths (3 images), loose.png (1 image); the folders that are read are train and test"
  assert outside == f"config.data.path='{tmp_path}': {expected}"
  assert (
    "not read: .heic (2 files), .npy (1 file), no suffix (1 file); these files have no supported image suffix" in inside
  )
