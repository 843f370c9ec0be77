"""Applies a trained run to new files: a row for each image or table row, with its score, flag and latents.

  ae_jax apply --workdir=runs/cnn --data=photos --out=photos.csv
  ae_jax apply --workdir=runs/cnn --data=photos --out=photos.parquet --pictures=reconstructions
  ae_jax apply --workdir=runs/table --data=new.csv --out=new.csv --names=customer --score=normalised
  python -m ae_jax.apply --workdir=runs/cnn --data=new.npz --out=new.npz --contamination=0.01

--data is a folder of images (with its subfolders), an image, a CSV or Parquet file, or a file of arrays (npz, npy,
HDF5). New examples pass through the stored preprocessing of the run: images get its size and channels, tables its
columns and scaling. Files that cannot be read, and columns that the run does not know, are named. The column `flag` is
there if the run has a threshold; --contamination sets one from the scores of its validation or training examples.
"""

import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

from absl import flags

from ae_jax import cli
from ae_jax.runs import progress
from ae_jax.system import paths

flags.adopt_module_key_flags(cli)

_DATA = flags.DEFINE_string("data", "", "File or folder of new examples.")
_OUT = flags.DEFINE_string("out", "", "File to write; its name ends in .csv, .parquet or .npz.")
_PICTURES = flags.DEFINE_string("pictures", "", "Folder for the reconstructions of images, as PNG files.")
_SCORE = flags.DEFINE_string("score", "", "Kind of the scores; default: that of the threshold, or reconstruction.")
_NAMES = flags.DEFINE_string("names", "", "Column of a table with the names of its rows; default: their numbers.")
_ARRAY = flags.DEFINE_string("array", "", "Array of a file of arrays; default: the only one that fits the run.")
_CONTAMINATION = flags.DEFINE_float("contamination", None, "Share of normal examples to flag; sets the threshold.")
_WHICH = flags.DEFINE_enum("which", "last", ["last", "best"], "Checkpoint to apply.")


def main(workdir: pathlib.Path) -> None:
  """Applies the run in a folder to the data that the flags name."""
  with cli.user_errors():
    for name, value in (("data", _DATA.value), ("out", _OUT.value)):
      if not value:
        cli.fail(f"--{name} is missing; for example --data=photos --out=photos.csv", cli.WRONG_USAGE)
    from ae_jax import api
    from ae_jax.decisions import rows
    from ae_jax.system import cache

    out, path = paths.local_path("--out", _OUT.value), str(paths.local_path("--data", _DATA.value))
    rows.check(out)
    run = api.load(workdir, _WHICH.value)
    pictures = _folder_of_pictures(run)
    found = rows.read(run, path, names=_NAMES.value, array=_ARRAY.value)
    for line in found.remarks:
      progress.print_line(line)
    cache.keep_compiled_programs()
    if _CONTAMINATION.value is not None:
      with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the summary says it, too
        run.set_threshold(contamination=_CONTAMINATION.value, kind=_SCORE.value or "reconstruction")
    kind, threshold = rows.choose(run, _SCORE.value)
    measured = rows.measure(run, _prepared(run, found.parts, pictures), kind, threshold)
    rows.write(out, measured)
    for line in rows.summary(out, measured, kind, threshold):
      print(line)


def _folder_of_pictures(run: Any) -> pathlib.Path | None:
  from ae_jax import errors

  if not _PICTURES.value:
    return None
  if len(run.model.shape) != 3 or run.model.shape[2] > 4:
    raise errors.UserError("--pictures: the examples of this run are no images; remove this flag")
  return paths.local_path("--pictures", _PICTURES.value)


def _prepared(run: Any, parts: Any, pictures: pathlib.Path | None) -> Iterator[Any]:
  """Yields the names and the inputs of new examples; writes their reconstructions as pictures."""
  import numpy as np

  from ae_jax.data import decoding, ranges
  from ae_jax.run_methods import measures

  low, high, _ = ranges.SPANS[run.config.data.range]
  for part in parts:
    inputs = measures.inputs_of(run, part.x, None, None, {})
    if pictures is not None:
      images = run.conversion.invert(run.apply("reconstruct", inputs.x, inputs.columns))
      for name, image in zip(part.names, images, strict=True):
        decoding.write_png(pictures / (name if name.endswith(".png") else f"{name}.png"), image, low, high)
    yield {"name": np.array(part.names)}, inputs


def run() -> None:
  """Runs the command."""
  cli.run_on_folder(main)


if __name__ == "__main__":
  run()
