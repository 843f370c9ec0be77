"""Writes the latent codes of all examples of the data set of a run: training, validation and test set.

  ae_jax embed --workdir=runs/cnn --out=latents.csv
  ae_jax embed --workdir=runs/cnn --out=latents.npz --score=mahalanobis
  python -m ae_jax.embed --workdir=runs/cnn --out=latents.parquet --data=/other/place/x.npz

Each row has the columns split ("train", "validation" or "test"), name (the file of an image, otherwise the row in the
source), label (if there are labels), score, flag (if the run has a threshold), and the latents. If the data were
moved after training, pass the new path with --data; their contents must be unchanged.
"""

import pathlib

from absl import flags

from ae_jax import cli
from ae_jax.system import paths

flags.adopt_module_key_flags(cli)

_OUT = flags.DEFINE_string("out", "", "File to write; its name ends in .csv, .parquet or .npz.")
_DATA = flags.DEFINE_string("data", "", "Path of the data of the run; default: config.data.path of the run.")
_SCORE = flags.DEFINE_string("score", "", "Score to compute; default: the score of the threshold, or reconstruction.")
_WHICH = flags.DEFINE_enum("which", "last", ["last", "best"], "Checkpoint to apply.")


def main(workdir: pathlib.Path) -> None:
  """Writes the latent codes of the data set of the run in a folder."""
  with cli.user_errors():
    if not _OUT.value:
      cli.fail("--out is missing; for example --out=latents.csv", cli.WRONG_USAGE)
    from ae_jax import api
    from ae_jax.decisions import rows, run_data
    from ae_jax.runs import run_folder
    from ae_jax.system import cache

    out, run = paths.local_path("--out", _OUT.value), api.load(workdir, _WHICH.value)
    rows.check(out, rows.kept_files(run, _DATA.value))
    dataset = run_folder.load_data(workdir, run.config, _DATA.value)
    cache.keep_compiled_programs()
    choice = rows.choose(run, _SCORE.value, dataset.column("test", "target") is not None)
    measured = rows.measure(run, run_data.in_parts(run, dataset, _DATA.value), choice)
    rows.write(out, measured)
    for line in rows.summary(out, measured, choice):
      print(line)


def run() -> None:
  """Runs `ae_jax embed`."""
  cli.run_on_folder(main)


if __name__ == "__main__":
  run()
