"""Replaces files atomically: a reader sees the old or the new contents, and an error leaves the old file unchanged."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def replace(file: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields the path of a temporary file beside `file`; at the end of the context, it becomes `file`.

  If the context raises an exception, the temporary file is removed and `file` is unchanged.
  """
  part = file.with_name(f"{file.name}.part")
  try:
    yield part
    os.replace(part, file)
  except BaseException:
    part.unlink(missing_ok=True)
    raise


def write_text(file: pathlib.Path, text: str) -> None:
  """Writes `text` to `file` as UTF-8 without newline translation."""
  with replace(file) as part:
    part.write_text(text, encoding="utf-8", newline="\n")
