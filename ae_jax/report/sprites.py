"""Image sheets (sprites): one image file holds many small images, and a page shows parts of the file."""

import base64
import dataclasses
import hashlib

import numpy as np
from jaxtyping import Float, UInt8

from ae_jax.evaluators import display
from ae_jax.report import canvas, channels

SIDE = 96  # maximum length of the longer side of an image, in pixels
_WIDTH, _HEIGHT = 96, 48  # size of the plot of a series, in pixels
_OVERSAMPLING = 3  # subpixels in each direction, for smooth lines
_CHUNK = 128  # number of series that are drawn at once; limits the memory
# Colours of the channels of series, visible on light and dark pages; `channels.OF_SERIES` channels are drawn.
INKS = {
  "blue": (59, 125, 206),
  "orange": (224, 123, 57),
  "green": (58, 158, 99),
  "grey": (141, 145, 153),
  "purple": (176, 92, 196),
  "red": (214, 69, 63),
}


@dataclasses.dataclass(frozen=True)
class Sheet:
  """Images of equal size in one image file, arranged in a grid row by row."""

  url: str  # data URL of the file
  count: int  # number of images
  columns: int
  width: int  # width of an image in pixels
  height: int  # height of an image in pixels
  scale: int  # factor by which a page enlarges the images
  gap: int  # number of pixels between adjacent images
  smooth: bool  # whether a page interpolates enlarged images

  @property
  def name(self) -> str:
    """Name of the CSS variable that contains `url`. The name contains a hash of the file."""
    return f"sheet-{hashlib.sha256(self.url.encode()).hexdigest()[:12]}"


def sheet(
  pictures: UInt8[np.ndarray, "n h w *channels"], columns: int, shown: int = 56, gap: int = 0, smooth: bool = False
) -> Sheet:
  """Returns a sprite sheet of images [N, H, W] (grey) or [N, H, W, 3 or 4].

  Args:
    pictures: Images.
    columns: Number of images in a row of the sheet.
    shown: Approximate length in pixels of an image's longer side on the report page.
    gap: Number of transparent pixels between adjacent images.
    smooth: Whether the page interpolates enlarged images.
  """
  count, height, width = pictures.shape[:3]
  if gap:
    pictures = _with_gaps(pictures, gap)
  missing = np.zeros((-count % columns, *pictures.shape[1:]), np.uint8)
  grid = np.concatenate([pictures, missing]).reshape(-1, columns, *pictures.shape[1:]).swapaxes(1, 2)
  image = grid.reshape(grid.shape[0] * grid.shape[1], columns * grid.shape[3], *grid.shape[4:])
  url = f"data:image/webp;base64,{base64.b64encode(canvas.webp(image)).decode()}"
  return Sheet(url, count, columns, width, height, max(1, round(shown / max(height, width))), gap, smooth)


