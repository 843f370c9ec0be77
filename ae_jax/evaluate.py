"""Measures a trained run, and makes its pictures and its page anew.

  python -m ae_jax.evaluate --workdir=runs/cnn
  python -m ae_jax.evaluate --workdir=runs/cnn --only=probe,anomaly

Without --only it is what config.evaluators asks for; with it what is named, whatever the config says, and the rest of
what was found before stays.
"""

import functools

from absl import flags

from ae_jax import cli

flags.adopt_module_key_flags(cli)

_ONLY = flags.DEFINE_list("only", [], "Evaluators, NAME,NAME,...; default: those of the run's config.")
_WHICH = flags.DEFINE_enum("which", "last", ["last", "best"], "The checkpoint.")


def main(workdir):
  """The flags, one call."""
  from ae_jax import api, evaluators
  from ae_jax.report import evaluation
  from ae_jax.runs import logs, run_folder
  from ae_jax.system import cache
  from ae_jax.training import preemption

  with cli.in_a_line():
    run = api.load(workdir, _WHICH.value)
    dataset = run_folder.data_of(workdir, run.config)
    for line in dataset.remarks:
      logs.say(line)
    cache.keep_compiled_programs()
    measures = evaluators.build(_ONLY.value or run.config.evaluators, run.model, dataset)
    baselines = dict(evaluators.baselines(measures, dataset, run.model.code))
    with preemption.caught(preemption.ANALYZING) as received:
      check = functools.partial(preemption.stop_analyses, received, workdir)
      found = evaluation.examine(run, dataset, measures, workdir, baselines, check)
    for name, value in [*found.values.items(), *found.remarks.items()]:
      print(f"{name:40} {value if isinstance(value, str) else format(value, '.6g')}")


if __name__ == "__main__":
  cli.run_on_folder(main)
