"""Damaged data files with arrays: functions (folder, generator) -> (name of the source, path).

Each function writes valid, damaged or fake data of a source that reads the user's files into an empty folder.
"""

import io
import os
import pickle
import struct
import zipfile
import zlib

import numpy as np

from experiments.endurance.ingredients import (
  BYTE_DAMAGES,
  UnpickleDetector,
  arrays,
  header,
  image_bytes,
  npy_bytes,
  npz_bytes,
  write,
)

CLAIMED = 3 * 2**30  # unpacked bytes of a decompression bomb


def npz_damaged(folder, generator):
  """Writes a truncated, altered or shuffled archive."""
  data = npz_bytes(**arrays(generator))
  return "npz", write(folder, "mine.npz", BYTE_DAMAGES[generator.integers(len(BYTE_DAMAGES))](data, generator))


def npz_compressed_and_damaged(folder, generator):
  """Writes a truncated, altered or shuffled compressed archive."""
  file = io.BytesIO()
  np.savez_compressed(file, **arrays(generator))
  return "npz", write(
    folder, "mine.npz", BYTE_DAMAGES[generator.integers(len(BYTE_DAMAGES))](file.getvalue(), generator)
  )


_DTYPES = ["bool", "int8", "int64", "uint16", "float16", "float32", ">f8", "longdouble", "complex64"]
_DTYPES += ["S3", "U2", "V4", "M8[s]", "m8[D]", "i4,f4", "V0", "U0"]


def npz_dtype(folder, generator):
  """Writes an array with another dtype."""
  members = arrays(generator)
  key, dtype = generator.choice(list(members)), np.dtype(generator.choice(_DTYPES))
  numbers = dtype.kind in "biufc"
  members[key] = (members[key] % 2).astype(dtype) if numbers else np.zeros(members[key].shape, dtype)
  return "npz", write(folder, "mine.npz", npz_bytes(**members))


def npz_objects(folder, generator):
  """Writes an array that can only be read by unpickling."""
  members = arrays(generator)
  members[generator.choice(list(members))] = np.array([None, {"a": UnpickleDetector()}, 3], object)
  return "npz", write(folder, "mine.npz", npz_bytes(**members))


def npz_rank(folder, generator):
  """Writes an array with a random number of axes, some of length 0."""
  members = arrays(generator)
  key = generator.choice(list(members))
  shape = tuple(generator.integers(0, 4, generator.integers(0, 7)))
  return "npz", write(folder, "mine.npz", npz_bytes(**{**members, key: np.zeros(shape, np.uint8)}))


def npz_not_finite(folder, generator):
  """Writes a value that is not finite or not in the range."""
  members = arrays(generator)
  key = generator.choice(["x_train", "x_test"])
  both = {name: (members[name] / 255).astype(generator.choice(["f4", "f8"])) for name in ("x_train", "x_test")}
  both[key].flat[generator.integers(both[key].size)] = generator.choice([np.nan, np.inf, -np.inf, 1e300, -1e-3, 1.001])
  return "npz", write(folder, "mine.npz", npz_bytes(**{**members, **both}))


def npz_labels(folder, generator):
  """Writes labels with a wrong length or rank."""
  members = arrays(generator)
  key = generator.choice(["y_train", "y_test"])
  labels = np.arange(generator.integers(0, 30))
  members[key] = labels if generator.integers(3) else labels[:, None]
  return "npz", write(folder, "mine.npz", npz_bytes(**members))


def npz_missing(folder, generator):
  """Writes some arrays with other names."""
  members = arrays(generator)
  for key in generator.choice(list(members), generator.integers(1, 5), replace=False):
    members[generator.choice(["X_train", "a/b", "../x_train", "x_train.npy", "é"])] = members.pop(key)
  return "npz", write(folder, "mine.npz", npz_bytes(**members))


def npz_members(folder, generator):
  """Writes an archive with duplicate members, names outside of the archive, or members that are not arrays."""
  members, file = arrays(generator), io.BytesIO()
  names = [
    "x_train.npy",
    "x_train.npy",
    "x_train",
    "../../x_train.npy",
    "/etc/x_train.npy",
    "x_test.npy",
    "y_train.npy",
  ]
  with zipfile.ZipFile(file, "w") as archive:
    for name in generator.choice(names, generator.integers(1, 7)):
      contents = [
        npy_bytes(members["x_train"]),
        npy_bytes(members["x_train"][:3]),
        b"",
        b"text",
        npy_bytes(members["y_train"]),
      ]
      archive.writestr(str(name), contents[generator.integers(len(contents))])
  return "npz", write(folder, "mine.npz", file.getvalue())


