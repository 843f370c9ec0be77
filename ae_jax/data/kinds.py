"""Kinds of examples: rows of a table, series, images and volumes, which differ in the number of axes of an example."""

from typing import Any

from ae_jax import errors
from ae_jax.data import lazy_arrays, loss_columns
from ae_jax.types import KINDS

ARRAY_FILES = ("npz", "npy", "hdf5", "arrays")  # data sources whose examples can be of any kind
# kind -> (number of axes of an array of examples without channel axis, the same with channel axis, text for messages)
_ARRAYS = {
  "table": (None, 2, "[N, columns]"),
  "series": (2, 3, "[N, T] or [N, T, C]"),
  "images": (3, 4, "[N, H, W] or [N, H, W, C]"),
  "volumes": (4, 5, "[N, D, H, W] or [N, D, H, W, C]"),
}
_AUTO = {2: "table", 3: "images", 4: "images", 5: "volumes"}  # number of axes -> kind, for config.data.kind=auto


def check(kind: str) -> None:
  """Raises UserError unless `config.data.kind` is "auto" or the name of a kind."""
  errors.choose(dict.fromkeys(("auto", *_ARRAYS)), kind, "data.kind")


def with_channels(examples: lazy_arrays.MaybeLazy, kind: str, where: str) -> lazy_arrays.MaybeLazy:
  """Adds a channel axis of size 1 to examples that have none, except to the rows of a table.

  Args:
    examples: Array [N, ...].
    kind: `config.data.kind`. "auto" means table for 2 axes, images for 3 or 4, and volumes for 5.
    where: Prefix of error messages.

  Raises:
    UserError: The number of axes is not compatible with the kind.
  """
  axes = len(examples.shape)
  if kind == "auto" and axes not in _AUTO:
    forms = "; ".join(f"{form} ({name})" for name, (_, _, form) in _ARRAYS.items())
    raise errors.UserError(f"{where}: the examples have {axes} axes; expected one of {forms}")
  kind = _AUTO[axes] if kind == "auto" else kind
  without, complete, form = _ARRAYS[kind]
  if axes not in (without, complete):
    raise errors.UserError(f"config.data.kind={kind!r}: the examples of {where} have {axes} axes; expected {form}")
  if axes == complete:
    return examples
  return lazy_arrays.map_rows(examples, (*examples.shape[1:], 1), examples.dtype, lambda rows: rows[..., None])


def apply(arrays: dict[str, Any], kind: str, name: str, where: str) -> None:
  """Adds a missing channel axis to the examples and targets of a source, in place.

  Args:
    arrays: Arrays of a source.
    kind: `config.data.kind`.
    name: Name of the source. For a source that is not in `ARRAY_FILES`, the kind of the examples is fixed; `kind` is
      then only compared with it.
    where: Prefix of error messages.

  Raises:
    UserError: The examples are not of this kind.
  """
  for split in loss_columns.of_examples(arrays):
    if name in ARRAY_FILES:
      arrays[split] = with_channels(arrays[split], kind, where)
      continue
    found = KINDS.get(len(arrays[split].shape) - 1)
    if kind not in ("auto", found):
      raise errors.UserError(f"config.data.kind={kind!r}: {where} is of the kind {found}; set config.data.kind='auto'")
