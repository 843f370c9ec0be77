"""The run folder of a training from Python, which is temporary unless the user names one."""

import contextlib
import os
import pathlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from typing import TypeVar

from ae_jax.system import paths

_T = TypeVar("_T")


@contextlib.contextmanager
def run_folder_of(workdir: str | os.PathLike[str] | None) -> Iterator[tuple[pathlib.Path, Callable[[_T], _T]]]:
  """Yields the run folder and a function `keep`; the run folder is a temporary folder if `workdir` is None.

  `keep(owner)` returns `owner`, and removes the temporary folder when `owner` is deleted. If an exception is raised,
  the temporary folder is removed, unless it contains a checkpoint; a note in the exception then contains its path.
  """
  if workdir is not None:
    yield paths.local_path("workdir", workdir), lambda owner: owner
    return
  folder = pathlib.Path(tempfile.mkdtemp(prefix="ae_jax-"))

  def keep(owner: _T) -> _T:
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return owner

  try:
    yield folder, keep
  except BaseException as error:
    from ae_jax.runs import checkpoints  # imports Orbax

    if any(checkpoints.newest_step(each) is not None for each in folder.rglob("checkpoints")):
      error.add_note(f"The trained state is kept in {folder}; the same call with workdir={str(folder)!r} resumes it.")
    else:
      shutil.rmtree(folder, ignore_errors=True)
    raise
