"""Data source for folders of image files. Images are decoded once and cached, or decoded again in each epoch."""

import functools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ae_jax import errors
from ae_jax.data import decoding, defect_masks, image_sets, labels, lazy_arrays, remarks, splits
from ae_jax.system import paths

SUFFIXES = {suffix for suffixes in decoding.FORMATS.values() for suffix in suffixes}
# lower-case folder name -> "train", "test" or "validation"
_SPELLINGS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SPELLINGS |= dict.fromkeys(splits.VALIDATION_NAMES, "validation")


def folder(name: str, path: str, *, read_validation: bool = True, **options: Any) -> dict[str, Any]:
  """Reads all images under a folder. Without options, they must have the same size and the same mode.

  Subfolders `train` and `test` (or Train, Training, TEST, ...) contain the training and test set, and a subfolder
  `val`, `valid` or `validation` the validation set. Without `train`, all images under the folder are training images.
  Without `test`, the test set is drawn from the training images (see `draws.divide`). Each subfolder of the training,
  test and validation folder is a class; see `labels.numbered` for the labels. Files without an image suffix, and names
  that begin with a dot, are skipped. Links are followed only to files inside the folder, unless `follow_links` is set.
  Masks of defects are read from a folder `ground_truth` beside `test`; see `defect_masks`.

  Args:
    name: Name of the source.
    path: The folder.
    read_validation: Whether a validation set is read.
    **options: How images are resized and converted, and how damaged files are handled; see `image_sets.options`.

  Raises:
    UserError: A file or folder cannot be used; the message names it.
  """
  chosen = image_sets.options(**options)
  splits.check_path(name, path, "folder of images")
  where, found = f"config.data.path={path!r}", scan(path, chosen, read_validation)
  layout = image_sets.common_layout(found.headers, found.all_files, chosen, where)
  check = functools.partial(image_sets.check_readable, found.all_files, chosen, where)
  arrays = {
    split: image_sets.images(files, layout, chosen, f"{split} {found.version}", check)
    for split, files in found.files.items()
  }
  notes = found.remarks + image_sets.changes(found.headers, found.all_files, chosen, where)
  if defect_masks.applies(found.folders):
    of_test, preparation = found.files["test"], chosen.preparation
    try:
      arrays["test_defects"] = defect_masks.read(found.folders["test"], of_test, preparation, layout.shape)
    except errors.UserError as error:
      notes.append(f"{where}: the masks of defects are not read, because {error}")
  names = {
    f"{split}_names": np.array([paths.relative_name(file, path) for file in files], object)
    for split, files in found.files.items()
  }
  found_arrays = _with_labels(arrays, found.files, found.folders) | names
  return found_arrays | {"remarks": notes, "scaled_to_unit": layout.scaled}


class Scan(NamedTuple):
  """Contents of a folder: its splits, its image files and their headers, without the pixels."""

  folders: dict[str, pathlib.Path]  # {"train": folder, "test": folder, "validation": folder}, if they exist
  files: dict[str, list[str]]  # {split: paths of its images, in the order of the examples}
  headers: list[decoding.Header]  # headers of the images, in the order of `all_files`
  version: str  # text that changes whenever a file changes
  remarks: list[str]  # messages about files that are not read
  damaged: int  # number of image files that were left out, because they cannot be read

  @property
  def all_files(self) -> list[str]:
    """Paths of the images of all splits, in the order of `headers`."""
    return [file for paths in self.files.values() for file in paths]


def scan(path: str, chosen: image_sets.Options, read_validation: bool = True) -> Scan:
  """Lists the images under a folder and reads their headers.

  Raises:
    UserError: A file or folder cannot be used, or there are too few images.
  """
  where, root = f"config.data.path={path!r}", pathlib.Path(path)
  if not root.is_dir():
    raise errors.UserError(f"{where}: folder not found; check the path")
  try:
    folders, files, version, notes = _listed(root, chosen.follow_links, read_validation, where)
  except OSError as error:
    raise errors.UserError(f"{where}: {error.filename} cannot be read: {error.strerror}") from None
  _check_counts(files, folders, where)
  kept, headers, left_out = image_sets.readable(files, chosen, version, where)
  _check_counts(kept, folders, where)
  damaged = sum(map(len, files.values())) - len(headers)
  notes += left_out
  if "validation" in kept and "test" not in kept:
    notes.append(splits.no_test_set(where, f"the folder {folders['validation'].name}"))
  return Scan(folders, kept, headers, version, notes, damaged)


