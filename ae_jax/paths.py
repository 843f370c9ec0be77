"""Paths that the user gives: `~` is expanded, and remote paths are refused."""

import os
import pathlib
import re

from ae_jax import errors

# pathlib turns gs://bucket into gs:/bucket, so one slash is enough; C:/ is a drive of Windows.
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(key: str, text: str | os.PathLike[str]) -> pathlib.Path:
  """Returns a path of this machine, with `~` expanded.

  Args:
    key: The flag or config key that the path comes from, such as "--workdir" or "config.data.path".
    text: The path as the user wrote it.

  Raises:
    UserError: For a remote path (gs://, s3://, hdfs://, http://).
  """
  text = os.fspath(text)
  if _REMOTE.match(text):
    raise errors.UserError(f"{key}={errors.shown(text)}: remote paths are not supported; name a local path")
  return pathlib.Path(os.path.expanduser(text))
