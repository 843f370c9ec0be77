"""Results of the analyses of a run, and their files in the run folder.

The file evaluation/values.json holds {"step": int, "values": {name: number}, "remarks": {name: sentence}, "figures":
[name, ...]}, where each name is "EVALUATOR/NAME". Numbers that are not finite are stored as null. Each figure is in a
file evaluation/NAME.npz.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable
from typing import Any

from ae_jax import errors
from ae_jax.evaluators import figures
from ae_jax.system import atomic

FOLDER = "evaluation"


@dataclasses.dataclass(frozen=True)
class Results:
  """Results of the analyses of a model after `step` optimizer steps. The names are "EVALUATOR/NAME"."""

  step: int
  values: dict[str, float | int]
  remarks: dict[str, str]  # name -> sentence
  figures: dict[str, Any]  # name -> figure of a class in `figures.KINDS`


def collect(step: int, pairs: Iterable[tuple[str, Any]]) -> Results:
  """Returns the `Results` at a step from the (name, value) pairs of `evaluators.analyses`.

  Raises:
    TypeError: A value is not an int, float, str or figure.
  """
  kinds: dict[str, Any] = {"remarks": str, "values": (int, float), "figures": tuple(figures.KINDS.values())}
  sorted_pairs: dict[str, dict[str, Any]] = {kind: {} for kind in kinds}
  for name, value in pairs:
    kind = next((kind for kind, types in kinds.items() if isinstance(value, types)), None)
    if kind is None:
      raise TypeError(
        f"{name}: {errors.format_value(value)} must be an int, float, str or figure (`evaluators.figures`)"
      )
    sorted_pairs[kind][name] = value
  return Results(step, **sorted_pairs)


def merge(old: Results | None, new: Results) -> Results:
  """Returns the new results; evaluators without new results keep the old ones if the step is unchanged."""
  if old is None or old.step != new.step:
    return new
  evaluated = {name.partition("/")[0] for pairs in (new.values, new.remarks, new.figures) for name in pairs}
  keep = lambda pairs: {name: value for name, value in pairs.items() if name.partition("/")[0] not in evaluated}
  fields = ("values", "remarks", "figures")
  return Results(new.step, *(keep(getattr(old, field)) | getattr(new, field) for field in fields))


def write(workdir: pathlib.Path, results: Results) -> None:
  """Writes results into a run folder, and removes the files of figures that are not in the results.

  Raises:
    OSError: The folder cannot be written.
    ValueError: Two figures have the same file name.
  """
  files = _files(results.figures)
  folder = workdir / FOLDER
  folder.mkdir(exist_ok=True)
  for old in folder.glob("*.npz"):
    if old.name not in files:
      old.unlink()
  for file, name in files.items():
    figures.save(folder / file, results.figures[name])
  values = {name: value if math.isfinite(value) else None for name, value in results.values.items()}
  stored = {"step": results.step, "values": values, "remarks": results.remarks, "figures": list(results.figures)}
  atomic.write_text(folder / "values.json", json.dumps(stored, indent=1) + "\n")


def _files(names: Iterable[str]) -> dict[str, str]:
  """Returns {file name: name of the figure}; raises ValueError if two figures have the same file name."""
  files: dict[str, str] = {}
  for name in names:
    file = f"{name.rpartition('/')[2]}.npz"
    if file in files:
      raise ValueError(
        f"the figures {files[file]} and {name} have the same file, {file}; rename one of the two figures"
      )
    files[file] = name
  return files


def read(workdir: pathlib.Path) -> Results | None:
  """Returns the results in a run folder; None if there are none.

  Raises:
    UserError: A file of the results is damaged.
  """
  file = workdir / FOLDER / "values.json"
  if not file.exists():
    return None
  try:
    stored = json.loads(file.read_text(encoding="utf-8"))
    values = {str(name): math.nan if value is None else float(value) for name, value in stored["values"].items()}
    remarks = {str(name): str(value) for name, value in stored["remarks"].items()}
    # Version 0.1 stored the names of the figures under the key "exhibits".
    names = list(map(str, stored["figures"] if "figures" in stored else stored["exhibits"]))
    step = int(stored["step"])
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise errors.UserError(
      f"{file}: cannot be read ({errors.one_line(error)}); remove the folder {file.parent} and evaluate the run again"
    ) from None
  loaded = {name: figures.load(workdir / FOLDER / f"{name.rpartition('/')[2]}.npz") for name in names}
  return Results(step, values, remarks, loaded)
