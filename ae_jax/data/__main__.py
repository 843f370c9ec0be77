"""Prints what a file or folder of data contains, and the command that trains on it.

  ae_jax data photos
  ae_jax data measurements.npz --out=examples.png
  python -m ae_jax.data digits

The kind of the data, the sizes and modes of images, the range of the values, the labels, missing values, exact
duplicates, constant columns or pixels, and damaged files are printed. All examples are read, and the printed command is
checked. --out writes a picture of random examples; without it, no file is written. The exit status is 1 if the data
cannot be used; the message says why.
"""

import pathlib
import shlex
from typing import Any

import numpy as np
from absl import flags

from ae_jax import cli, errors
from ae_jax.system import paths

flags.adopt_module_key_flags(cli)

_OUT = flags.DEFINE_string("out", "", "PNG file to write with a picture of random examples; its name must end in .png.")
_FAMILIES = {"table": "dense", "series": "sequence", "images": "cnn", "volumes": "dense"}  # kind -> shipped config
_SMALLEST = 8  # smallest side of images that the convolutional model takes
_PER_CLASS, _MOST_CLASSES, _UNLABELLED = 10, 10, 100  # numbers of examples in the picture


def main(arguments: list[str]) -> None:
  """Describes the data at a path."""
  with cli.user_errors():
    if len(arguments) > 1:
      cli.fail(f"unexpected argument {arguments[1]!r}; give one file or folder", cli.WRONG_USAGE)
    out = paths.local_path("--out", _OUT.value) if _OUT.value else None
    if out and out.suffix != ".png":
      cli.fail(f"--out={out}: must end in .png", cli.WRONG_INPUT)
    path = str(paths.local_path("PATH", arguments[0]))
    from ae_jax import data
    from ae_jax.data import detection, inspection

    found = detection.detect(path)
    print(f"{path}: read as config.data.name={found.name}", flush=True)
    result = inspection.inspect(found, path)
    print("\n".join(result.lines), flush=True)
    given = "" if path == found.name else path
    dataset = data.load(found.name, given, **({"range": "unit"} | result.options))  # checks the printed command
    if out:
      _draw(out, dataset, path)
      print(f"picture of examples: {out}")
    print(f"to train: {_command(found.name, given, result)}")


def _command(name: str, path: str, result: Any) -> str:
  """Returns the command that trains on the data."""
  family = _FAMILIES[result.kind]
  if family == "cnn" and min(result.shape[:2]) < _SMALLEST:
    family = "dense"
  flags_of_data = {"path": path, **result.options} if path else result.options
  arguments = [f"--config={family}:{name}"]
  arguments += [f"--config.data.{key}={_text(value)}" for key, value in flags_of_data.items()]
  if "range" in result.options:
    arguments.append("--config.objective.likelihood=gaussian")
  return shlex.join(["ae_jax", "train", *arguments])


def _text(value: Any) -> str:
  return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _draw(out: pathlib.Path, dataset: Any, path: str) -> None:
  """Saves a picture of random training examples, with one row for each class."""
  from ae_jax.data import lazy_arrays, ranges
  from ae_jax.evaluators import figures
  from ae_jax.report import pictures

  generator, title = np.random.default_rng(0), f"training examples of {path}"
  rows = {}
  values = dataset.train_labels
  values = np.zeros(len(dataset.train), int) if values is None else lazy_arrays.read_all(values)
  is_labelled = len(np.unique(values)) > 1
  for label in np.unique(values)[:_MOST_CLASSES]:
    members = np.flatnonzero(values == label)
    size = min(len(members), _PER_CLASS if is_labelled else _UNLABELLED)
    examples = lazy_arrays.read_rows(dataset.train, np.sort(generator.choice(members, size, replace=False)))
    rows[dataset.class_name(label)] = ranges.normalise(examples, dataset.value_range)
  if is_labelled:
    figure = figures.ExampleRows(title, {name: _padded(examples, dataset.span.low) for name, examples in rows.items()})
  else:
    figure = figures.Gallery(title, next(iter(rows.values())))
  with errors.convert_os_errors(f"--out={out}"):
    pictures.draw(out, figures.displayed(figure, dataset.kind), dataset.value_range)


def _padded(examples: np.ndarray, value: float) -> np.ndarray:
  """Returns `_PER_CLASS` examples; the missing ones have a constant value."""
  missing = np.full((_PER_CLASS - len(examples), *examples.shape[1:]), value, examples.dtype)
  return np.concatenate([examples, missing])


def run() -> None:
  """Runs the command."""
  cli.run_on_arguments(main, "ae_jax data photos")


if __name__ == "__main__":
  run()
