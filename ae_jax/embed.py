"""Writes the latent codes of the data set of a run: a row for each training, validation and test example.

  ae_jax embed --workdir=runs/cnn --out=latents.csv
  ae_jax embed --workdir=runs/cnn --out=latents.npz --score=mahalanobis
  python -m ae_jax.embed --workdir=runs/cnn --out=latents.parquet --data=/other/place/x.npz

Each row has the half, the name (the file of an image, otherwise the row in the source), the label if there are labels,
the score, the flag if the run has a threshold, and the latents. --data is for data that were moved since the training;
their contents must be the same.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

from absl import flags

from ae_jax import cli
from ae_jax.system import paths

flags.adopt_module_key_flags(cli)

_OUT = flags.DEFINE_string("out", "", "File to write; its name ends in .csv, .parquet or .npz.")
_DATA = flags.DEFINE_string("data", "", "Path of the data of the run; default: config.data.path of the run.")
_SCORE = flags.DEFINE_string("score", "", "Kind of the scores; default: that of the threshold, or reconstruction.")
_WHICH = flags.DEFINE_enum("which", "last", ["last", "best"], "Checkpoint to apply.")

_ROWS = 8192  # examples that are read at a time


def main(workdir: pathlib.Path) -> None:
  """Writes the latent codes of the data set of the run in a folder."""
  with cli.user_errors():
    if not _OUT.value:
      cli.fail("--out is missing; for example --out=latents.csv", cli.WRONG_USAGE)
    from ae_jax import api
    from ae_jax.decisions import rows
    from ae_jax.runs import run_folder
    from ae_jax.system import cache

    out = paths.local_path("--out", _OUT.value)
    rows.check(out)
    run = api.load(workdir, _WHICH.value)
    dataset = run_folder.load_data(workdir, run.config, _DATA.value)
    cache.keep_compiled_programs()
    kind, threshold = rows.choose(run, _SCORE.value)
    measured = rows.measure(run, _prepared(run, dataset), kind, threshold)
    rows.write(out, measured)
    for line in rows.summary(out, measured, kind, threshold):
      print(line)


def _prepared(run: Any, dataset: Any) -> Iterator[Any]:
  """Yields the half, the names, the labels and the inputs of all examples, in parts."""
  import numpy as np

  from ae_jax.data import example_names, labels, lazy_arrays
  from ae_jax.decisions import halves

  section = run.config.data.to_dict() | ({"path": _DATA.value} if _DATA.value else {})
  for half, names in example_names.of_halves(dataset, section).items():
    given = getattr(dataset, f"{half}_labels")
    for start in range(0, len(names), _ROWS):
      rows = np.arange(start, min(start + _ROWS, len(names)))
      known = {"half": np.full(len(rows), half, "<U10"), "name": names[rows]}
      if given is not None:
        found = lazy_arrays.read_rows(given, rows)
        known["label"] = np.array([labels.class_name(label, dataset.class_names) for label in found])
      yield known, halves.inputs_of(run, dataset, half, rows)


def run() -> None:
  """Runs the command."""
  cli.run_on_folder(main)


if __name__ == "__main__":
  run()
