"""Puts runs side by side: a table on the screen, and a page.

  python -m ae_jax.compare runs/a runs/b runs/c --out=compare.html

Runs that differ in the seed alone are put together: the mean over them, their least and greatest, and from three on the
95 % t-interval of the mean.
"""

from absl import flags

from ae_jax import cli
from ae_jax.system import paths

flags.adopt_module_key_flags(cli)

_OUT = flags.DEFINE_string("out", "compare.html", "The page, a file that ends in .html.")


def main(folders):
  """The flags and arguments, one call."""
  with cli.in_a_line():
    out = paths.local_path("--out", _OUT.value)
    if out.suffix != ".html":
      cli.fail(f"--out={out}: must end in .html", cli.WRONG_INPUT)
    folders = [paths.local_path("folder", folder) for folder in folders]
    from ae_jax.report import comparison  # seconds of imports

    compared = comparison.read(folders)
    comparison.write(compared, out)
    print(comparison.on_screen(compared))
    print(f"{comparison.answer(compared)}\nLook at {out}.")


if __name__ == "__main__":
  cli.run_on_arguments(main, "python -m ae_jax.compare runs/a runs/b")
