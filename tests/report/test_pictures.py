import numpy as np
import pytest
from PIL import Image

from ae_jax.report import pictures


def read(path):
  with Image.open(path) as image:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("value_range", ["unit", "symmetric", "real"])
def test_reconstructions_show_images_their_reconstructions_and_what_is_between(tmp_path, channels, value_range):
  images = np.random.default_rng(0).uniform(size=(5, 9, 7, channels)).astype(np.float32)
  same, other = tmp_path / "same.png", tmp_path / "other.png"
  pictures.reconstructions(same, images, images, value_range, "title")
  pictures.reconstructions(other, images, 1 - images, value_range, "title")
  a, b = (read(path) for path in (same, other))
  assert a.shape == b.shape
  thirds = [np.abs(x - y).max() for x, y in zip(np.array_split(a, 3), np.array_split(b, 3), strict=True)]
  assert thirds[0] == 0  # the images
  assert min(thirds[1:]) > 50  # the reconstructions and the differences


def test_a_constant_image_and_a_single_one_can_be_shown(tmp_path):
  images = np.full((1, 4, 4, 1), 0.5, np.float32)
  pictures.reconstructions(tmp_path / "a.png", images, images, "real", "title")
  assert read(tmp_path / "a.png").shape[1] > 100


def test_curves_of_perfection_can_be_drawn(tmp_path):
  records = [{"epoch": 1.0, "train/loss": 0.0, "test/loss": 0.0, "test/squared_error": 0.0}]
  pictures.curves(tmp_path / "a.png", records, {"test/pca_squared_error": 0.0})
  assert (tmp_path / "a.png").exists()


def test_curves_show_the_records(tmp_path):
  records = [{"epoch": e / 2, "train/loss": 90.0 / (e + 1)} for e in range(1, 9)]
  for record in records[1::2]:
    record |= {"test/loss": 99.0 / record["epoch"], "test/squared_error": 9.0 / record["epoch"]}
  rulers = {"test/pca_squared_error": 4.0}
  pictures.curves(tmp_path / "a.png", records, rulers)
  pictures.curves(tmp_path / "b.png", records[:4], rulers)
  a, b = (read(tmp_path / name) for name in ("a.png", "b.png"))
  assert (a != b).any()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_series_and_where_attention_looks_in_them_can_be_drawn(tmp_path, channels, count):
  examples = np.random.default_rng(0).normal(size=(count, 30, channels)).astype(np.float32)
  pictures.series(tmp_path / "a.png", examples, 0.5 * examples, "title")
  pictures.series(tmp_path / "b.png", examples, examples, "title")
  assert (read(tmp_path / "a.png") != read(tmp_path / "b.png")).any()
  weights = np.full((count, 1, 1, 30), 1 / 30, np.float32)
  pictures.attention_to_series(tmp_path / "c.png", examples, {"encoder": weights})
  assert (tmp_path / "c.png").exists()


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 12, 3)])
def test_attention_is_drawn_a_row_for_each_head(tmp_path, shape):
  generator = np.random.default_rng(0)
  images = generator.uniform(size=(4, *shape)).astype(np.float32)
  tokens = shape[0] * shape[1] // 16
  one, many = generator.dirichlet(np.ones(tokens), (4, 1, tokens)), generator.dirichlet(np.ones(tokens), (4, 3, 2))
  pictures.attention_to_images(tmp_path / "a.png", images, {"pool": many.astype(np.float32)}, "unit")
  pictures.attention_to_images(tmp_path / "b.png", images, {"block": one.astype(np.float32)}, "unit")
  assert read(tmp_path / "a.png").shape[0] > 1.5 * read(tmp_path / "b.png").shape[0]  # 4 rows and 2


def test_of_very_many_attention_maps_the_first_are_drawn(tmp_path):
  images, weights = np.ones((1, 4, 4, 1), np.float32), np.full((1, 600, 1, 16), 1 / 16, np.float32)
  pictures.attention_to_images(tmp_path / "a.png", images, {"pool": weights}, "unit")
  assert read(tmp_path / "a.png").shape[0] < 2**14


def test_samples_are_a_square(tmp_path):
  images = np.random.default_rng(0).uniform(size=(9, 6, 6, 1)).astype(np.float32)
  pictures.samples(tmp_path / "a.png", images, "unit", "title")
  pictures.posterior_kl(tmp_path / "b.png", [0.1, 3.0, 0.0])
  assert (tmp_path / "a.png").exists()
  assert (tmp_path / "b.png").exists()