def _listed(
  root: pathlib.Path, follow_links: bool, read_validation: bool, where: str
) -> tuple[dict[str, pathlib.Path], dict[str, list[str]], str, list[str]]:
  """Returns {split: folder}, {split: image files}, a version string that changes with the files, and notes."""
  skipped, inside = [], None if follow_links else root.resolve()
  folders = _folders_of_splits(root, read_validation, where)
  for split_folder in {*folders.values()} - {root}:
    _check_link(split_folder, inside)
  files = {split: list(_files(split_folder, inside, skipped)) for split, split_folder in folders.items()}
  version = "\n".join([str(root.resolve()), *(_version(file) for paths in files.values() for file in paths)])
  return folders, files, version, _not_read(root, folders, skipped, where)


def files_under(root: pathlib.Path, follow_links: bool) -> tuple[list[str], list[str], str]:
  """Returns the image files at a path, the names of other files, and a version string that changes with the files.

  Masks of defects (see `defect_masks`) are left out.

  Args:
    root: An image file, or a folder; the files of a folder are sorted by name within each subfolder.
    follow_links: Whether links to files and folders outside the folder are followed.
  """
  skipped: list[str] = []
  try:
    is_folder = root.is_dir()
    files = [*_files(root, None if follow_links else root.resolve(), skipped)] if is_folder else [str(root)]
    if has_masks(root):
      files = [file for file in files if not pathlib.Path(file).is_relative_to(root / defect_masks.FOLDER)]
    version = "\n".join([str(root.resolve()), *map(_version, files)])
  except OSError as error:
    raise errors.UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
  return files, skipped, version


def has_masks(root: pathlib.Path) -> bool:
  """Returns whether a folder has masks of defects for the test images in it."""
  return root.is_dir() and any(
    _SPELLINGS.get(name.lower()) == "test" and (root / name).is_dir() and defect_masks.applies({"test": root / name})
    for name in remarks.visible(root)
  )


def _check_counts(files: Mapping[str, Sequence[str]], folders: Mapping[str, pathlib.Path], where: str) -> None:
  """Raises UserError if a split has too few images."""
  for split in files:
    least = 1 if split != "train" else 2 if "test" in files else 3
    if len(files[split]) < least:
      raise errors.UserError(
        f"{where}: found {remarks.counted(len(files[split]), 'image')} under {folders[split]}; at least {least} are "
        f"required, with names that end in {', '.join(sorted(SUFFIXES))}"
      )


def _with_labels(
  arrays: dict[str, lazy_arrays.LazyArray], files: Mapping[str, Sequence[str]], folders: Mapping[str, pathlib.Path]
) -> dict[str, Any]:
  """Adds the labels and the class names to the images; the keys of the arguments are the splits that have a folder."""
  classes = {split: _classes(paths, folders[split]) for split, paths in files.items()}
  label_of, class_names = labels.numbered([name for names in classes.values() for name in names or ()])
  integers = {
    f"{split}_labels": np.array([label_of[name] for name in names]) for split, names in classes.items() if names
  }
  return {**arrays, **integers, "class_names": class_names}


def _folders_of_splits(root: pathlib.Path, read_validation: bool, where: str) -> dict[str, pathlib.Path]:
  """Returns the folders of the training, test and validation set, {"train": folder, "test": folder, ...}.

  A set without a folder has no key. If `root` has no such folders, the result is {"train": root}. A folder with the
  exact name `train` or `test` is always the folder of this set. Other spellings (see `_SPELLINGS`) could be class names
  ("Train" beside "Bus"), so they are used only if there is a training folder and also a test or validation folder.
  """
  names_of = {}
  for name in sorted(remarks.visible(root)):
    split = _SPELLINGS.get(name.lower())
    if split and (root / name).is_dir():
      names_of.setdefault(split, []).append(name)
  candidates = [name for names in names_of.values() for name in names]
  if not {"train", "test"} & {*candidates} and not ("train" in names_of and len(names_of) > 1):
    return {"train": root}
  for split, names in names_of.items():
    if len(names) > 1 and (split != "validation" or read_validation):
      raise errors.UserError(f"{where}: contains both `{names[0]}` and `{names[1]}`; keep one folder")
  if "train" not in names_of:
    raise errors.UserError(f"{where}: contains a folder `{names_of['test'][0]}` but no folder `train`; add it")
  read = splits.SPLITS if read_validation else ("train", "test")
  return {split: root / names_of[split][0] for split in read if split in names_of}


