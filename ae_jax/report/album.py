"""The pictures of a run: one for each exhibit, and its curves."""

from ae_jax.report import graphs, pictures


def draw(exhibits, value_range, measured, rulers, folder, check=lambda: None):
  """Draws exhibits {"EVALUATOR/NAME": exhibit} as NAME.png into a folder, and what `logs.curves` has as curves.png.

  `check()` is called before each picture, and stops the rest by an exception.
  """
  folder.mkdir(exist_ok=True)
  graphs.curves(folder / "curves.png", measured, rulers)
  for name, exhibit in exhibits.items():
    check()
    pictures.draw(folder / f"{name.rpartition('/')[2]}.png", exhibit, value_range)
