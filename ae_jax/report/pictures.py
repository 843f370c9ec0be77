"""The pictures of a run: reconstructions beside their originals, and the curves of its metrics."""

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from ae_jax.data import ranges


def reconstructions(path, images, reconstructed, value_range, title):
  """Saves three rows: images, their reconstructions, and the difference (red too bright, blue too dark).

  Both arrays are [N, H, W, C] in the data's range; a "real" range is shown from the least to the greatest value.
  """
  low, high = ranges.INTERVALS[value_range]
  if not np.isfinite(low):
    low, high = float(images.min()), float(images.max())
  width = (high - low) or 1.0
  difference = (reconstructed - images).mean(-1, keepdims=True)
  rows = [  # name, images, least, most, colours, gap
    ("test images", images, low, high, "gray", high),
    ("reconstructions", reconstructed, low, high, "gray", high),
    ("difference" if images.shape[-1] == 1 else "mean difference", difference, -width, width, "RdBu_r", 0.0),
  ]
  figure = Figure(figsize=(len(images) * 0.7 + 0.6, 3.1), layout="constrained", dpi=150)
  figure.suptitle(title, fontsize=9)
  for axes, (name, row, least, most, colours, gap) in zip(figure.subplots(3, 1), rows, strict=True):
    strip = _strip(row, gap)
    if strip.shape[-1] == 1:
      axes.imshow(strip[..., 0], cmap=colours, vmin=least, vmax=most, interpolation="nearest")
    else:
      axes.imshow(np.clip((strip - low) / width, 0.0, 1.0), interpolation="nearest")
    axes.set(xticks=[], yticks=[], frame_on=False)
    axes.set_ylabel(name, fontsize=7)
  figure.savefig(path)


def curves(path, records, rulers):
  """Saves the loss and the test error against the epoch, on log axes, PCA's error as a line.

  `records` are those of metrics.jsonl, `rulers` maps names to the values that do not depend on the model.
  """
  figure = Figure(figsize=(8, 3.2), layout="constrained", dpi=150)
  left, right = figure.subplots(1, 2)
  _curve(left, records, "train/loss", "training", "tab:blue", "")
  _curve(left, records, "test/loss", "test", "tab:orange", "o")
  left.set(ylabel="loss per example")
  _curve(right, records, "test/squared_error", "autoencoder", "tab:orange", "o")
  pca = rulers["test/pca_squared_error"]
  right.axhline(pca, color="tab:gray", linestyle="--", label=f"PCA of the same size, {pca:.2f}")
  right.set(ylabel="squared error per test image")
  for axes in (left, right):
    axes.set(xlabel="epoch")
    if all(np.min(line.get_ydata()) > 0 for line in axes.lines):  # a perfect reconstruction has no logarithm
      axes.set(yscale="log")
      axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8)))
      axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
      axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.grid(alpha=0.2)
    axes.legend(fontsize=8)
  figure.savefig(path)


def _curve(axes, records, name, label, colour, marker):
  points = [(record["epoch"], record[name]) for record in records if name in record]
  axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=3, linewidth=1.2, label=label)


def _strip(images, fill):
  """[N, H, W, C] -> one row [H, N * (W + 1) - 1, C], a pixel of `fill` between neighbours."""
  gap = np.full((*images.shape[:2], 1, images.shape[3]), fill, images.dtype)
  padded = np.concatenate([images, gap], axis=2)
  return np.concatenate(list(padded), axis=1)[:, :-1]
