"""What an evaluator shows, as plain data: `ae_jax.report` draws it, and files keep it, without the model.

Examples are images [N, H, W, C] or series [N, T, C], float32 in the range of the run's data.
"""

import dataclasses
import json

import numpy as np

from ae_jax import errors


@dataclasses.dataclass(frozen=True)
class ExampleRows:
  """Examples one row below the other, each row with a name: {name: [N, ...]}, of equal N."""

  title: str
  rows: dict


@dataclasses.dataclass(frozen=True)
class Gallery:
  """Many examples [N, ...], row by row in a grid."""

  title: str
  examples: np.ndarray


@dataclasses.dataclass(frozen=True)
class Heatmap:
  """A number for each pixel [H, W], or for each step of a series [T]; or a table of numbers whose axes have names."""

  title: str
  unit: str
  values: np.ndarray
  x_label: str = ""
  y_label: str = ""


@dataclasses.dataclass(frozen=True)
class Bars:
  """A number for each of some names or, where `names` is empty, of some positions from 1 on."""

  title: str
  names: tuple
  values: np.ndarray  # [K]
  x_label: str
  y_label: str


@dataclasses.dataclass(frozen=True)
class Lines:
  """Lines {name: [2, K]}: x and y of their points."""

  title: str
  lines: dict
  x_label: str
  y_label: str


@dataclasses.dataclass(frozen=True)
class Points:
  """Examples as points of the plane, seen in several ways: `views` are {name: [N, 2]}; labels [N], all 0 without."""

  title: str
  views: dict
  examples: np.ndarray  # [N, ...]
  labels: np.ndarray  # int [N]


@dataclasses.dataclass(frozen=True)
class Explorer:
  """What is decoded along pairs of directions of the code: examples [pairs, steps, steps, ...].

  `names` has the two names of each pair, 2 * pairs of them; the first axis of steps goes along the first, and
  `positions` [steps], in standard deviations, holds for both.
  """

  title: str
  names: tuple
  positions: np.ndarray
  examples: np.ndarray


@dataclasses.dataclass(frozen=True)
class Attention:
  """Examples [N, ...] and where each layer looks: {layer: [N, heads, queries, tokens]}."""

  title: str
  examples: np.ndarray
  weights: dict


KINDS = {kind.__name__: kind for kind in (ExampleRows, Gallery, Heatmap, Bars, Lines, Points, Explorer, Attention)}
_OLD_NAMES = {"Rows": "ExampleRows"}  # of kinds in files that version 0.1 wrote


def fault(figure):
  """What is wrong with the shapes of an figure, in words; None for nothing."""
  wrong = [said for right, said in _CONDITIONS[type(figure)](figure) if not right]
  return wrong[0] if wrong else None


def _alike(arrays, dimensions):
  """Conditions on arrays: there is one, all have the same shape of so many axes, and none is empty."""
  shapes = {array.shape for array in arrays}
  yield len(shapes) == 1 and len(next(iter(shapes))) in dimensions, f"arrays of shapes {sorted(shapes)}"
  yield all(array.size for array in arrays), "an array that is empty"


def _of_rows(figure):
  yield from _alike(figure.rows.values(), (3, 4))


def _of_gallery(figure):
  yield from _alike([figure.examples], (3, 4))


def _of_heatmap(figure):
  yield from _alike([figure.values], (1, 2))


def _of_bars(figure):
  yield from _alike([figure.values], (1,))
  yield len(figure.names) in (0, len(figure.values)), f"{len(figure.names)} names of {len(figure.values)} values"


def _of_lines(figure):
  yield figure.lines and all(line.shape == (2, line.size // 2) for line in figure.lines.values()), "no lines [2, K]"


def _of_points(figure):
  count = len(figure.examples)
  yield from _alike([figure.examples], (3, 4))
  yield figure.views and all(view.shape == (count, 2) for view in figure.views.values()), f"no views [{count}, 2]"
  yield figure.labels.shape == (count,) and figure.labels.dtype.kind in "iu", f"no labels [{count}]"


def _of_explorer(figure):
  yield from _alike([figure.examples], (5, 6))
  yield figure.examples.shape[1:3] == figure.positions.shape * 2, "steps that are not those of the positions"
  yield len(figure.names) == 2 * len(figure.examples), f"{len(figure.names)} names of {len(figure.examples)} pairs"


def _of_attention(figure):
  yield from _alike([figure.examples], (3, 4))
  count, height, width = figure.examples.shape[:3]
  for weights in figure.weights.values():
    yield weights.ndim == 4 and len(weights) == count and weights.size > 0, f"weights of shape {weights.shape}"
    tokens = weights.shape[-1]
    if figure.examples.ndim == 4:  # an encoder may shorten a series, whose tokens are then fewer than its steps
      patch = max(1, round((height * width / tokens) ** 0.5))
      yield tokens == height // patch * (width // patch), f"{tokens} tokens that do not tile {height} x {width}"


_CONDITIONS = {
  ExampleRows: _of_rows,
  Gallery: _of_gallery,
  Heatmap: _of_heatmap,
  Bars: _of_bars,
  Lines: _of_lines,
  Points: _of_points,
  Explorer: _of_explorer,
  Attention: _of_attention,
}


def save(path, figure):
  """Writes an figure as an .npz file: its arrays, and all else as JSON in a member "words"."""
  assert fault(figure) is None, f"{path.name}: {fault(figure)}"
  words, arrays = {"kind": type(figure).__name__}, {}
  for field in dataclasses.fields(figure):
    value = getattr(figure, field.name)
    if isinstance(value, np.ndarray):
      arrays[field.name] = value
    elif isinstance(value, dict):
      words[field.name] = list(value)
      arrays |= {f"{field.name}.{number}": each for number, each in enumerate(value.values())}
    else:
      words[field.name] = value
  with path.open("wb") as file:
    np.savez_compressed(file, words=np.frombuffer(json.dumps(words).encode(), np.uint8), **arrays)


def load(path):
  """The figure that `save` wrote; UserError for a file that is damaged or something else."""
  damaged = f"{path}: is not what an evaluator left; remove it"
  with errors.explained(damaged), path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
    words = json.loads(stored["words"].tobytes())
    name = words.pop("kind")
    kind = KINDS[_OLD_NAMES.get(name, name)]
    figure = kind(**{field.name: _field(field, words, stored) for field in dataclasses.fields(kind)})
    if fault(figure):
      raise ValueError(fault(figure))
  return figure


def _field(field, words, stored):
  if field.name not in (*words, *stored) and field.default is not dataclasses.MISSING:
    return field.default  # of a version that had no such field
  if field.type is np.ndarray:
    return stored[field.name]
  if field.type is dict:
    return {name: stored[f"{field.name}.{number}"] for number, name in enumerate(words[field.name])}
  return field.type(words[field.name])
