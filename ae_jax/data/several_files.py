"""Several files as one data set: `config.data.path` and `--data` may be a list of files or a pattern like `data/*.csv`.

The rows of the files are concatenated in the order of the list, or in alphabetical order for a pattern.
"""

import glob
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ae_jax import errors
from ae_jax.data import lazy_arrays, numpy_files, remarks
from ae_jax.system import paths

SOURCES = ("csv", "parquet", "npy")  # sources that read several files
FILE = "ae_jax: file"  # key of `DataFrame.attrs`
_MOST_LISTED = 5  # maximum number of files in a message


def of_path(path: str, key: str = "config.data.path") -> list[str]:
  """Returns the files that a path names: those of a list, separated by commas, or of a pattern, or the path itself.

  `key` is the config key or flag that contains the path, for error messages.

  Raises:
    UserError: A file of a list does not exist or is named twice, or no file matches a pattern.
  """
  if not _are_several(path):
    return [path]
  found: list[str] = []
  for part in path.split(","):
    matches = [file for file in _matches(part, key) if os.path.exists(file)]
    if not matches:
      fault = "no file matches this pattern" if _is_pattern(part) else "file not found"
      raise errors.UserError(f"{key}={errors.format_value(path)}: {part.strip()}: {fault}; check the path")
    found += matches
  if twice := [file for number, file in enumerate(found) if file in found[:number]]:
    raise errors.UserError(f"{key}={errors.format_value(path)}: {twice[0]} is named twice; remove one")
  return found


def named(path: str, key: str) -> list[str]:
  """Returns the files that a path names, whether they exist or not; a pattern that matches no file names none.

  `key` is the flag or config key that contains the path, for error messages.
  """
  return [file for part in (path.split(",") if _are_several(path) else [path]) for file in _matches(part, key)]


def _are_several(path: str) -> bool:
  """Returns whether a path is a list or a pattern, and not an existing file whose name looks like one."""
  return ("," in path or _is_pattern(path)) and not os.path.exists(path)


def _matches(part: str, key: str) -> list[str]:
  """Returns the file that a part of a list names, or the files that match it if it is a pattern."""
  file = str(paths.local_path(key, part.strip()))
  return sorted(glob.glob(file)) if _is_pattern(file) and not os.path.exists(file) else [file]


def are_files(x: Any) -> bool:
  """Returns whether `x` is a list or tuple of paths."""
  return isinstance(x, list | tuple) and bool(x) and all(isinstance(file, str | os.PathLike) for file in x)


def as_path(files: Sequence[str | os.PathLike[str]]) -> str:
  """Returns the `config.data.path` that names files; raises UserError if the name of a file contains a comma."""
  names = [str(paths.local_path("x", file)) for file in files]
  for name in names:
    if "," in name and len(names) > 1:
      raise errors.UserError(f"x: {name}: a file of a list cannot have a comma in its name; rename it")
  return ",".join(names)


def _is_pattern(path: str) -> bool:
  return any(character in path for character in "*?[")


def for_source(name: str, path: str) -> str:
  """Returns the path that the source `name` reads; raises UserError if it is several files and the source reads one."""
  files = of_path(path)
  if len(files) == 1:
    return files[0]
  if name not in SOURCES:
    raise errors.UserError(
      f"config.data.path={errors.format_value(path)}: names {len(files)} files, but config.data.name={name!r} reads "
      f"one file or folder; only {', '.join(SOURCES)} read several. Concatenate the arrays with numpy.concatenate and "
      "save them in one file, or move images to one folder"
    )
  return path


def note(files: Sequence[str], where: str) -> list[str]:
  """Returns a note that lists the files in the order of their rows; [] for a single file."""
  if len(files) < 2:
    return []
  names = ", ".join(os.path.basename(file) for file in files[:_MOST_LISTED])
  more = f" and {len(files) - _MOST_LISTED} more" if len(files) > _MOST_LISTED else ""
  return [f"{where}: the rows of {len(files)} files are concatenated in this order: {names}{more}"]


def tables(
  name: str, files: Sequence[str], kinds: Mapping[str, str], where: str, streamed: bool
) -> Callable[[], Iterator[Any]]:
  """Returns a function without arguments that yields the rows of CSV or Parquet files as DataFrames.

  The files must have the same columns, in any order. The attribute `FILE` of a DataFrame is its file.

  Args:
    name: Name of the source, "csv" or "parquet".
    files: The files.
    kinds: {column: kind} that the user has set.
    where: Prefix of error messages.
    streamed: Whether each DataFrame has a limited number of rows.
  """
  from ae_jax.data import table_files  # pandas takes half a second to import

  read_file = {"csv": table_files.read_csv, "parquet": table_files.read_parquet}[name]

  def read() -> Iterator[Any]:
    expected: list[str] = []
    for file in files:
      short = os.path.basename(file)
      place = f"config.data.path={file!r}" if len(files) > 1 else where if short in where else f"{where}: {short}"
      for frame in read_file(file, kinds, place, streamed):
        columns = list(map(str, frame.columns))
        expected = expected or columns
        if different := sorted(set(columns) ^ set(expected)):
          fault = "has a" if different[0] in columns else "has no"
          raise errors.UserError(
            f"{place}: {fault} column {different[0]!r}, unlike {files[0]}; all files need the same columns"
          )
        frame.attrs[FILE] = file
        yield frame

  return read


def as_recordings(rows: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
  """Returns `record_steps` and `record_names`, as in `series_folders.read`; {} if no split has several files.

  `rows` is {split: {file: number of its rows}}.
  """
  if all(len(files) == 1 for files in rows.values()):
    return {}
  return {
    "record_steps": {split: tuple(files.values()) for split, files in rows.items()},
    "record_names": {split: tuple(pathlib.Path(file).stem for file in files) for split, files in rows.items()},
  }


def arrays(files: Sequence[str], where: str) -> dict[str, Any]:
  """Returns the array "x_train" of .npy files, concatenated along the first axis, and properties of the files.

  `record_steps` and `record_names` are the lengths and names of the files, as in `series_folders.read`.

  Raises:
    UserError: A file cannot be read, or its shape differs from that of the first file.
  """
  parts = [numpy_files.file_array(pathlib.Path(file), where) for file in files]
  for file, part in zip(files, parts, strict=True):
    if part.shape[1:] != parts[0].shape[1:] or part.dtype != parts[0].dtype:
      raise errors.UserError(
        f"{where}: {file} has {remarks.counted(len(part), 'row')} of {part.dtype} {list(part.shape[1:])}, but "
        f"{files[0]} has rows of {parts[0].dtype} {list(parts[0].shape[1:])}; all files need the same shape and dtype"
      )
  lengths = {file: len(part) for file, part in zip(files, parts, strict=True)}
  return {"x_train": lazy_arrays.joined(parts, parts[0].dtype)} | as_recordings({"train": lengths})