def _not_read(root: pathlib.Path, folders: Mapping[str, pathlib.Path], skipped: Sequence[str], where: str) -> list[str]:
  """Returns notes about images outside `folders`, {split: folder}, and about the files in `skipped`."""
  notes = []
  if folders["train"] != root:
    read, counts = [folder.name for folder in folders.values()], {}
    masks = {defect_masks.FOLDER} if defect_masks.applies(folders) else set()
    for name in set(remarks.visible(root)) - {*read} - masks:
      files = (file for _, _, files in os.walk(root / name) for file in files) if (root / name).is_dir() else [name]
      counts[name] = sum(_is_image(file) for file in files)
    names = [f"{name} ({remarks.counted(count, 'image')})" for name, count in counts.items() if count]
    notes = remarks.not_read(where, names, f"the folders that are read are {' and '.join(read)}")
  return notes + remarks.not_read(where, remarks.by_suffix(skipped), "these files have no supported image suffix")


def is_split(name: str) -> bool:
  """Returns whether a folder name is that of a training, test or validation set."""
  return name.lower() in _SPELLINGS


def _is_image(file: str) -> bool:
  """Returns whether a file name has the suffix of an image format."""
  return os.path.splitext(file)[1].lower() in SUFFIXES


def _files(
  folder: str | os.PathLike[str], root: pathlib.Path | None, skipped: list[str], parents: frozenset[str] = frozenset()
) -> Iterator[str]:
  """Yields the paths of all image files under a folder, sorted by name within each subfolder.

  Appends the names of all other files to `skipped`. Links are followed only to files inside `root`; if `root` is None,
  all links are followed. `parents` are the real paths of the parent folders, to detect cycles.
  """
  real = os.path.realpath(folder)
  if real in parents:
    raise errors.UserError(f"{os.fspath(folder)}: links to {real}, which contains it; remove the link")
  with os.scandir(folder) as entries:
    visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
  for entry in visible:
    _check_link(entry, root)
    if entry.is_dir():
      yield from _files(entry.path, root, skipped, parents | {real})
    elif not _is_image(entry.name):
      skipped.append(entry.name)
    else:
      if not entry.is_file():
        raise errors.UserError(f"{entry.path}: is a pipe, a device or a broken link; expected an image file. Remove it")
      yield entry.path


def _check_link(path: pathlib.Path | os.DirEntry, root: pathlib.Path | None) -> None:
  """Raises UserError if a path is a link, unless it leads to a file inside `root` or `root` is None."""
  if root and path.is_symlink():
    target = pathlib.Path(os.path.realpath(path))  # unlike `resolve`, does not fail for a link to itself
    if not (target.is_file() and target.is_relative_to(root)):
      raise errors.UserError(
        f"{os.fspath(path)}: links to {target}, which is not a file inside {root}; replace the link by a copy, or set "
        "--config.data.follow_links=True"
      )


def _version(file: str) -> str:
  status = os.stat(file)
  return f"{file} {status.st_size} {status.st_mtime_ns}"


def _classes(files: Sequence[str], folder: str | os.PathLike[str]) -> list[str] | None:
  """Returns the class of each file, i.e. the name of the subfolder of `folder` that contains it.

  Returns None if no file is in a subfolder.
  """
  relative = [os.path.relpath(file, folder).split(os.sep) for file in files]
  without_class = [len(parts) == 1 for parts in relative]
  if all(without_class):
    return None
  if any(without_class):
    raise errors.UserError(f"{files[without_class.index(True)]}: is not in a class folder; move it into one")
  return [parts[0] for parts in relative]
