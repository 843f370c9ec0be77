"""Examples of new files, in parts of limited size."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ae_jax import errors
from ae_jax.data import lazy_arrays, new_cuts, remarks
from ae_jax.data.recorded_tables import RecordColumns
from ae_jax.data.schema import Schema


class Part(NamedTuple):
  """A batch of examples that is read at once."""

  names: Sequence[str]  # per example: path of the file in the folder, entry of the column of names, or row number
  x: Any  # examples [N, *shape], or a DataFrame, for the methods of a run
  labels: Any = None  # as stored, [N, ...] or a column of a DataFrame, for `new_labels.in_run`; None: there are none
  target: Any = None  # [N, *shape], with which the reconstructions are compared; None: they are compared with `x`
  mask: Any = None  # [N, *shape], 1 for observed elements; None: all elements are observed


class NewFiles(NamedTuple):
  """All examples of a file or folder."""

  parts: Iterator[Part]
  remarks: list[str]  # messages about files, columns and arrays that are not read, and about converted images
  no_labels: str  # how to add labels, if the parts have none; otherwise ""
  extra: Mapping[str, str] = {}  # {"target" or "mask": name of its array}, if the parts have it


class Named(NamedTuple):
  """Columns of a table or arrays of a file that the user names; "" for a default."""

  names: str = ""  # column of a table with the names of its rows
  array: str = ""  # array of the examples
  label: str = ""  # column or array of the labels
  target: str = ""  # array of the targets
  mask: str = ""  # array of the masks


class Wanted(NamedTuple):
  """Properties of examples that are compatible with a run, and the config section with the options for reading."""

  shape: tuple[int, ...]  # of an example
  value_range: str  # config.data.range
  schema: Schema | None  # columns of a table
  section: Mapping[str, Any]  # config.data
  columns: RecordColumns | None = None  # if the run was trained on recordings in tables
  normal: str | None = None  # name or label of the normal class, if the run has one


def joined(
  cuts: Sequence[new_cuts.Cut], notes: list[str], where: str, section: Mapping[str, Any], fix: str
) -> NewFiles:
  """Joins the examples of all cuts; raises UserError if all files or rows are smaller than a window or patch.

  `fix` says how to add labels.
  """
  key, examples = ("window", "recordings") if section["window"] else ("patch", "images")
  small = [source for cut in cuts if not cut.names for source in cut.sources]
  if small and len(small) == sum(len(cut.sources) for cut in cuts):
    raise errors.UserError(
      f"{where}: all {examples} are smaller than config.data.{key}={section[key]} of the run; pass larger ones"
    )
  notes = notes + remarks.not_read(where, small, f"these are smaller than config.data.{key}={section[key]}")
  cuts = [cut for cut in cuts if cut.names]
  no_labels = fix if any(cut.labels is None for cut in cuts) else ""
  return NewFiles(itertools.chain.from_iterable(map(_parts, cuts)), notes, no_labels)


def _parts(cut: new_cuts.Cut) -> Iterator[Part]:
  """Yields the examples of a cut in parts of limited size, with their names and labels."""
  row = 0
  for part in lazy_arrays.parts(cut.x, np.arange(len(cut.x))):
    rows = slice(row, row + len(part))
    extra = {
      name: lazy_arrays.read_rows(array, np.arange(*rows.indices(len(cut.x)))) for name, array in cut.extra.items()
    }
    yield Part(cut.names[rows], part, None if cut.labels is None else cut.labels[rows], **extra)
    row += len(part)
