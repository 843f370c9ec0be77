"""The pictures of a run: reconstructions beside their originals, and the curves of its metrics."""

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from ae_jax.data import ranges

_MOST_MAPS = 96  # of attention in a picture, so that it can be drawn and looked at


def reconstructions(path, images, reconstructed, value_range, title):
  """Saves three rows: images, their reconstructions, and the difference (red too bright, blue too dark).

  Both arrays are [N, H, W, C] in the data's range; a "real" range is shown from the least to the greatest value.
  """
  low, high = _limits(images, value_range)
  width = high - low
  difference = (reconstructed - images).mean(-1, keepdims=True)
  rows = [  # name, images, least, most, colours, gap
    ("test images", images, low, high, "gray", high),
    ("reconstructions", reconstructed, low, high, "gray", high),
    ("difference" if images.shape[-1] == 1 else "mean difference", difference, -width, width, "RdBu_r", 0.0),
  ]
  _strips(path, rows, title)


def series(path, examples, reconstructed, title):
  """Saves series [N, T, C], their reconstructions over them, one small plot each; the first 16."""
  shown = examples[:16]
  figure = Figure(figsize=(9, 1.1 * -(-len(shown) // 4) + 0.4), layout="constrained", dpi=150)
  figure.suptitle(title, fontsize=9)
  grid = figure.subplots(-(-len(shown) // 4), 4, squeeze=False).flat
  for number, axes in enumerate(grid):
    axes.set(xticks=[], yticks=[], frame_on=False)
    if number < len(shown):
      axes.plot(shown[number], color="tab:gray", linewidth=1.0)
      axes.plot(reconstructed[number], color="tab:orange", linewidth=1.0)
  figure.legend(grid[0].lines[:: examples.shape[-1]], ["series", "reconstruction"], fontsize=7, loc="upper right")
  figure.savefig(path)


def rows_of_images(path, rows, value_range, title):
  """Saves rows of images, {name: [N, H, W, C] in the data's range}, in gray or in colour."""
  low, high = _limits(next(iter(rows.values())), value_range)
  _strips(path, [(name, images, low, high, "gray", high) for name, images in rows.items()], title)


def samples(path, images, value_range, title):
  """Saves images [N, H, W, C] as a square of them."""
  low, high = _limits(images, value_range)
  side = int(len(images) ** 0.5)
  strips = [_strip(images[row * side : (row + 1) * side], high) for row in range(side)]
  square = _strip(np.stack(strips).swapaxes(1, 2), high).swapaxes(0, 1)
  figure = Figure(figsize=(4, 4.2), layout="constrained", dpi=150)
  figure.suptitle(title, fontsize=9)
  axes = figure.subplots()
  axes.imshow(np.clip((square - low) / (high - low), 0.0, 1.0), cmap="gray", interpolation="nearest")
  axes.set(xticks=[], yticks=[], frame_on=False)
  figure.savefig(path)


def attention_to_images(path, images, weights, value_range):
  """Saves images [N, H, W, C] and below each what attention looks at, a row for each head of each layer.

  `weights` maps layers to [N, heads, queries, tokens]; the tokens tile the image row by row, and a row of the picture
  is the mean over the queries. There are at most 96 such rows, the others are left out.
  """
  low, high = _limits(images, value_range)
  rows = [("test images", images, low, high, "gray", high)]
  height, width = images.shape[1:3]
  for layer, array in weights.items():
    patch = round((height * width / array.shape[-1]) ** 0.5)
    for head in range(array.shape[1]):
      tiles = array[:, head].mean(1).reshape(-1, height // patch, width // patch, 1)
      tiles = np.kron(tiles, np.ones((1, patch, patch, 1), np.float32))
      rows.append((f"{layer} {head + 1}", tiles, 0.0, float(tiles.max()), "viridis", 0.0))
  _strips(path, rows[: 1 + _MOST_MAPS], "where attention looks (each row from 0 to its greatest weight)")


def attention_to_series(path, examples, weights):
  """Saves series [N, T, C] with the attention weights [N, heads, 1, T] over time below each; the first four."""
  figure = Figure(figsize=(9, 3), layout="constrained", dpi=150)
  figure.suptitle("where attention looks", fontsize=9)
  count = min(4, len(examples))
  for number, (above, below) in enumerate(zip(*figure.subplots(2, count, squeeze=False), strict=True)):
    above.plot(examples[number], color="tab:gray", linewidth=1.0)
    below.plot(next(iter(weights.values()))[number, :, 0].T, linewidth=1.0)
    for axes in (above, below):
      axes.set(xticks=[], yticks=[], frame_on=False)
    below.set(ylim=(0, None))
  figure.savefig(path)


def posterior_kl(path, nats):
  """Saves the KL per dimension of the code, in nats, from the most informative on."""
  figure = Figure(figsize=(6, 2.6), layout="constrained", dpi=150)
  axes = figure.subplots()
  axes.bar(range(1, len(nats) + 1), sorted(nats, reverse=True), color="tab:blue")
  axes.set(xlabel="dimension of the code, sorted", ylabel="KL to the prior, nats")
  figure.savefig(path)


def _limits(examples, value_range):
  """The least and the greatest value of the range, those of the examples where it has none."""
  low, high = ranges.INTERVALS[value_range]
  if not np.isfinite(low):
    low, high = float(examples.min()), float(examples.max())
  return low, high if high > low else low + 1.0


def _strips(path, rows, title):
  """Saves rows of images: (name, images [N, H, W, C], least, most, colour map, value between neighbours)."""
  count = len(rows[0][1])
  figure = Figure(figsize=(count * 0.7 + 1.3, 0.88 * len(rows) + 0.46), layout="constrained", dpi=150)
  figure.suptitle(title, fontsize=9)
  for axes, (name, row, least, most, colours, gap) in zip(figure.subplots(len(rows), 1), rows, strict=True):
    strip = _strip(row, gap)
    if strip.shape[-1] == 1:
      axes.imshow(strip[..., 0], cmap=colours, vmin=least, vmax=most, interpolation="nearest")
    else:
      axes.imshow(np.clip((strip - least) / (most - least), 0.0, 1.0), interpolation="nearest")
    axes.set(xticks=[], yticks=[], frame_on=False)
    axes.set_ylabel(name, fontsize=7, rotation=0, ha="right", va="center")
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
  right.set(ylabel="squared error per test example")
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
