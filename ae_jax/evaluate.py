"""Evaluates a trained run again and updates its figures and report.

  ae_jax evaluate --workdir=runs/cnn
  ae_jax evaluate --workdir=runs/cnn --only=probe,anomaly
  python -m ae_jax.evaluate --workdir=runs/cnn --which=best
  python -m ae_jax.evaluate --workdir=runs/cnn --data=/other/place/x.npz

Without --only, the evaluators in config.evaluators run. With --only, the named evaluators run instead, and the earlier
results of other evaluators are kept. --data is for data that were moved since the training; their contents must be the
same.
"""

import functools
import pathlib

from absl import flags

from ae_jax import cli
from ae_jax.runs import progress

flags.adopt_module_key_flags(cli)

_ONLY = flags.DEFINE_list("only", [], "Evaluators to run, NAME,NAME,...; default: config.evaluators of the run.")
_DATA = flags.DEFINE_string("data", "", "Path of the data of the run; default: config.data.path of the run.")
_WHICH = flags.DEFINE_enum("which", "last", ["last", "best"], "Checkpoint to evaluate.")


def main(workdir: pathlib.Path) -> None:
  """Evaluates the run in a folder with the evaluators and the checkpoint that the flags name."""
  from ae_jax import api, evaluators
  from ae_jax.report import evaluation
  from ae_jax.runs import run_folder
  from ae_jax.system import cache
  from ae_jax.training import preemption

  with cli.user_errors():
    run = api.load(workdir, _WHICH.value)
    dataset = run_folder.load_data(workdir, run.config, _DATA.value)
    for line in (*dataset.remarks, *dataset.faults):
      progress.print_line(line)
    cache.keep_compiled_programs()
    chosen = evaluators.build(_ONLY.value or run.config.evaluators, run.model, dataset)
    baselines = dict(evaluators.baselines(chosen, dataset, run.model.code))
    with preemption.catch_signals(preemption.ANALYZING) as received:
      check = functools.partial(preemption.stop_analyses, received, workdir)
      results = evaluation.analyze(run, dataset, chosen, workdir, baselines, check)
    for name, value in [*results.values.items(), *results.remarks.items()]:
      print(f"{name:40} {value if isinstance(value, str) else format(value, '.6g')}")


def run() -> None:
  """Runs the command."""
  cli.run_on_folder(main)


if __name__ == "__main__":
  run()
