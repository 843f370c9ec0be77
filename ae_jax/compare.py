"""Compares several runs: prints a table and writes an HTML page.

  ae_jax compare runs/a runs/b
  ae_jax compare runs/a runs/b runs/c --out=compare.html
  python -m ae_jax.compare runs/*

Runs that differ only in the seed form a group. For each group, the mean, minimum and maximum of each metric are shown,
and for groups of three or more runs also the 95 % t-interval of the mean.
"""

from absl import flags

from ae_jax import cli
from ae_jax.system import paths

flags.adopt_module_key_flags(cli)

_OUT = flags.DEFINE_string("out", "compare.html", "HTML file to write; its name must end in .html.")


def main(folders: list[str]) -> None:
  """Compares the runs in the given run folders."""
  with cli.user_errors():
    out = paths.local_path("--out", _OUT.value)
    if out.suffix != ".html":
      cli.fail(f"--out={out}: must end in .html", cli.WRONG_INPUT)
    runs = [paths.local_path("folder", folder) for folder in folders]
    from ae_jax.report import comparison  # imports Bokeh, which takes seconds

    compared = comparison.read(runs)
    comparison.write(compared, out)
    print(comparison.on_screen(compared))
    print(f"{comparison.answer(compared)}\nLook at {out}.")


def run() -> None:
  """Runs `ae_jax compare`."""
  cli.run_on_arguments(main, "ae_jax compare runs/a runs/b")


if __name__ == "__main__":
  run()
