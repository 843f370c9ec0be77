import ast
import re

import h5py
import numpy as np
import pandas as pd
import pytest

from ae_jax import data, errors
from ae_jax.data import detection, foreign_formats

EXAMPLES = {
  "x.tfrecord": "read by its name",
  "mnist-train.tfrecord-00000-of-00002": "read by its name",
  "x.mat": "scipy.io.loadmat",
  "x.H5AD": "anndata.read_h5ad",
  "x.pkl": "if you trust it",
  "x.pt": "torch.load",
  "x.xlsx": "pandas.read_excel",
  "x.json": "pandas.read_json",
  "x.feather": "pandas.read_feather",
  "x.wav": "scipy.io.wavfile",
  "x.mp4": "ffmpeg -i",
  "x.nii.gz": "nibabel.load",
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_reader_says_how_to_convert_the_file(tmp_path, name):
  path = str(tmp_path / name)
  (tmp_path / name).write_bytes(b"x")
  readers = [lambda: detection.detect(path)]
  sources = ("npz", "npy", "csv", "hdf5", "folder")
  readers += [lambda source=source: data.load(source, path, "real") for source in sources]
  for read in readers:
    with pytest.raises(errors.UserError, match="which is not read; ") as refusal:
      read()
    assert EXAMPLES[name] in str(refusal.value)
    assert str(refusal.value).count(path) >= 1


def test_folders_of_such_files_are_named_by_their_main_format(tmp_path):
  for name in ("dataset_info.json", "features.json", "a-train.tfrecord-00000-of-00001", ".hidden"):
    (tmp_path / name).write_bytes(b"x")
  with pytest.raises(errors.UserError, match=r"contains a-train\.tfrecord-00000-of-00001, a file of TensorFlow"):
    detection.detect(str(tmp_path))
  (tmp_path / "notes.txt").write_bytes(b"x")
  foreign_formats.check(str(tmp_path), "here")
  (tmp_path / "store.zarr").mkdir()
  with pytest.raises(errors.UserError, match="is a Zarr store"):
    detection.detect(str(tmp_path / "store.zarr"))


def test_readable_and_absent_files_are_not_refused(tmp_path):
  np.savez(tmp_path / "x.npz", x_train=np.zeros((9, 4)))
  for path in (tmp_path / "x.npz", tmp_path / "absent.mat", tmp_path / "none", tmp_path):
    foreign_formats.check(str(path), "here")
  with h5py.File(tmp_path / "x.mat", "w") as file:  # MATLAB 7.3 files are HDF5 files
    file["x_train"] = np.random.default_rng(0).random((20, 4))
  assert data.load("hdf5", str(tmp_path / "x.mat"), "unit").shape == (4,)


def test_suggested_code_is_valid_python_and_converts(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for _, fix in foreign_formats.FORMATS.values():
    for code in re.findall(r"(?:numpy|pandas|anndata)\..*\)$", fix):
      ast.parse(code)
  frame = pd.DataFrame({"a": [1, 2], "b": [0.5, 0.25]})
  frame.to_json("x.json")
  with pytest.raises(errors.UserError) as refusal:
    foreign_formats.check("x.json", "x.json")
  exec(str(refusal.value).partition("convert it: ")[2], {"pandas": pd})
  pd.testing.assert_frame_equal(pd.read_csv("x.csv"), frame)
