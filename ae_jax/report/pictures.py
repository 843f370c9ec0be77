"""The pictures of exhibits, a function for each kind: (path, exhibit, value_range) -> a PNG file."""

import numpy as np

from ae_jax.data import ranges
from ae_jax.evaluators import exhibits
from ae_jax.report import canvas

_MOST_ROWS = 49  # of images in a picture, so that it can be drawn and looked at
_SERIES = 16  # in a picture, one plot each
_COLOURED = 10  # classes at most that are named in a picture


def draw(path, exhibit, value_range):
  """Saves the picture of an exhibit, whose examples are in this range."""
  _KINDS[type(exhibit)](path, exhibit, value_range)


def limits(examples, value_range):
  """The least and the greatest value of the range, those of the examples where it has none."""
  low, high = ranges.INTERVALS[value_range]
  if not np.isfinite(low):
    finite = examples[np.isfinite(examples)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
  return low, high if high > low else low + 1.0


def reconstructed(exhibit):
  """Whether a `Rows` has examples and their reconstructions, and no more."""
  return len(exhibit.rows) == 2 and [*exhibit.rows][1] == "reconstructions"


def heads(exhibit):
  """Generates (name, weights) of each head of each layer of an `Attention`: [N, H, W, 1] or [N, T, 1].

  A weight is the mean over the queries. The tokens of images tile them row by row; a series may have fewer than steps.
  """
  height, width = exhibit.examples.shape[1:3]
  for layer, weights in exhibit.weights.items():
    for head in range(weights.shape[1]):
      mean = weights[:, head].mean(1)
      if exhibit.examples.ndim == 4:
        patch = max(1, round((height * width / mean.shape[-1]) ** 0.5))
        tiles = mean.reshape(len(mean), height // patch, -1)
        mean = np.kron(tiles, np.ones((1, patch, patch), np.float32))
      yield f"{layer} {head + 1}", mean[..., None]


def _rows(path, exhibit, value_range):
  """A row for each name; below reconstructions the difference (red too bright, blue too dark)."""
  first, *others = exhibit.rows.values()
  if first.ndim == 3:
    (_overlaid if reconstructed(exhibit) else _rows_of_series)(path, exhibit)
    return
  low, high = limits(first, value_range)
  rows = [(name, images, low, high, "gray", high) for name, images in exhibit.rows.items()]
  if reconstructed(exhibit):
    difference = (others[0] - first).mean(-1, keepdims=True)
    name = "difference" if first.shape[-1] == 1 else "mean difference"
    rows.append((name, difference, low - high, high - low, "RdBu_r", 0.0))
  _strips(path, rows, exhibit.title)


def _overlaid(path, exhibit):
  """Series, their reconstructions over them, one small plot each."""
  series, reconstructions = (each[:_SERIES] for each in exhibit.rows.values())
  figure = canvas.figure(9, 1.1 * -(-len(series) // 4) + 0.4, exhibit.title)
  grid = figure.subplots(-(-len(series) // 4), 4, squeeze=False).ravel()
  for axes in grid:
    canvas.bare(axes)
  for axes, original, other in zip(grid, series, reconstructions, strict=False):
    axes.plot(original, color="tab:gray", linewidth=1.0)
    axes.plot(other, color="tab:orange", linewidth=1.0)
  figure.legend(grid[0].lines[:: series.shape[-1]], ["series", "reconstruction"], fontsize=7, loc="upper right")
  figure.savefig(path)


def _rows_of_series(path, exhibit):
  """A small plot for each of the first series of each row, all on one scale."""
  count = min(_SERIES // 2, len(next(iter(exhibit.rows.values()))))
  figure = canvas.figure(count * 1.1 + 1.5, 0.6 * len(exhibit.rows) + 0.5, exhibit.title)
  grid = figure.subplots(len(exhibit.rows), count, squeeze=False, sharey=True)
  for line, (name, series) in zip(grid, exhibit.rows.items(), strict=True):
    for axes, each in zip(line, series, strict=False):
      canvas.bare(axes)
      axes.plot(each, linewidth=0.8)
    canvas.bare(line[0], name)
  figure.savefig(path)


def _gallery(path, exhibit, value_range):
  """A grid that is nearly square."""
  columns = max(1, round(len(exhibit.examples) ** 0.5))
  _grids(path, exhibit.examples[None], [""], columns, value_range, exhibit.title)


def _explorer(path, exhibit, value_range):
  """For each pair of directions what is decoded, along the first downwards, along the second across."""
  groups = exhibit.examples.reshape(len(exhibit.examples), -1, *exhibit.examples.shape[3:])
  names = [f"{down} down, {across} across" for down, across in zip(*[iter(exhibit.names)] * 2, strict=True)]
  _grids(path, groups, names, len(exhibit.positions), value_range, exhibit.title)


def _grids(path, groups, names, columns, value_range, title):
  """Groups of examples [groups, N, ...] beside each other, each as a grid of so many columns; the first six."""
  groups = groups[:6]
  figure = canvas.figure(4 * len(groups), 4.3, title)
  low, high = limits(groups, value_range)
  for axes, name, group in zip(figure.subplots(1, len(groups), squeeze=False).flat, names, groups, strict=False):
    canvas.bare(axes)
    axes.set_title(name, fontsize=7)
    if group.ndim == 3:
      _grid_of_series(axes, (group - low) / (high - low), columns)
      continue
    missing = -len(group) % columns
    whole = np.concatenate([group, np.full((missing, *group.shape[1:]), high, group.dtype)])
    strips = [_strip(whole[first : first + columns], high) for first in range(0, len(whole), columns)]
    square = _strip(np.stack(strips).swapaxes(1, 2), high).swapaxes(0, 1)
    square = np.clip((square - low) / (high - low), 0.0, 1.0)
    axes.imshow(square, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
  figure.savefig(path)


def _grid_of_series(axes, group, columns):
  """Series [N, T, C] in [0, 1] as lines in the cells of a grid."""
  for number, series in enumerate(group):
    down, across = divmod(number, columns)
    axes.plot(across + np.linspace(0.05, 0.95, len(series)), 0.9 * series - down, color="tab:blue", linewidth=0.6)


def _heatmap(path, exhibit, value_range):
  """Colours for pixels, a line over the steps of a series."""
  del value_range
  figure = canvas.figure(*((4.6, 4) if exhibit.values.ndim == 2 else (6, 2.6)), exhibit.title)
  axes = figure.subplots()
  if exhibit.values.ndim == 2:
    if exhibit.x_label or exhibit.y_label:
      axes.set(xlabel=exhibit.x_label, ylabel=exhibit.y_label)
    else:
      canvas.bare(axes)
    height, width = exhibit.values.shape
    around = (0.5, width + 0.5, height + 0.5, 0.5)  # a number is in the middle of its square
    drawn = axes.imshow(exhibit.values, cmap="magma", interpolation="nearest", extent=around)
    figure.colorbar(drawn, label=exhibit.unit)
  else:
    axes.plot(exhibit.values)
    axes.set(xlabel="step", ylabel=exhibit.unit)
  figure.savefig(path)


def _bars(path, exhibit, value_range):
  """A bar for each value; none for values that are not finite."""
  del value_range
  values = np.where(np.isfinite(exhibit.values), exhibit.values, 0.0)
  figure = canvas.figure(6, 2.6, exhibit.title)
  axes = figure.subplots()
  positions = range(1, len(exhibit.values) + 1)
  if len("".join(exhibit.names)) < 60:
    axes.bar(positions, values, color="tab:blue")
    axes.set(xlabel=exhibit.x_label, ylabel=exhibit.y_label)
    if exhibit.names:
      axes.set_xticks(positions, exhibit.names)
  else:  # long names are read from left to right
    axes.barh(positions, values, color="tab:blue")
    axes.set(xlabel=exhibit.y_label, ylabel=exhibit.x_label)
    axes.set_yticks(positions, exhibit.names)
    axes.invert_yaxis()
  figure.savefig(path)


def _lines(path, exhibit, value_range):
  """Lines with their points."""
  del value_range
  figure = canvas.figure(6, 3, exhibit.title)
  axes = figure.subplots()
  for name, (x, y) in exhibit.lines.items():
    axes.plot(x, y, "o-", label=name, markersize=3, linewidth=1.2)
  axes.set(xlabel=exhibit.x_label, ylabel=exhibit.y_label)
  axes.grid(alpha=0.2)
  if exhibit.lines:
    axes.legend(fontsize=8)
  figure.savefig(path)


def _points(path, exhibit, value_range):
  """The views beside each other, coloured by label."""
  del value_range
  figure = canvas.figure(4.4 * len(exhibit.views) + 0.6, 4.4, exhibit.title)
  classes, numbers = np.unique(exhibit.labels, return_inverse=True)
  few = len(classes) <= _COLOURED
  grid = figure.subplots(1, len(exhibit.views), squeeze=False).flat
  for axes, (name, view) in zip(grid, exhibit.views.items(), strict=True):
    canvas.bare(axes)
    axes.set_title(name, fontsize=8)
    for number, label in enumerate(classes):
      colour = f"C{number}" if few else canvas.shade("turbo", number / (len(classes) - 1))
      axes.scatter(*view[numbers == number].T, s=6, color=colour, label=str(label), linewidths=0)
  if len(classes) > 1 and few:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=7, markerscale=2)
  figure.savefig(path)


def _attention(path, exhibit, value_range):
  """Examples, and below each what is looked at, a row for each head of each layer."""
  if exhibit.examples.ndim == 3:
    _attention_to_series(path, exhibit)
    return
  low, high = limits(exhibit.examples, value_range)
  rows = [("test images", exhibit.examples, low, high, "gray", high)]
  rows += [(name, weights, 0.0, float(weights.max()), "viridis", 0.0) for name, weights in heads(exhibit)]
  _strips(path, rows[:_MOST_ROWS], f"{exhibit.title} (each row from 0 to its greatest weight)")


def _attention_to_series(path, exhibit):
  """Series and the attention weights over time below each; the first four."""
  count = min(4, len(exhibit.examples))
  figure = canvas.figure(9, 3, exhibit.title)
  for number, (above, below) in enumerate(zip(*figure.subplots(2, count, squeeze=False), strict=True)):
    canvas.bare(above)
    canvas.bare(below)
    above.plot(exhibit.examples[number], color="tab:gray", linewidth=1.0)
    for _, weights in heads(exhibit):
      below.plot(weights[number], linewidth=1.0)
    below.set(ylim=(0, None))
  figure.savefig(path)


def _strips(path, rows, title):
  """Rows of images: (name, images [N, H, W, C], least, most, colour map, value between neighbours)."""
  figure = canvas.figure(len(rows[0][1]) * 0.7 + 1.3, 0.88 * len(rows) + 0.46, title)
  grid = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
  for axes, (name, images, least, most, colours, gap) in zip(grid, rows, strict=True):
    strip = _strip(images, gap)
    if strip.shape[-1] == 1:
      axes.imshow(strip[..., 0], cmap=colours, vmin=least, vmax=most, interpolation="nearest")
    else:
      axes.imshow(np.clip((strip - least) / (most - least), 0.0, 1.0), interpolation="nearest")
    canvas.bare(axes, name)
  figure.savefig(path)


def _strip(images, fill):
  """[N, H, W, C] -> one row [H, N * (W + 1) - 1, C], a pixel of `fill` between neighbours."""
  gap = np.full((*images.shape[:2], 1, images.shape[3]), fill, images.dtype)
  padded = np.concatenate([images, gap], axis=2)
  return np.concatenate(list(padded), axis=1)[:, :-1]


_KINDS = {
  exhibits.Rows: _rows,
  exhibits.Gallery: _gallery,
  exhibits.Heatmap: _heatmap,
  exhibits.Bars: _bars,
  exhibits.Lines: _lines,
  exhibits.Points: _points,
  exhibits.Explorer: _explorer,
  exhibits.Attention: _attention,
}