def npz_bomb(folder, generator):
  """Writes a valid member that unpacks to gigabytes, with other members undamaged."""
  contents = arrays(generator)
  key = str(generator.choice(list(contents)))
  count, *sides = contents[key].shape
  if key[0] == "x":
    descr, shape, size = "|u1", (CLAIMED // 30, *sides), CLAIMED // 30 * 30
  else:  # labels of many bytes each
    descr, shape, size = f"|V{CLAIMED // count}", (count,), CLAIMED // count * count
  head, packer = header(descr, shape), zlib.compressobj(9, zlib.DEFLATED, -15)
  packed = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
  block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
  packed += block * (size // 2**24) + packer.compress(bytes(size % 2**24)) + packer.flush()
  others = [name for name in contents if name != key and (name[0] == "x" or key[0] == "y")]
  good = {name: npy_bytes(contents[name]) for name in others}
  members = [(name, data, len(data), zipfile.ZIP_STORED) for name, data in good.items()]
  return "npz", write(folder, "mine.npz", _archive(*members, (key, packed, len(head) + size, zipfile.ZIP_DEFLATED)))


def npz_claims(folder, generator):
  """Writes a member whose header or archive entry states a wrong size."""
  shapes = [
    (2**40, 8, 8),
    (2**62, 8, 8),
    (-1, 8, 8),
    (10, 2**31, 2**31),
    (2**64, 1, 1),
    (0, 2**40, 2**40),
    "(1,",
    (1.5, 2, 2),
  ]
  head = header(generator.choice(["|u1", "<f8", "|O", "|V0", "nonsense"]), shapes[generator.integers(len(shapes))])
  contents = head + bytes(640)
  size = int(generator.choice([len(contents), 2**31, 0, 10]))
  return "npz", write(folder, "mine.npz", _archive(("x_train", contents, size, zipfile.ZIP_STORED)))


def _archive(*members):
  """Returns a zip file of members (name, contents, stated unpacked size, method)."""
  local, central = b"", b""
  for name, packed, size, method in members:
    stem = f"{name}.npy".encode()
    checksum = zlib.crc32(packed) if method == zipfile.ZIP_STORED else 0  # wrong for a bomb
    fields = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 0x21, checksum, len(packed), size, len(stem), 0)
    location = struct.pack("<HHHII", 0, 0, 0, 0, len(local))
    central += b"PK\1\2" + struct.pack("<H", 20) + fields + location + stem
    local += b"PK\3\4" + fields + stem + packed
  count = len(members)
  return local + central + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count, count, len(central), len(local), 0)


def npz_of_another_kind(folder, generator):
  """Writes a file of another kind with the name of an archive."""
  others = [
    b"",
    b"hello\n" * 50,
    generator.bytes(500),
    pickle.dumps(UnpickleDetector()),
    b"\x93NUMPY",
    header("|u1", (3, 8, 8)) + bytes(192),
    image_bytes(generator),
    b"PK\5\6" + bytes(18),
    b"\x1f\x8b\x08" + bytes(30),
  ]
  return "npz", write(folder, "mine.npz", others[generator.integers(len(others))])


def npy_damaged(folder, generator):
  """Writes a truncated, altered or shuffled file."""
  data = npy_bytes(arrays(generator)["x_train"])
  return "npy", write(folder, "mine.npy", BYTE_DAMAGES[generator.integers(len(BYTE_DAMAGES))](data, generator))


def npy_claims(folder, generator):
  """Writes a header that does not match the data."""
  shapes = [
    (12, 6, 5),
    (2**40, 6, 5),
    (11, 6, 5),
    (13, 6, 5),
    (-12, 6, 5),
    (12, 0, 5),
    (),
    (360,),
    (1, 2, 3, 4, 15),
    (2**62, 4, 4),
  ]
  descr = generator.choice(["|u1", "<f4", ">f8", "|O", "|V0", "<U1", "[('a', '<f4')]", "x" * 20_000])
  head = header(str(descr), shapes[generator.integers(len(shapes))], bool(generator.integers(2)))
  return "npy", write(folder, "mine.npy", head[:8] + head[8:] + bytes(360))


def npy_objects(folder, generator):
  """Writes a file that can only be read by unpickling."""
  return "npy", write(folder, "mine.npy", npy_bytes(np.array([UnpickleDetector()] * generator.integers(1, 9), object)))


def npy_folder(folder, generator):
  """Writes a folder of arrays, some of them damaged or missing."""
  for key, array in arrays(generator).items():
    if generator.integers(5):
      data = npy_bytes(array)
      write(
        folder,
        f"{key}.npy",
        data if generator.integers(3) else BYTE_DAMAGES[generator.integers(len(BYTE_DAMAGES))](data, generator),
      )
  return "npy", str(folder)


def ucr_damaged(folder, generator):
  """Writes a slightly damaged text of numbers."""
  table = np.round(generator.normal(size=(9, 7)), 3)
  table[:, 0] = np.arange(9) % 2
  lines = "\n".join(" ".join(map(str, row)) for row in table).encode()
  modifications = (
    *BYTE_DAMAGES,
    lambda text, _: text.replace(b".", b","),
    lambda text, _: text.replace(b" ", b"\t"),
    lambda text, _: b"",
  )
  return "ucr", write(
    folder, "Beats_TRAIN.txt", modifications[generator.integers(len(modifications))](lines, generator)
  )


def odd_path(folder, generator):
  """Returns an invalid path, or a path to something that the source does not read."""
  (folder / "empty").mkdir()
  write(folder, "text", b"some words")
  os.mkfifo(folder / "pipe")
  os.mkfifo(folder / "x_train.npy")
  paths = [
    "",
    ".",
    "/",
    "/dev/zero",
    "/dev/null",
    "nowhere",
    "a\0b",
    "a\nb",
    "x" * 5000,
    "~",
    "\udc80",
    "http://localhost/x",
  ]
  paths += [str(folder / name) for name in ("", "empty", "text", "pipe", "x_train.npy", "text/below")]
  return str(generator.choice(["npz", "npy", "folder", "ucr"])), paths[generator.integers(len(paths))]


ARRAYS = (
  npz_damaged,
  npz_compressed_and_damaged,
  npz_dtype,
  npz_objects,
  npz_rank,
  npz_not_finite,
  npz_labels,
  npz_missing,
  npz_members,
  npz_bomb,
  npz_claims,
  npz_of_another_kind,
  npy_damaged,
  npy_claims,
  npy_objects,
  npy_folder,
  ucr_damaged,
  odd_path,
)
