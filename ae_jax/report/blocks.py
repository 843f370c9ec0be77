"""What a page shows of an figure: plain data that the template turns into HTML."""

from ae_jax.evaluators import figures
from ae_jax.report import charts, pictures, sprites

_MOST_ROWS = 64  # of pictures
_MOST_ACROSS = 64  # pictures of a row
_THUMBNAILS, _EXPLORED = 1_600_000, 4_000_000  # pixels of all pictures of a map, and of an explorer
_NARROW = 40  # bars in half the width of a page
_GREY = len(sprites.INKS) - 1


def of_figure(figure, value_range):
  """{"kind", "title", ...} of an figure whose examples are in this range, for the template."""
  made = _KINDS[type(figure)](figure, value_range)
  return made if made["kind"] == "chart" else made | {"title": figure.title}


def rows(named, low, high):
  """Rows of examples {name: [N, ...]}, each a name and a `sprites.Sheet`."""
  return {"kind": "rows", "rows": [(name, _row(examples, low, high)) for name, examples in named.items()]}


def chart(title, made, wide=False):
  """A chart of `charts`."""
  return {"kind": "chart", "title": title, "wide": wide} | made


def _rows(figure, value_range):
  named = dict([*figure.rows.items()][:_MOST_ROWS])
  first, *others = named.values()
  low, high = pictures.limits(first, value_range)
  if first.ndim == 3 and pictures.reconstructed(figure):
    groups = [(first, [_GREY] * first.shape[-1]), (others[0], [1] * first.shape[-1])]
    sheet = sprites.sheet(sprites.drawn(groups, low, high, 72, 160), 8, smooth=True)
    return {"kind": "gallery", "sheet": sheet, "note": "grey: the series; orange: its reconstruction"}
  made = rows(named, low, high)
  if pictures.reconstructed(figure):
    difference = (others[0] - first)[:_MOST_ACROSS].mean(-1, keepdims=True)
    made["rows"].append(("difference", _strip(sprites.of_differences(difference, high - low))))
    made["note"] = "red: too bright; blue: too dark"
  return made


def _row(examples, low, high):
  return _strip(sprites.of_examples(examples[:_MOST_ACROSS], low, high), smooth=examples.ndim == 3)


def _strip(drawn, smooth=False):
  return sprites.sheet(drawn, len(drawn), gap=1, smooth=smooth)


def _gallery(figure, value_range):
  examples = figure.examples
  drawn = sprites.of_examples(examples, *pictures.limits(examples, value_range))
  return {"kind": "gallery", "sheet": sprites.sheet(drawn, _square(len(drawn)), smooth=examples.ndim == 3)}


def _explorer(figure, value_range):
  pairs, steps = figure.examples.shape[:2]
  examples = figure.examples.reshape(-1, *figure.examples.shape[3:])
  drawn = sprites.of_examples(examples, *pictures.limits(examples, value_range), _side(examples, _EXPLORED))
  sheet = sprites.sheet(drawn, steps, shown=224, smooth=examples.ndim == 3)
  names = [figure.names[2 * pair : 2 * pair + 2] for pair in range(pairs)]
  return {"kind": "explorer", "sheet": sheet, "pairs": names, "positions": [float(p) for p in figure.positions]}


def _points(figure, value_range):
  examples = figure.examples
  drawn = sprites.of_examples(examples, *pictures.limits(examples, value_range), _side(examples, _THUMBNAILS))
  sheet = sprites.sheet(drawn, _square(len(drawn)), shown=84, smooth=examples.ndim == 3)
  return {"kind": "map", "sheet": sheet, "views": [*figure.views]} | charts.points(figure, sheet)


def _attention(figure, value_range):
  examples = figure.examples[:_MOST_ACROSS]
  made = rows({"examples": examples}, *pictures.limits(examples, value_range))
  for name, weights in [*pictures.heads(figure)][:_MOST_ROWS]:
    if examples.ndim == 4:
      drawn = sprites.of_weights(weights[:_MOST_ACROSS])
    else:
      drawn = sprites.of_examples(weights[:_MOST_ACROSS], 0.0, max(float(weights.max()), 1e-30))
    made["rows"].append((name, _strip(drawn, smooth=examples.ndim == 3)))
  return made | {"note": "each row goes from 0 to its greatest weight, the mean over the queries"}


def _side(examples, budget):
  """How long the longer side of a picture may be for so many pixels of all."""
  height, width = examples.shape[1:3] if examples.ndim == 4 else (1, 1)
  longer = int(max(height, width) * min(1.0, (budget / (len(examples) * height * width)) ** 0.5))
  return max(4, min(sprites.SIDE, longer))


def _square(count):
  return max(1, round(count**0.5))


_KINDS = {
  figures.ExampleRows: _rows,
  figures.Gallery: _gallery,
  figures.Heatmap: lambda figure, _: chart(figure.title, charts.heatmap(figure)),
  figures.Bars: lambda figure, _: chart(figure.title, charts.bars(figure), len(figure.values) > _NARROW),
  figures.Lines: lambda figure, _: chart(figure.title, charts.lines(figure)),
  figures.Points: _points,
  figures.Explorer: _explorer,
  figures.Attention: _attention,
}
