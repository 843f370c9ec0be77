"""What an evaluator shows, as plain data: `ae_jax.report` draws it, and files keep it, without the model.

Examples are images [N, H, W, C] or series [N, T, C], float32 in the range of the run's data.
"""

import dataclasses
import json

import numpy as np

from ae_jax import errors


@dataclasses.dataclass(frozen=True)
class Rows:
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


KINDS = {kind.__name__: kind for kind in (Rows, Gallery, Heatmap, Bars, Lines, Points, Explorer, Attention)}


def fault(exhibit):
  """What is wrong with the shapes of an exhibit, in words; None for nothing."""
  wrong = [said for right, said in _CONDITIONS[type(exhibit)](exhibit) if not right]
  return wrong[0] if wrong else None


def _alike(arrays, dimensions):
  """Conditions on arrays: there is one, all have the same shape of so many axes, and none is empty."""
  shapes = {array.shape for array in arrays}
  yield len(shapes) == 1 and len(next(iter(shapes))) in dimensions, f"arrays of shapes {sorted(shapes)}"
  yield all(array.size for array in arrays), "an array that is empty"


def _of_rows(exhibit):
  yield from _alike(exhibit.rows.values(), (3, 4))


def _of_gallery(exhibit):
  yield from _alike([exhibit.examples], (3, 4))


def _of_heatmap(exhibit):
  yield from _alike([exhibit.values], (1, 2))


def _of_bars(exhibit):
  yield from _alike([exhibit.values], (1,))
  yield len(exhibit.names) in (0, len(exhibit.values)), f"{len(exhibit.names)} names of {len(exhibit.values)} values"


def _of_lines(exhibit):
  yield exhibit.lines and all(line.shape == (2, line.size // 2) for line in exhibit.lines.values()), "no lines [2, K]"


def _of_points(exhibit):
  count = len(exhibit.examples)
  yield from _alike([exhibit.examples], (3, 4))
  yield exhibit.views and all(view.shape == (count, 2) for view in exhibit.views.values()), f"no views [{count}, 2]"
  yield exhibit.labels.shape == (count,) and exhibit.labels.dtype.kind in "iu", f"no labels [{count}]"


def _of_explorer(exhibit):
  yield from _alike([exhibit.examples], (5, 6))
  yield exhibit.examples.shape[1:3] == exhibit.positions.shape * 2, "steps that are not those of the positions"
  yield len(exhibit.names) == 2 * len(exhibit.examples), f"{len(exhibit.names)} names of {len(exhibit.examples)} pairs"


def _of_attention(exhibit):
  yield from _alike([exhibit.examples], (3, 4))
  count, height, width = exhibit.examples.shape[:3]
  for weights in exhibit.weights.values():
    yield weights.ndim == 4 and len(weights) == count and weights.size > 0, f"weights of shape {weights.shape}"
    tokens = weights.shape[-1]
    if exhibit.examples.ndim == 4:  # an encoder may shorten a series, whose tokens are then fewer than its steps
      patch = max(1, round((height * width / tokens) ** 0.5))
      yield tokens == height // patch * (width // patch), f"{tokens} tokens that do not tile {height} x {width}"


_CONDITIONS = {
  Rows: _of_rows,
  Gallery: _of_gallery,
  Heatmap: _of_heatmap,
  Bars: _of_bars,
  Lines: _of_lines,
  Points: _of_points,
  Explorer: _of_explorer,
  Attention: _of_attention,
}


def save(path, exhibit):
  """Writes an exhibit as an .npz file: its arrays, and all else as JSON in a member "words"."""
  assert fault(exhibit) is None, f"{path.name}: {fault(exhibit)}"
  words, arrays = {"kind": type(exhibit).__name__}, {}
  for field in dataclasses.fields(exhibit):
    value = getattr(exhibit, field.name)
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
  """The exhibit that `save` wrote; UserError for a file that is damaged or something else."""
  damaged = f"{path}: is not what an evaluator left; remove it"
  with errors.explained(damaged), path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
    words = json.loads(stored["words"].tobytes())
    kind = KINDS[words.pop("kind")]
    exhibit = kind(**{field.name: _field(field, words, stored) for field in dataclasses.fields(kind)})
    if fault(exhibit):
      raise ValueError(fault(exhibit))
  return exhibit


def _field(field, words, stored):
  if field.name not in (*words, *stored) and field.default is not dataclasses.MISSING:
    return field.default  # of a version that had no such field
  if field.type is np.ndarray:
    return stored[field.name]
  if field.type is dict:
    return {name: stored[f"{field.name}.{number}"] for number, name in enumerate(words[field.name])}
  return field.type(words[field.name])
