"""Applies a trained run to new files: writes a row for each example, with its score, flag and latents.

  ae_jax apply --workdir=runs/cnn --data=photos --out=photos.csv
  ae_jax apply --workdir=runs/cnn --data=photos --out=photos.parquet --pictures=reconstructions
  ae_jax apply --workdir=runs/table --data=new.csv --out=rows.csv --names=customer --score=normalised
  ae_jax apply --workdir=runs/cvae --data=new.npz --out=rows.csv --label=y
  python -m ae_jax.apply --workdir=runs/cnn --data=new.npz --out=rows.npz --contamination=0.01

--data is a folder of images (with its subfolders), an image, a CSV or Parquet file, or a file of arrays (npz, npy,
HDF5); or several of one kind: a.csv,b.csv or a pattern such as 'new/*.csv'. New examples are preprocessed like the
training data of the run: images are converted to the same size and channels, and the columns of tables are encoded and
scaled in the same way. Files that cannot be read, and columns that are not inputs of the run, are listed. A conditional
model needs labels: the column config.data.label of a table or the array `y` of a file (--label names another one), or
the folders of images. Labels of a conditional model, and those that --label names, are copied to the column `label`.
For a table, `largest_error_column` is the name of the column with the largest squared error in each row; run.explain
returns the values, too. The column `flag` is written if the run has a threshold. --contamination sets a threshold from
the scores of the validation or training examples of the run, and replaces the stored one. In a file of arrays,
reconstructions are compared with the array `target` (or --target), if there is one, and elements with 0 in the array
`mask` (or --mask) are ignored. The data are never overwritten.
"""

import pathlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags

from ae_jax import array_flags, cli
from ae_jax.runs import progress
from ae_jax.system import paths

flags.adopt_module_key_flags(cli)

_DATA = flags.DEFINE_string("data", "", "File or folder of new examples, or several: a.csv,b.csv or a pattern.")
_OUT = flags.DEFINE_string("out", "", "File to write; its name ends in .csv, .parquet or .npz.")
_PICTURES = flags.DEFINE_string("pictures", "", "Folder for the reconstructions of images, as PNG files.")
_SCORE = flags.DEFINE_string("score", "", "Score to compute; default: the score of the threshold, or reconstruction.")
_NAMES = flags.DEFINE_string("names", "", "Column of a table with the names of its rows; default: their numbers.")
_NAMED = array_flags.define(
  "Column or array with the labels, which are copied to --out; default of conditional models: config.data.label or y."
)
_CONTAMINATION = flags.DEFINE_float("contamination", None, "Fraction of normal examples to flag; sets the threshold.")
_WHICH = flags.DEFINE_enum("which", "last", ["last", "best"], "Checkpoint to apply.")


def main(workdir: pathlib.Path) -> None:
  """Applies a trained model, loaded from its run folder, to the data given by the flags."""
  with cli.user_errors():
    for name, value in (("data", _DATA.value), ("out", _OUT.value)):
      if not value:
        cli.fail(f"--{name} is missing; for example --data=photos --out=photos.csv", cli.WRONG_USAGE)
    from ae_jax import api
    from ae_jax.decisions import rows, scores
    from ae_jax.system import cache

    out, path = paths.local_path("--out", _OUT.value), str(paths.local_path("--data", _DATA.value))
    run = api.load(workdir, _WHICH.value)
    kept = rows.kept_files(run, path)
    rows.check(out, kept)
    pictures = _folder_of_pictures(run, kept)
    found = rows.read(run, path, names=_NAMES.value, **array_flags.values(_NAMED))
    cache.keep_compiled_programs()
    if _CONTAMINATION.value is not None:
      _set_threshold(run)
    choice = rows.choose(run, _SCORE.value, "target" in found.extra)
    scores.check_target(choice.kind, _NAMED["target"].value or None)
    for line in (*found.remarks, *rows.remarks_on_extra(run, found, path, scores.choose(choice.kind).reads_target)):
      progress.print_line(line)
    measured = rows.measure(run, _prepared(run, found.parts, path, pictures, scores.choose(choice.kind)), choice)
    rows.write(out, measured)
    for line in rows.summary(out, measured, choice):
      print(line)


def _set_threshold(run: Any) -> None:
  """Replaces the stored threshold by one from --contamination; its kind is --score or, by default, the stored kind."""
  from ae_jax.decisions import store

  stored = store.read_threshold(run.workdir)
  kind = _SCORE.value or ("reconstruction" if stored is None else stored.kind)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the summary contains the warning, too
    chosen = run.set_threshold(contamination=_CONTAMINATION.value, kind=kind)
  if stored not in (None, chosen):
    file = run.workdir / store.THRESHOLD
    progress.print_line(f"{file}: replaced by --contamination; the old threshold was: {stored.in_words()}")


def _folder_of_pictures(run: Any, kept: Mapping[str, pathlib.Path]) -> pathlib.Path | None:
  from ae_jax.decisions import picture_files

  if not _PICTURES.value:
    return None
  folder = paths.local_path("--pictures", _PICTURES.value)
  picture_files.check(folder, run, kept)
  return folder


def _prepared(run: Any, parts: Any, path: str, pictures: pathlib.Path | None, score: Any) -> Iterator[Any]:
  """Yields the names and the inputs of new examples, and writes their reconstructions to the folder `pictures`.

  `path` is --data, for messages. `score` is the kind of score; some kinds use no targets.
  """
  import numpy as np

  from ae_jax.decisions import picture_files, rows
  from ae_jax.run_methods import measures

  span = None
  for part in parts:
    columns = rows.columns_of(run, part, path)
    inputs = measures.inputs_of(run, part.x, part.mask, part.target if score.reads_target else None, columns)
    for line in rows.remarks_on(run, part, path):
      progress.print_line(line)
    if pictures is not None:
      if span is None:
        span, remarks = picture_files.span_of(run.conversion(part.x).values, run.config.data.range)
        for line in remarks:
          progress.print_line(line)
      picture_files.write(pictures, part.names, run, inputs, span)
    labels = {"label": rows.labels_of(run, part, columns, path)} if _NAMED["label"].value else columns
    yield {"name": np.array(part.names), **labels}, inputs


def run() -> None:
  """Runs `ae_jax apply`."""
  cli.run_on_folder(main)


if __name__ == "__main__":
  run()