def of_examples(
  examples: np.ndarray, low: float | int, high: float | int, side: int = SIDE, joined: bool = True
) -> UInt8[np.ndarray, "n h w *c"]:
  """Renders examples [N, ...] as images of at most `side` x `side` pixels; series are drawn as line plots.

  If `joined` is False, the values of a series are marks, which no line joins.

  If images have other than 1 or 3 channels, only some of them are rendered; see `channels.shown`. Values are clipped to
  [low, high]. `low` is black in an image, and the lower edge of a line plot.
  """
  if examples.ndim == 3:
    size = (_HEIGHT, _WIDTH) if side >= _WIDTH else (_HEIGHT // 2, _WIDTH // 2)
    return drawn(examples, low, high, *size, joined=joined)
  shares = display.shrunk(np.nan_to_num((channels.shown(examples) - low) / (high - low)), side)
  pictures = np.round(255 * np.clip(shares, 0.0, 1.0)).astype(np.uint8)
  return pictures if pictures.shape[-1] == 3 else pictures[..., 0]


def of_differences(
  differences: Float[np.ndarray, "n h w 1"], largest: float | int, side: int = SIDE
) -> UInt8[np.ndarray, "n rows columns 4"]:
  """Renders differences as images: red above 0, blue below 0, transparent at 0, and opaque at +-`largest`."""
  shares = np.clip(display.shrunk(np.nan_to_num(differences), side)[..., 0] / largest, -1.0, 1.0)
  colours = np.where(shares[..., None] > 0, (214, 64, 52), (58, 110, 205))
  return np.concatenate([colours, np.round(255 * np.abs(shares))[..., None]], -1).astype(np.uint8)


def of_weights(weights: Float[np.ndarray, "n h w 1"], side: int = SIDE) -> UInt8[np.ndarray, "n rows columns 3"]:
  """Renders weights as images with the colour map viridis, from 0 to the maximum weight of all images."""
  shares = display.shrunk(weights, side)[..., 0]
  return canvas.colours("viridis", shares / max(float(shares.max()), 1e-30))[..., :3]


def drawn(
  series: Float[np.ndarray, "n t c"],
  low: float | int,
  high: float | int,
  height: int = _HEIGHT,
  width: int = _WIDTH,
  joined: bool = True,
) -> UInt8[np.ndarray, "n {height} {width} 4"]:
  """Draws N images with plots of series; each channel has a colour of `INKS`.

  Args:
    series: Series; steps that are NaN are left out, unless all are.
    low: Value at the lower edge of an image.
    high: Value at the upper edge of an image.
    height: Height of an image in pixels.
    width: Width of an image in pixels.
    joined: Whether a line joins the values of a channel; otherwise each value is a horizontal mark.
  """
  pictures = np.zeros((len(series), height, width, 4), np.uint8)
  shares = np.clip(np.nan_to_num((series - low) / (high - low)), 0.0, 1.0)
  steps = (np.arange(width) + 0.5) / width * (series.shape[1] - joined)  # the first and the last step are at the edges
  values = ~np.isnan(series)
  values |= ~values.any((1, 2), keepdims=True)  # outputs of a model that diverged
  known = values[:, np.round(steps).astype(int) if joined else steps.astype(int)]
  for channel, ink in zip(range(series.shape[2]), INKS.values(), strict=False):
    for first in range(0, len(pictures), _CHUNK):
      chunk = pictures[first : first + _CHUNK]  # a view: changes `pictures`
      coverage = (_lines if joined else _marks)(shares[first : first + _CHUNK, :, channel], height, width)
      coverage *= known[first : first + _CHUNK, None, :, channel]
      chunk[..., :3][coverage > 0] = ink
      np.maximum(chunk[..., 3], np.round(255 * coverage).astype(np.uint8), out=chunk[..., 3])
  return pictures


def _marks(values: Float[np.ndarray, "n t"], height: int, width: int) -> Float[np.ndarray, "n {height} {width}"]:
  """Draws a horizontal mark for each of the values in [0, 1], beside each other; returns the coverage of each pixel."""
  positions = (np.arange(width) + 0.5) / width * values.shape[1]
  heights = np.clip(np.round((1 - values[:, positions.astype(int)]) * height - 1).astype(int), 0, height - 2)
  above = np.arange(height)[:, None] - heights[:, None]
  within = np.abs(positions % 1 - 0.5) < 0.35  # gaps between the marks
  return (((above == 0) | (above == 1)) & within).astype(np.float32)


def _lines(values: Float[np.ndarray, "n t"], height: int, width: int) -> Float[np.ndarray, "n {height} {width}"]:
  """Draws a line through each row of values in [0, 1]; returns the fraction of each pixel that the line covers."""
  steps = np.linspace(0, values.shape[1] - 1, _OVERSAMPLING * width)
  before, share = steps.astype(int), steps % 1
  after = np.minimum(before + 1, values.shape[1] - 1)
  half = 0.75 / height  # half the thickness of the line, which is 1.5 pixels
  fine = half + (1 - 2 * half) * ((1 - share) * values[:, before] + share * values[:, after])
  following = np.concatenate([fine[:, 1:], fine[:, -1:]], 1)
  subpixels = 1.0 - (np.arange(_OVERSAMPLING * height)[:, None] + 0.5) / (_OVERSAMPLING * height)
  lower, upper = np.minimum(fine, following) - half, np.maximum(fine, following) + half
  inside = (subpixels >= lower[:, None]) & (subpixels <= upper[:, None])
  return inside.reshape(-1, height, _OVERSAMPLING, width, _OVERSAMPLING).mean((2, 4), dtype=np.float32)


def _with_gaps(pictures: np.ndarray, gap: int) -> np.ndarray:
  """Adds `gap` transparent pixels to the right of each image and below it."""
  if pictures.ndim == 3:
    pictures = np.repeat(pictures[..., None], 3, -1)
  if pictures.shape[-1] == 3:
    pictures = np.concatenate([pictures, np.full((*pictures.shape[:3], 1), 255, np.uint8)], -1)
  return np.pad(pictures, [(0, 0), (0, gap), (0, gap), (0, 0)])
