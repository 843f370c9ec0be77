import numpy as np
import pytest
from PIL import Image

from ae_jax import data, errors
from ae_jax.data import lazy_arrays, patches

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (10, 11, 17, 3), np.uint8)


def load(path, **options):
  return data.load("npz", str(path), "unit", **options)


@pytest.fixture
def archive(tmp_path):
  np.savez(tmp_path / "a.npz", x_train=IMAGES, y_train=np.arange(10))
  return tmp_path / "a.npz"


def test_patches_are_the_tiles_row_by_row():
  arrays = {"train": IMAGES, "train_labels": np.arange(10), "train_mask": IMAGES > 9}
  notes = patches.cut(arrays, (4, 5), "here")
  assert arrays["train"].shape == (60, 4, 5, 3)
  for number in range(60):
    image, (row, column) = number // 6, divmod(number % 6, 3)
    tile = IMAGES[image, 4 * row : 4 * row + 4, 5 * column : 5 * column + 5]
    np.testing.assert_array_equal(arrays["train"][number], tile)
    np.testing.assert_array_equal(arrays["train_mask"][number], tile > 9)
    assert arrays["train_labels"][number] == image
  lost = "3 rows at the lower edge and 2 columns at the right edge of each image are not used"
  assert notes == [f"here: each image of 11 x 17 pixels gives 2 x 3 patches of 4 x 5 pixels; {lost}"]


def test_streamed_patches_equal_those_in_memory_in_any_order():
  lazy = {"train": lazy_arrays.LazyArray(IMAGES.shape, IMAGES.dtype, IMAGES.__getitem__)}
  memory = {"train": IMAGES}
  for arrays in (lazy, memory):
    patches.cut(arrays, (4,), "here")
  indices = GENERATOR.permutation(len(memory["train"]))[:30]
  np.testing.assert_array_equal(lazy["train"][indices], memory["train"][indices])


@pytest.mark.parametrize("one_class", [None, 3])
def test_patches_of_an_image_are_in_one_split(archive, one_class, tmp_path):
  labels = np.arange(10) if one_class is None else np.full(10, 3)
  np.savez(archive, x_train=IMAGES, y_train=labels)
  memory, streamed = (load(archive, patch=(5, 8), one_class=one_class, placement=p) for p in ("memory", "stream"))
  assert memory.fingerprints == streamed.fingerprints
  assert (len(memory.train), len(memory.test)) == (8 * 4, 2 * 4)
  if one_class is None:
    assert not {*memory.train_labels} & {*memory.test_labels}
    np.testing.assert_array_equal(np.bincount(memory.train_labels)[memory.train_labels], 4)


def test_patches_of_a_folder_equal_those_of_an_array(tmp_path, archive):
  for number, image in enumerate(IMAGES):
    (tmp_path / "p").mkdir(exist_ok=True)
    Image.fromarray(image).save(tmp_path / "p" / f"{number}.png")
  for placement in ("memory", "stream"):
    folder = data.load("folder", str(tmp_path / "p"), "unit", patch=(5, 8), placement=placement)
    assert folder.fingerprint() == load(archive, patch=(5, 8)).fingerprint()


@pytest.mark.parametrize("patch", [(12, 4), (4, 18), (4, 4, 4), (0, 4), (2.0, 2)])
def test_patches_that_do_not_fit_are_refused(archive, patch):
  with pytest.raises(errors.UserError, match=r"config\.data\.patch="):
    load(archive, patch=patch)


def test_patches_of_a_table_are_refused(tmp_path):
  np.savez(tmp_path / "t.npz", x_train=np.zeros((9, 4)))
  with pytest.raises(errors.UserError, match="has no images; remove this key"):
    load(tmp_path / "t.npz", patch=(2, 2))
