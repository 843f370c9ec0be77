"""Well-known file formats that are not read, and how to convert each of them."""

import itertools
import os
import pathlib
import re
from collections.abc import Iterator

from ae_jax import errors

_HDF5 = b"\x89HDF\r\n\x1a\n"  # first bytes of an HDF5 file
_SHARD = re.compile(r"-\d+-of-\d+$")  # end of the name of a shard of TensorFlow Datasets
_MOST_FILES = 1000  # maximum number of files of a folder that are looked at
_UNPACK = "unpack it, and give the folder"
_FRAMES = "write its frames with `ffmpeg -i FILE frames/%06d.png`, and give the folder"

# suffixes -> (name of the format, how to convert a file); the first format with a file in a folder is named
FORMATS = {
  ".tfrecord .tfrecords .array_record": (
    "a file of TensorFlow records",
    "a data set of TensorFlow Datasets is read by its name, --config=cnn:NAME; convert other records to a .npz file, "
    "see the FAQ of the documentation",
  ),
  ".mat": ("a MATLAB file", 'convert it: numpy.save("x.npy", scipy.io.loadmat("FILE")["ARRAY"])'),
  ".h5ad": ("an AnnData file", 'convert it: anndata.read_h5ad("FILE").to_df().to_parquet("x.parquet")'),
  ".pkl .pickle .joblib": (
    "a pickle, which can run code",
    'if you trust it, convert it: numpy.save("x.npy", numpy.asarray(pandas.read_pickle("FILE")))',
  ),
  ".pt .pth": ("a file of PyTorch", 'convert it: numpy.save("x.npy", torch.load("FILE", weights_only=True).numpy())'),
  ".safetensors": (
    "a file of tensors",
    'convert it: numpy.save("x.npy", safetensors.numpy.load_file("FILE")["ARRAY"])',
  ),
  ".xlsx .xls .ods": ("a spreadsheet", 'convert it: pandas.read_excel("FILE").to_csv("x.csv", index=False)'),
  ".feather .arrow": ("a Feather file", 'convert it: pandas.read_feather("FILE").to_parquet("x.parquet")'),
  ".zarr": ("a Zarr store", 'convert it: numpy.save("x.npy", zarr.open("FILE", mode="r")["ARRAY"][:])'),
  ".nc": ("a NetCDF file", 'convert it: numpy.save("x.npy", xarray.open_dataset("FILE")["ARRAY"].to_numpy())'),
  ".wav": ("a sound file", 'convert it: numpy.save("x.npy", scipy.io.wavfile.read("FILE")[1].astype("float32"))'),
  ".mp3 .flac .ogg": ("a sound file", 'convert it: numpy.save("x.npy", soundfile.read("FILE", dtype="float32")[0])'),
  ".mp4 .avi .mov .mkv .webm": ("a video", _FRAMES),
  ".dcm": ("a DICOM file", 'convert it: numpy.save("x.npy", pydicom.dcmread("FILE").pixel_array)'),
  ".nii": ("a NIfTI file", 'convert it: numpy.save("x.npy", nibabel.load("FILE").get_fdata(dtype="float32"))'),
  ".zip .tar .tgz": ("an archive", _UNPACK),
  ".jsonl": ("a file of JSON lines", 'convert it: pandas.read_json("FILE", lines=True).to_csv("x.csv", index=False)'),
  ".json": ("a JSON file", 'convert it: pandas.read_json("FILE").to_csv("x.csv", index=False)'),
}
_KNOWN = {suffix: entry for suffixes, entry in FORMATS.items() for suffix in suffixes.split()}


def check(path: str, where: str, name: str = "") -> None:
  """Raises UserError with the conversion if a file, or each file of a folder, has a format of `FORMATS`.

  Args:
    path: A file or folder; one that does not exist is not checked.
    where: Prefix of the message.
    name: config.data.name if it is known. "hdf5" reads any HDF5 file, also with a suffix of another format.
  """
  if name == "hdf5" and _is_hdf5(path):
    return
  found = []
  for file in itertools.islice(_files(path), _MOST_FILES):
    if _suffix(file) not in _KNOWN:
      return
    found.append(file)
  if not found:
    return
  file = min(found, key=lambda file: ([*_KNOWN].index(_suffix(file)), file))
  kind, fix = _KNOWN[_suffix(file)]
  here = f"{where}: is" if file == path else f"{where}: contains {os.path.relpath(file, path)},"
  raise errors.UserError(f"{here} {kind}, which is not read; {fix.replace('FILE', pathlib.Path(file).as_posix())}")


def _files(path: str) -> Iterator[str]:
  """Yields a file, or the visible files under a folder; a folder whose suffix is that of a format counts as a file."""
  if os.path.isfile(path) or (os.path.isdir(path) and _suffix(path.rstrip("/\\")) in _KNOWN):
    yield path
    return
  for folder, _, names in os.walk(path):
    yield from (os.path.join(folder, name) for name in names if not name.startswith("."))


def _suffix(file: str) -> str:
  """Returns the last suffix of a file in lower case, without ".gz" and the number of a shard."""
  return pathlib.Path(_SHARD.sub("", file.lower()).removesuffix(".gz")).suffix


def _is_hdf5(path: str) -> bool:
  if not os.path.isfile(path):
    return False
  with open(path, "rb") as file:
    return file.read(len(_HDF5)) == _HDF5
