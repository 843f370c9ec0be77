"""Reconstructions as PNG files: the folders that are refused, and the values that are black and white."""

import numpy as np
import pytest
from made_exports import made
from PIL import Image

from ae_jax import errors
from ae_jax.decisions import picture_files
from ae_jax.run_methods import measures

X = np.random.default_rng(0).random((4, 6, 5, 1), np.float32)


@pytest.mark.parametrize(
  ("folder", "source"),
  [
    ("photos", "photos"),
    ("photos/sub", "photos"),
    (".", "photos"),
    ("link", "photos"),
    ("photos", "photos/a.png"),
  ],
)
def test_folders_in_which_pictures_could_replace_data_are_refused(tmp_path, folder, source):
  (tmp_path / "photos").mkdir()
  (tmp_path / "photos" / "a.png").write_bytes(b"image")
  (tmp_path / "link").symlink_to(tmp_path / "photos")
  with pytest.raises(errors.UserError, match="could overwrite files of --data"):
    picture_files.check(tmp_path / folder, made(), {"--data": tmp_path / source})


@pytest.mark.parametrize(("folder", "source"), [("new", "photos"), ("photos/new", "photos/a.png"), (".", "x.npz")])
def test_other_folders_are_not_refused(tmp_path, folder, source):
  (tmp_path / "photos").mkdir()
  for name in ("photos/a.png", "x.npz"):
    (tmp_path / name).write_bytes(b"data")
  picture_files.check(tmp_path / folder, made(), {"--data": tmp_path / source})


def test_runs_on_other_data_than_images_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match="are not images"):
    picture_files.check(tmp_path, made(shape=(30,)), {})


@pytest.mark.parametrize(
  ("values", "value_range", "span"),
  [
    (X, "real", (0, 1)),
    (np.zeros_like(X), "real", (0, 1)),
    (X * 0.1 + 0.4, "unit", (0, 1)),
    (X * 2 - 1, "symmetric", (-1, 1)),
    (255 * X, "real", (255 * X.min(), 255 * X.max())),
    (6 * X - 3, "real", ((6 * X - 3).min(), (6 * X - 3).max())),
    (np.full_like(X, 7), "real", (7, 8)),
  ],
)
def test_black_and_white_are_the_range_of_the_examples(values, value_range, span):
  found, remarks = picture_files.span_of(values, value_range)
  assert found == pytest.approx(span)
  assert len(remarks) == (span not in ((0, 1), (-1, 1)))


def test_pictures_show_reconstructions_in_any_unit(tmp_path):
  run = made(value_range="real")
  inputs = measures.inputs_of(run, X * 255, None, None, {})
  expected = run.reconstruct(X * 255)
  low, high = float(expected.min()), float(expected.max())
  picture_files.write(tmp_path, ["a.png", "deep/b.png", "c", "d.jpg"], run, inputs, (low, high))
  files = ["a.png", "c.png", "d.jpg.png", "deep/b.png"]
  assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.*")) == files
  found = np.asarray(Image.open(tmp_path / "a.png"))
  np.testing.assert_allclose(found, 255 * (expected[0, ..., 0] - low) / (high - low), atol=0.51)
