"""Folders and files that the user names."""

import os
import pathlib
import re

from ae_jax import errors

# "gs://bucket/run", and "gs:/bucket/run" as pathlib writes it; a drive of Windows has one letter
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(key: str, text: str | os.PathLike) -> pathlib.Path:
  """Returns the local path that a text names, with a leading `~` expanded.

  Args:
    key: Flag, config key or argument that the text comes from, for the message.
    text: Path as the user writes it.

  Raises:
    UserError: For a remote path ("gs://bucket/run") and for the home folder of an unknown user.
  """
  text = os.fspath(text)
  if _REMOTE.match(text):
    raise errors.UserError(f"{key}={errors.plain(text)}: remote paths are not supported; name a local folder or file")
  try:
    return pathlib.Path(text).expanduser()
  except RuntimeError as error:
    raise errors.UserError(f"{key}={errors.plain(text)}: {errors.one_line(error)}") from None
