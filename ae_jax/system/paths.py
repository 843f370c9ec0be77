"""Paths from the user."""

import os
import pathlib
import re

from ae_jax import errors

# "gs://bucket/run", or "gs:/bucket/run" after pathlib; two or more letters, because Windows drives have one
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(key: str, text: str | os.PathLike[str]) -> pathlib.Path:
  """Returns a path from the user with a leading `~` expanded.

  Args:
    key: Flag, config key or argument that the path comes from, for the message.
    text: The path as the user wrote it.

  Raises:
    UserError: The path is remote ("gs://bucket/run"), or `~user` is the home folder of an unknown user.
  """
  text = os.fspath(text)
  if _REMOTE.match(text):
    raise errors.UserError(
      f"{key}={errors.format_key(text)}: remote paths are not supported; name a local folder or file"
    )
  try:
    return pathlib.Path(text).expanduser()
  except RuntimeError as error:
    raise errors.UserError(f"{key}={errors.format_key(text)}: {errors.one_line(error)}") from None
