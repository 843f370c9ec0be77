"""Labels of new examples for a trained run: how they are stored, and which of them are anomalies."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

from ae_jax import errors
from ae_jax.data import folders, labels, lazy_arrays, one_class, remarks, windows

_MOST_SHOWN = 8  # maximum number of labels in a message
Labels = Shaped[np.ndarray, " examples"]


def of_folder(files: Sequence[str], root: pathlib.Path) -> dict[str, str]:
  """Returns {image file: class}, the name of the folder below `root`; {} if an image is in no such folder.

  Folders of splits are not classes: the class of `test/cat/1.png` is `cat`.
  """
  parts = {file: pathlib.Path(file).relative_to(root).parts[:-1] for file in files} if root.is_dir() else {}
  below = {file: names[1:] if len(names) > 1 and folders.is_split(names[0]) else names for file, names in parts.items()}
  return {file: names[0] for file, names in below.items()} if all(below.values()) else {}


def name_of_array(stored: Mapping[str, lazy_arrays.LazyArray], examples: str, section: Mapping[str, Any]) -> str:
  """Returns the name of the array with the labels of the array `examples`; "" if there is none.

  It is `config.data.y`, or has the name that belongs to the examples, such as `y_test` for `x_test`, or it is `y` or
  `labels`.
  """
  partner = f"y{examples[1:]}" if examples.startswith("x") else examples.replace("images", "labels")
  count = len(stored[examples])
  fits = lambda name: name in stored and name != examples and stored[name].shape[:1] == (count,)
  return next((name for name in (section["y"], partner, "y", "labels") if fits(name)), "")


def of_windows(
  values: Shaped[np.ndarray, "steps ..."],
  window: int,
  starts: Int[np.ndarray, " windows"],
  normal: str | None = None,
) -> Shaped[np.ndarray, " windows"]:
  """Returns the label of each window of a recording, see `windows.label_of`.

  Args:
    values: Labels of the steps, [T] or [T, 1].
    window: Length of a window.
    starts: First step of each window.
    normal: Name or label of the normal class; None: there is none.
  """
  names, numbers = np.unique(values, return_inverse=True)  # strings have no maximum
  of_normal = np.flatnonzero(names.astype(str) == normal)
  of_steps = np.lib.stride_tricks.sliding_window_view(numbers.reshape(-1), window)[starts]
  return names[windows.label_of(of_steps, int(of_normal[0]) if len(of_normal) else None)]


def in_run(values: Any, class_names: Sequence[str] | None, where: str) -> Labels:
  """Converts stored labels to integers [N], or to class names [N] if the classes of the run have names.

  Args:
    values: Labels in a form that `labels.as_integers` accepts, or a column of a DataFrame.
    class_names: Name of each label of the run, or None.
    where: Prefix of error messages.

  Raises:
    UserError: The values cannot be labels, or one is missing.
  """
  if not isinstance(values, np.ndarray):
    from ae_jax.data import table_files  # pandas takes half a second to import

    values = table_files.answers(values, f"label column {values.name!r}", 0, where)
  integers, found, _ = labels.as_integers({"labels": values}, where)
  if integers["labels"].dtype.kind == "f":
    raise errors.UserError(f"{where}: the labels contain numbers with fractions, so they are not classes")
  if found is not None:
    return np.array(found)[integers["labels"]]
  is_text = values.dtype.kind in "US"
  return integers["labels"].astype(str) if is_text and class_names else integers["labels"]


def name_of_class(normal: int | str, class_names: Sequence[str] | None) -> str:
  """Returns the name of a class that is given by its name or its label, or its label as text if it has no name."""
  is_name = str(normal) in (class_names or ())
  return str(normal) if is_name or not str(normal).isdecimal() else labels.class_name(int(normal), class_names)


def anomalous(
  values: Labels, class_names: Sequence[str] | None, normal: int | str | None
) -> tuple[Bool[np.ndarray, " examples"] | None, str]:
  """Returns which examples are anomalies (None: unknown), and a sentence about it.

  Args:
    values: Result of `in_run`.
    class_names: Name of each label of the run, or None.
    normal: Label or name of the normal class. None: unknown; if the labels are 0 and 1, 0 is normal.
  """
  is_text = values.dtype.kind == "U"
  names = values if is_text else np.array([labels.class_name(value, class_names) for value in values.tolist()])
  present = sorted({*names.tolist()})
  if normal in (None, one_class.EARLIER_ALL):
    if {*present} != {"0", "1"}:
      shown = ", ".join(present[:_MOST_SHOWN]) + (", ..." if len(present) > _MOST_SHOWN else "")
      return None, f"the normal class is unknown; set --normal to one of the labels {shown}"
    normal = "0"
  normal = name_of_class(normal, class_names)
  found = names != normal
  if found.all() or not found.any():
    kind = f"of other classes than {normal}" if found.all() else f"of the normal class {normal}"
    return None, f"all {len(names):,} examples are {kind}"
  others = remarks.counted(int(found.sum()), "example")
  return found, f"the normal class is {normal}; anomalies: {others} of other classes"
