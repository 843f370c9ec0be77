"""What the analyses found about a run, and its files in the folder of the run.

evaluation/values.json holds {"step", "values": {name: number, null if it is not finite}, "remarks": {name: sentence},
"figures": [name, ...]}, where a name is EVALUATOR/NAME; evaluation/NAME.npz is an figure.
"""

import dataclasses
import json
import math
import os

from ae_jax import errors
from ae_jax.evaluators import figures

FOLDER = "evaluation"


@dataclasses.dataclass(frozen=True)
class Results:
  """What was found about the parameters of a step; names are "EVALUATOR/NAME"."""

  step: int
  values: dict  # name -> float or int
  remarks: dict  # name -> sentence
  figures: dict  # name -> figure


def of(step, found):
  """Returns the `Results` of a step from the (name, value) of `evaluators.analyses`.

  Raises:
    TypeError: If a value is no number, sentence or figure.
  """
  kinds = {"remarks": str, "values": (int, float), "figures": tuple(figures.KINDS.values())}
  parts = {kind: {} for kind in kinds}
  for name, value in found:
    kind = next((kind for kind, types in kinds.items() if isinstance(value, types)), None)
    if kind is None:
      raise TypeError(f"{name}: {errors.shown(value)} must be an int, a float, a sentence or an figure")
    parts[kind][name] = value
  return Results(step, **parts)


def merged(old, new):
  """The new findings, and those of the old that are of the same step and of evaluators that were not asked again."""
  if old is None or old.step != new.step:
    return new
  asked = {name.partition("/")[0] for part in (new.values, new.remarks, new.figures) for name in part}
  kept = lambda part: {name: value for name, value in part.items() if name.partition("/")[0] not in asked}
  parts = ("values", "remarks", "figures")
  return Results(new.step, *(kept(getattr(old, part)) | getattr(new, part) for part in parts))


def write(workdir, results):
  """Writes findings into the folder of a run.

  Raises:
    OSError: If the folder cannot be written.
    ValueError: If two figures have the same file.
  """
  files = _files(results.figures)
  folder = workdir / FOLDER
  folder.mkdir(exist_ok=True)
  for file in folder.glob("*.npz"):
    if file.name not in files:
      file.unlink()
  for file, name in files.items():
    figures.save(folder / file, results.figures[name])
  values = {name: value if math.isfinite(value) else None for name, value in results.values.items()}
  words = {"step": results.step, "values": values, "remarks": results.remarks, "figures": list(results.figures)}
  part = folder / "values.json.part"
  part.write_text(json.dumps(words, indent=1) + "\n")
  os.replace(part, folder / "values.json")


def _files(names):
  """Returns {file: name of the figure in it}; ValueError if two figures have the same file."""
  files = {}
  for name in names:
    file = f"{name.rpartition('/')[2]}.npz"
    if file in files:
      raise ValueError(f"the figures {files[file]} and {name} have the same file, {file}; rename one")
    files[file] = name
  return files


def read(workdir):
  """The `Results` in the folder of a run, None where there are none yet; UserError where they are damaged."""
  file = workdir / FOLDER / "values.json"
  if not file.exists():
    return None
  try:
    words = json.loads(file.read_text())
    values = {str(name): math.nan if value is None else float(value) for name, value in words["values"].items()}
    remarks = {str(name): str(value) for name, value in words["remarks"].items()}
    names = list(map(str, words["figures"] if "figures" in words else words["exhibits"]))  # its name in version 0.1
    step = int(words["step"])
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise errors.UserError(f"{file}: cannot be read ({errors.one_line(error)}); evaluate the run again") from None
  shown = {name: figures.load(workdir / FOLDER / f"{name.rpartition('/')[2]}.npz") for name in names}
  return Results(step, values, remarks, shown)
