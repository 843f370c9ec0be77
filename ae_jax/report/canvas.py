"""Matplotlib helpers for static images. No other module imports Matplotlib."""

import base64
import io
import textwrap

import numpy as np
from jaxtyping import UInt8
from matplotlib import colormaps, dates, image, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ae_jax.report import axis_positions

_CHARACTERS_PER_INCH, _LEAST_CHARACTERS, _LINE_HEIGHT = 14, 20, 0.15  # of titles; the height is in inches
_MAX_LOSSLESS_PIXELS = 500_000  # larger colour images are compressed with loss


class _ShownFigure(Figure):
  """Figure that a notebook shows also before `matplotlib.pyplot`, which registers figures there, is first used."""

  def _repr_png_(self) -> bytes:
    with io.BytesIO() as file:
      self.savefig(file, format="png")
      return file.getvalue()


def figure(width: float | int, height: float | int, title: str = "") -> Figure:
  """Returns an empty figure of `width` x `height` inches; further lines of a title are added to the height."""
  lines = textwrap.wrap(title, max(_LEAST_CHARACTERS, int(_CHARACTERS_PER_INCH * width)))
  size = (width, height + _LINE_HEIGHT * max(0, len(lines) - 1))
  new_figure = _ShownFigure(figsize=size, layout="constrained", dpi=150)
  if lines:
    new_figure.suptitle(plain("\n".join(lines)), fontsize=9)
  return new_figure


def data_url(picture: Figure) -> str:
  """Returns a figure as the data URL of a WebP file without loss."""
  with io.BytesIO() as file:
    picture.savefig(file, format="webp", pil_kwargs={"lossless": True, "quality": 50, "method": 2})
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def bare(axes: Axes, name: str = "") -> None:
  """Removes the frame and the ticks of the axes, and writes `name` to the left of the axes."""
  axes.set(xticks=[], yticks=[], frame_on=False)
  axes.set_ylabel(name, fontsize=7, rotation=0, ha="right", va="center")


def logarithmic(axes: Axes, which: str = "y") -> None:
  """Makes the x or the y axis (`which`) logarithmic, with ticks for the values that are drawn already."""
  axes.set(**{f"{which}scale": "log"})
  axis = axes.xaxis if which == "x" else axes.yaxis
  ticks = axis_positions.round_ticks(*axis.get_view_interval())
  axis.set_major_locator(ticker.FixedLocator(ticks) if ticks else ticker.MaxNLocator(5))
  axis.set_major_formatter(ticker.StrMethodFormatter("{x:,.7g}"))
  axis.set_minor_locator(ticker.NullLocator())


def plain(text: str) -> str:
  """Returns a text for Matplotlib that it draws unchanged; two "$" would enclose a formula."""
  return text.replace("$", r"\$")


def thousands() -> ticker.Formatter:
  """Returns a formatter of ticks at integers, such as 12,000."""
  return ticker.StrMethodFormatter("{x:,.0f}")


def show_dates(axes: Axes) -> None:
  """Labels the x axis, days since 1970-01-01, with dates and times."""
  axes.xaxis.set_major_locator(locator := dates.AutoDateLocator())
  axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
  axes.xaxis.get_offset_text().set_fontsize(7)


def colours(name: str, values: np.ndarray) -> UInt8[np.ndarray, "*shape 4"]:
  """Maps values in [0, 1] to RGBA bytes [..., 4] with the colour map `name`."""
  return colormaps[name](np.asarray(values, np.float64), bytes=True)


def shade(name: str, share: float) -> tuple[float, ...]:
  """Returns the colour at position `share` in [0, 1] of the colour map `name`, as RGBA values in [0, 1]."""
  return colormaps[name](float(share))


def webp(picture: UInt8[np.ndarray, "h w *channels"]) -> bytes:
  """Encodes an image [H, W] (grey), [H, W, 3] or [H, W, 4] as a WebP file; only large colour images lose detail."""
  lossless = picture.ndim == 2 or picture[..., 0].size <= _MAX_LOSSLESS_PIXELS
  if picture.ndim == 2:
    picture = np.repeat(picture[..., None], 3, -1)  # a colour map would change some values by 1
  with io.BytesIO() as file:
    # For lossless images `quality` is the compression effort.
    options = {"lossless": lossless, "quality": 50 if lossless else 90, "method": 2}
    image.imsave(file, picture, format="webp", pil_kwargs=options)
    return file.getvalue()
