"""Checks and expands paths that the user specifies."""

import os
import pathlib
import re

from ae_jax import errors

# Also matches "gs:/bucket/run", into which pathlib changes "gs://bucket/run". A single letter is a Windows drive.
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


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
