"""Reads the arrays of sources whose files contain named arrays; each array has a role, such as x_train or mask_test."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ae_jax import errors
from ae_jax.data import array_names, labels, lazy_arrays, remarks, splits

LAYOUTS = {"nhwc": "[N, H, W, C]", "nchw": "[N, C, H, W]"}  # config.data.layout -> axes of images
_MOST_CHANNELS = 4  # a second axis of at most this size, before two larger ones, looks like channels


def read(
  headers: array_names.Headers, chosen: array_names.Options, where: str
) -> tuple[dict[str, lazy_arrays.LazyArray], dict[str, str]]:
  """Returns the arrays to read and their names as ({role: array}, {role: name}); roles are "x_train", "y_test", ..."""
  names = array_names.choose(headers, chosen, where)
  return {role: headers[name]() for role, name in names.items() if name in headers}, names


def unread(headers: array_names.Headers, names: Mapping[str, str], where: str) -> list[str]:
  """Returns a list with one note that names the unread arrays of a file; [] if all arrays are read."""
  listed = ", ".join(names.values())
  return remarks.not_read(where, headers.keys() - set(names.values()), f"the arrays that are read are {listed}")


def train_and_test(
  stored: Mapping[str, lazy_arrays.LazyArray],
  names: Mapping[str, str],
  layout: str,
  where: str,
  notes: Sequence[str] = (),
) -> dict[str, Any]:
  """Returns the arrays of a source; the keys of `stored` and `names` are roles: x_train, y_train, mask_train, ..."""
  arrays, notes = {}, [*notes]
  for split in splits.SPLITS:
    if f"x_{split}" in stored:
      arrays[split] = _channels_last(stored[f"x_{split}"], layout, names[f"x_{split}"], where)
  arrays |= _loss_columns(stored, names, layout, where)
  shape = arrays["train"].shape
  if "test" not in arrays:
    if not shape or shape[0] < 3:
      few = f"has only {remarks.counted(shape[0], 'example')}, too few to hold out a test set" if shape else ""
      raise errors.UserError(
        f"{where}: `{names['x_train']}` {few or 'is a single number, not an array of examples'}; provide at least 3 "
        "examples, or add test examples"
      )
    if "validation" in arrays:
      notes.append(splits.no_test_set(where, f"`{names['x_validation']}`"))
  if "group_train" in stored:
    arrays["train_group"] = _groups(stored["group_train"], shape, names, where)
  given = {split: names[f"y_{split}"] for split in splits.SPLITS if f"y_{split}" in stored}
  for split, name in given.items():
    shape, images = stored[f"y_{split}"].shape, stored.get(f"x_{split}")
    if images is None or shape[:1] != images.shape[:1]:
      raise errors.UserError(
        f"{where}: `{name}` has shape {shape}; expected one label per example of `{names[f'x_{split}']}`"
      )
    labels.check(shape, stored[f"y_{split}"].dtype, name, where)
  loaded = {name: stored[f"y_{split}"].load() for split, name in given.items()}
  integers, class_names, label_notes = labels.as_integers(loaded, where)
  arrays |= {f"{split}_labels": integers[name] for split, name in given.items()}
  return arrays | {"class_names": class_names, "remarks": [*notes, *label_notes]}


def _loss_columns(
  stored: Mapping[str, lazy_arrays.LazyArray], names: Mapping[str, str], layout: str, where: str
) -> dict[str, lazy_arrays.MaybeLazy]:
  """Returns the targets, masks, weights and lengths that exist, {"train_mask": array, ...}.

  Raises:
    UserError: An array does not have one row per example.
  """
  columns = {}
  for role in array_names.OF_LOSS:
    if role not in stored:
      continue
    name, _, split = role.partition("_")
    array, examples = stored[role], stored.get(f"x_{split}")
    if examples is None or array.shape[:1] != examples.shape[:1]:
      raise errors.UserError(
        f"{where}: `{names[role]}` has shape {array.shape}; expected one row per example of "
        f"`{names.get(f'x_{split}', f'x_{split}')}`"
      )
    moves = name == "target" or (name == "mask" and len(array.shape) == len(examples.shape))
    columns[f"{split}_{name}"] = _channels_last(array, layout, names[role], where) if moves else array
  return columns


def _groups(
  groups: lazy_arrays.LazyArray, shape: tuple[int, ...], names: Mapping[str, str], where: str
) -> Shaped[np.ndarray, " examples"]:
  """Returns the group of each training example [N]; `shape` is the shape of the training examples [N, ...]."""
  if groups.shape not in (shape[:1], (*shape[:1], 1)):
    raise errors.UserError(
      f"config.data.group={names['group_train']!r}: this array of {where} has shape {groups.shape}; expected one group "
      f"per example of `{names['x_train']}`"
    )
  return groups.load().reshape(-1)


def _moved(values: np.ndarray) -> np.ndarray:
  return np.ascontiguousarray(np.moveaxis(values, 1, -1))


def _channels_last(images: lazy_arrays.LazyArray, layout: str, name: str, where: str) -> lazy_arrays.MaybeLazy:
  """Returns images [N, C, H, W] as [N, H, W, C]; other arrays are unchanged."""
  shape = images.shape
  errors.choose(LAYOUTS, layout, "data.layout")
  if layout == "nchw":
    if len(shape) != 4:
      raise errors.UserError(
        f"{where}: `{name}` has shape {shape}, but config.data.layout='nchw' needs [N, C, H, W]; remove this key"
      )
    return lazy_arrays.map_rows(images, (*shape[2:], shape[1]), images.dtype, _moved)
  if len(shape) == 4 and shape[1] <= _MOST_CHANNELS < min(shape[2:]):
    raise errors.UserError(
      f"{where}: `{name}` has shape {shape}, which looks like [N, C, H, W], but [N, H, W, C] is expected; set "
      f"config.data.layout=nchw, or save numpy.moveaxis({name}, 1, -1)"
    )
  return images
