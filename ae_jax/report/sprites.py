"""Many small pictures in one image, as pages hold them: a sheet, of which a page shows cell by cell."""

import base64
import dataclasses
import hashlib

import numpy as np

from ae_jax.report import canvas

SIDE = 96  # pixels of the longer side of a picture at most
_WIDTH, _HEIGHT = 96, 48  # of a series that is drawn
_FINER = 3  # times, while it is drawn
_AT_ONCE = 128  # series
INKS = ((59, 125, 206), (224, 123, 57), (58, 158, 99), (141, 145, 153))  # of a series' channels, on light and dark


@dataclasses.dataclass(frozen=True)
class Sheet:
  """Pictures in a grid, row by row, as one image: `width` x `height` pixels each, shown `scale` times as large."""

  url: str  # of the image: data
  count: int
  columns: int
  width: int
  height: int
  scale: int
  gap: int  # pixels between neighbours
  smooth: bool  # when it is scaled

  @property
  def name(self):
    """Of the image in the page: the same image has the same one."""
    return f"sheet-{hashlib.sha256(self.url.encode()).hexdigest()[:12]}"


def sheet(pictures, columns, shown=56, gap=0, smooth=False):
  """A `Sheet` of pictures, bytes [N, H, W] (grey) or [N, H, W, 3 or 4], scaled to about `shown` pixels on a page."""
  count, height, width = pictures.shape[:3]
  if gap:
    pictures = _with_gaps(pictures, gap)
  missing = np.zeros((-count % columns, *pictures.shape[1:]), np.uint8)
  grid = np.concatenate([pictures, missing]).reshape(-1, columns, *pictures.shape[1:]).swapaxes(1, 2)
  whole = grid.reshape(grid.shape[0] * grid.shape[1], columns * grid.shape[3], *grid.shape[4:])
  url = f"data:image/webp;base64,{base64.b64encode(canvas.webp(whole)).decode()}"
  return Sheet(url, count, columns, width, height, max(1, round(shown / max(height, width))), gap, smooth)


def of_examples(examples, low, high, side=SIDE):
  """Examples [N, ...] whose values lie in [low, high] as pictures, `side` pixels at most; series are drawn as lines."""
  if examples.ndim == 3:
    size = (_HEIGHT, _WIDTH) if side >= _WIDTH else (_HEIGHT // 2, _WIDTH // 2)
    return drawn([(examples, range(examples.shape[2]))], low, high, *size)
  shares = _shrunk(np.nan_to_num((examples - low) / (high - low)), side)
  pictures = np.round(255 * np.clip(shares, 0.0, 1.0)).astype(np.uint8)
  return pictures if pictures.shape[-1] == 3 else pictures[..., 0]


def of_differences(differences, most, side=SIDE):
  """Numbers [N, H, W, 1] as pictures: red above 0, blue below, opaque at `most`, and nothing at 0."""
  shares = np.clip(_shrunk(np.nan_to_num(differences), side)[..., 0] / most, -1.0, 1.0)
  colours = np.where(shares[..., None] > 0, (214, 64, 52), (58, 110, 205))
  return np.concatenate([colours, np.round(255 * np.abs(shares))[..., None]], -1).astype(np.uint8)


def of_weights(weights, side=SIDE):
  """Weights [N, H, W, 1] as pictures, from 0 to the greatest of all in the colours of viridis."""
  shares = _shrunk(weights, side)[..., 0]
  return canvas.colours("viridis", shares / max(float(shares.max()), 1e-30))[..., :3]


def drawn(groups, low, high, height=_HEIGHT, width=_WIDTH):
  """Series as pictures, bytes [N, height, width, 4]: of each group (series [N, T, C], inks of its channels) lines."""
  pictures = np.zeros((len(groups[0][0]), height, width, 4), np.uint8)
  for series, inks in groups:
    shares = np.clip(np.nan_to_num((series - low) / (high - low)), 0.0, 1.0)
    for channel, ink in enumerate(inks):
      for first in range(0, len(pictures), _AT_ONCE):
        some = pictures[first : first + _AT_ONCE]  # a view
        cover = _lines(shares[first : first + _AT_ONCE, :, channel], height, width)
        some[..., :3][cover > 0] = INKS[ink % len(INKS)]
        np.maximum(some[..., 3], np.round(255 * cover).astype(np.uint8), out=some[..., 3])
  return pictures


def _lines(values, height, width):
  """How much of each pixel [N, height, width] lines through the values [N, T] in [0, 1] cover."""
  steps = np.linspace(0, values.shape[1] - 1, _FINER * width)
  before, share = steps.astype(int), steps % 1
  after = np.minimum(before + 1, values.shape[1] - 1)
  half = 0.75 / height  # of the thickness: a pixel and a half
  fine = half + (1 - 2 * half) * ((1 - share) * values[:, before] + share * values[:, after])
  following = np.concatenate([fine[:, 1:], fine[:, -1:]], 1)
  at = 1.0 - (np.arange(_FINER * height)[:, None] + 0.5) / (_FINER * height)
  least, most = np.minimum(fine, following) - half, np.maximum(fine, following) + half
  inside = (at >= least[:, None]) & (at <= most[:, None])
  return inside.reshape(-1, height, _FINER, width, _FINER).mean((2, 4), dtype=np.float32)


def _shrunk(images, side):
  """Images [N, H, W, C], or the means of squares of pixels, so that no side is longer than `side`."""
  factor = -(-max(images.shape[1:3]) // side)
  if factor == 1:
    return images
  padding = [(0, 0), (0, -images.shape[1] % factor), (0, -images.shape[2] % factor), (0, 0)]
  padded = np.pad(images, padding, mode="edge")
  count, height, width, channels = padded.shape
  return padded.reshape(count, height // factor, factor, width // factor, factor, channels).mean((2, 4))


def _with_gaps(pictures, gap):
  """Pictures with transparent pixels at the right of each and below it."""
  if pictures.ndim == 3:
    pictures = np.repeat(pictures[..., None], 3, -1)
  if pictures.shape[-1] == 3:
    pictures = np.concatenate([pictures, np.full((*pictures.shape[:3], 1), 255, np.uint8)], -1)
  return np.pad(pictures, [(0, 0), (0, gap), (0, gap), (0, 0)])
