"""Results of the analyses of a run, and their files in the run folder.

evaluation/values.json holds {"step", "values": {name: number, null if it is not finite}, "remarks": {name: sentence},
"figures": [name, ...]}, where a name is EVALUATOR/NAME; evaluation/NAME.npz holds a figure.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterable
from typing import Any

from ae_jax import errors
from ae_jax.evaluators import figures

FOLDER = "evaluation"


@dataclasses.dataclass(frozen=True)
class Results:
  """Results of analyzing the parameters at a step; names are "EVALUATOR/NAME"."""

  step: int
  values: dict[str, float | int]
  remarks: dict[str, str]  # name -> sentence
  figures: dict[str, Any]  # name -> a kind of `figures.KINDS`


def collect(step: int, pairs: Iterable[tuple[str, Any]]) -> Results:
  """Returns the `Results` at a step from the (name, value) pairs of `evaluators.analyses`.

  Raises:
    TypeError: If a value is not a number, sentence or figure.
  """
  kinds: dict[str, Any] = {"remarks": str, "values": (int, float), "figures": tuple(figures.KINDS.values())}
  parts: dict[str, dict[str, Any]] = {kind: {} for kind in kinds}
  for name, value in pairs:
    kind = next((kind for kind, types in kinds.items() if isinstance(value, types)), None)
    if kind is None:
      raise TypeError(f"{name}: {errors.format_value(value)} must be an int, a float, a sentence or a figure")
    parts[kind][name] = value
  return Results(step, **parts)


def merge(old: Results | None, new: Results) -> Results:
  """Returns the new results, plus the old results of the same step from evaluators that have no new ones."""
  if old is None or old.step != new.step:
    return new
  evaluated = {name.partition("/")[0] for part in (new.values, new.remarks, new.figures) for name in part}
  kept = lambda part: {name: value for name, value in part.items() if name.partition("/")[0] not in evaluated}
  parts = ("values", "remarks", "figures")
  return Results(new.step, *(kept(getattr(old, part)) | getattr(new, part) for part in parts))


def write(workdir: pathlib.Path, results: Results) -> None:
  """Writes results into a run folder and removes the files of other figures.

  Raises:
    OSError: If the folder cannot be written.
    ValueError: If two figures have the same file.
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
  part = folder / "values.json.part"
  part.write_text(json.dumps(stored, indent=1) + "\n")
  os.replace(part, folder / "values.json")


def _files(names: Iterable[str]) -> dict[str, str]:
  """Returns {file: name of its figure}; raises ValueError if two figures have the same file."""
  files: dict[str, str] = {}
  for name in names:
    file = f"{name.rpartition('/')[2]}.npz"
    if file in files:
      raise ValueError(f"the figures {files[file]} and {name} have the same file, {file}; rename one")
    files[file] = name
  return files


def read(workdir: pathlib.Path) -> Results | None:
  """Returns the results in a run folder, None if it has none; raises UserError if they are damaged."""
  file = workdir / FOLDER / "values.json"
  if not file.exists():
    return None
  try:
    stored = json.loads(file.read_text())
    values = {str(name): math.nan if value is None else float(value) for name, value in stored["values"].items()}
    remarks = {str(name): str(value) for name, value in stored["remarks"].items()}
    names = list(map(str, stored["figures"] if "figures" in stored else stored["exhibits"]))  # the key in version 0.1
    step = int(stored["step"])
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise errors.UserError(f"{file}: cannot be read ({errors.one_line(error)}); evaluate the run again") from None
  loaded = {name: figures.load(workdir / FOLDER / f"{name.rpartition('/')[2]}.npz") for name in names}
  return Results(step, values, remarks, loaded)
