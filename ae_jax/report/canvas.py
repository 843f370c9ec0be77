"""What pictures are drawn on: the only file that imports Matplotlib."""

import io

import numpy as np
from matplotlib import colormaps, image, ticker
from matplotlib.figure import Figure

_LOSSLESS = 500_000  # pixels of an image in colours; larger ones are stored with loss


def figure(width, height, title=""):
  """A figure of so many inches with a small title."""
  made = Figure(figsize=(width, height), layout="constrained", dpi=150)
  if title:
    made.suptitle(title, fontsize=9)
  return made


def bare(axes, name=""):
  """Takes the frame and the ticks away, and writes a name at the left, if there is one."""
  axes.set(xticks=[], yticks=[], frame_on=False)
  axes.set_ylabel(name, fontsize=7, rotation=0, ha="right", va="center")


def logarithmic(axes):
  """Puts errors on a logarithmic axis with few round numbers."""
  axes.set(yscale="log")
  axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8)))
  axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
  axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def colours(name, values):
  """Values in [0, 1], of any shape, as bytes [..., 4] of a colour map."""
  return colormaps[name](np.asarray(values, np.float64), bytes=True)


def shade(name, share):
  """One colour of a colour map, (red, green, blue, alpha) in [0, 1]."""
  return colormaps[name](float(share))


def webp(picture):
  """Bytes [H, W] (grey), [H, W, 3] or [H, W, 4] as a WebP file: without loss but for large ones in colours."""
  lossless = picture.ndim == 2 or picture[..., 0].size <= _LOSSLESS
  if picture.ndim == 2:
    picture = np.repeat(picture[..., None], 3, -1)  # as bytes: a colour map is off by one now and then
  with io.BytesIO() as file:
    options = {"lossless": lossless, "quality": 50 if lossless else 90, "method": 2}  # quality without loss is effort
    image.imsave(file, picture, format="webp", pil_kwargs=options)
    return file.getvalue()
