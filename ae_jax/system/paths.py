"""Cross-platform handling of user paths, and of file names and shell commands built from them."""

import os
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable

from ae_jax import errors

# Also matches "gs:/bucket/run", into which pathlib changes "gs://bucket/run". A single letter is a Windows drive.
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_RESERVED = re.compile(r'[<>:"/\\|?*]')  # characters that Windows or POSIX refuse in the name of a file
_MOST_LETTERS = 30  # maximum length of a shortened name


def local_path(key: str, text: str | os.PathLike[str]) -> pathlib.Path:
  """Returns a path from the user with a leading `~` expanded.

  Args:
    key: Flag, config key or argument that contains the path, for the error message.
    text: The path as the user wrote it.

  Raises:
    UserError: The path is remote ("gs://bucket/run"), or it begins with `~user` and the user is unknown.
  """
  text = os.fspath(text)
  if _REMOTE.match(text):
    raise errors.UserError(
      f"{key}={errors.format_key(text)}: remote paths are not supported, because memory maps, file locks and logs need "
      "a file system; copy the data to a local folder, or mount the bucket (gcsfuse, s3fs) and use the mounted path"
    )
  try:
    return pathlib.Path(text).expanduser()
  except RuntimeError:
    raise errors.UserError(
      f"{key}={errors.format_key(text)}: the home folder of this user is unknown; write the full path"
    ) from None


def file_name(text: str) -> str:
  """Returns a string as a part of a file name: characters that a system refuses are replaced by "_"."""
  return _RESERVED.sub("_", text)


def relative_name(file: str, folder: str | os.PathLike[str]) -> str:
  """Returns the name of a file in a folder, "SUBFOLDER/FILE" on all systems."""
  return os.path.relpath(file, folder).replace(os.sep, "/")


def shortened(name: str) -> str:
  """Returns a name of at most `_MOST_LETTERS` letters, without its first folders, such as "…/good/0013.png"."""
  parts = name.split("/")
  while len(parts) > 1 and len(name) > _MOST_LETTERS:
    parts = parts[1:]
    name = "/".join(["…", *parts])
  return name if len(name) <= _MOST_LETTERS else f"…{name[1 - _MOST_LETTERS :]}"


def command_line(arguments: Iterable[str]) -> str:
  """Returns a command as the text that a user can copy to the shell of this system."""
  return subprocess.list2cmdline(arguments) if sys.platform == "win32" else " ".join(map(_quoted, arguments))


def _quoted(argument: str) -> str:
  """Returns an argument as it is written in a POSIX shell; with double quotes if it contains only single ones."""
  is_plain = "'" in argument and not set(argument) & set('"$`\\!\n')
  return f'"{argument}"' if is_plain else shlex.quote(argument)
