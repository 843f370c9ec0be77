"""Figures as plain data. Evaluators create them, and `ae_jax.report` draws them from their files, without the model.

Examples are images [N, H, W, C] or series [N, T, C], float32 in the range of the run's data.
"""

import dataclasses
import io
import json
import pathlib
import typing
import zipfile
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from ae_jax import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plotted:
  """Labels of examples that are drawn as plots: series and rows of a table. `display` sets those of the axes."""

  x_label: str = ""  # "" for images, and in files of earlier versions
  y_label: str = ""
  x_names: tuple[str, ...] = ()  # name of each column of a table; () for series
  channels: tuple[str, ...] = ()  # names of the channels of series; () if they have none
  captions: tuple[str, ...] = ()  # text above each example, such as its position in a recording; () for none


@dataclasses.dataclass(frozen=True)
class ExampleRows(Plotted):
  """Named rows of examples, one below the other."""

  title: str
  rows: dict[str, np.ndarray]  # name of a row -> examples [N, ...]; N is the same in all rows
  observed: np.ndarray | None = None  # bool [N, ...]: False for elements that are missing in the data; None: no element


@dataclasses.dataclass(frozen=True)
class Gallery(Plotted):
  """A grid of examples, filled row by row."""

  title: str
  examples: np.ndarray  # [N, ...]


@dataclasses.dataclass(frozen=True)
class Heatmap:
  """A heatmap with one number per pixel, per step of a series, or per cell of a table with labelled axes."""

  title: str
  unit: str
  values: np.ndarray  # [H, W], or [T] for series
  x_label: str = ""
  y_label: str = ""


@dataclasses.dataclass(frozen=True)
class Bars:
  """A bar chart. If `names` is empty, the bars are numbered from 1."""

  title: str
  names: tuple[str, ...]
  values: np.ndarray  # [K]
  x_label: str
  y_label: str


@dataclasses.dataclass(frozen=True)
class Lines:
  """A line plot, in which vertical lines are marks. With `x_names`, it has one row of points for each name instead."""

  title: str
  lines: dict[str, np.ndarray]  # name of a line -> [2, K]: x and y of its K points
  x_label: str
  y_label: str
  x_names: tuple[str, ...] = ()  # names of x = 0, 1, ..., which are rows from top to bottom; () for numbers
  logarithmic_x: bool = False  # whether the x axis is logarithmic; all x are positive then
  y_bounds: tuple[float, ...] = ()  # least and greatest possible y, which the axis of rows does not exceed; () for none


@dataclasses.dataclass(frozen=True)
class Timelines:
  """Scores of the steps and the windows of recordings over time, one panel per recording."""

  title: str
  steps: dict[str, np.ndarray]  # title of a panel -> [2, K]: time steps and their scores
  windows: dict[str, np.ndarray]  # title of a panel -> [2, K]: centres of windows, and their mean scores per step
  # title of a panel -> [K, 2]: first step of each anomalous stretch and the step after its last one, or their times
  marked: dict[str, np.ndarray]
  threshold: float  # of the mean scores of windows; NaN if there is none
  time: str = ""  # name of the times that stand for the steps; "" if the steps are counted
  is_date: bool = False  # whether the times are days since 1970-01-01


@dataclasses.dataclass(frozen=True)
class Points(Plotted):
  """Scatter plots of the same examples, one per projection to the plane."""

  title: str
  views: dict[str, np.ndarray]  # name of a projection -> points [N, 2]
  examples: np.ndarray  # [N, ...]
  labels: np.ndarray  # int [N], all 0 if there are no labels
  class_names: tuple[str, ...] = ()  # names of the labels 0, 1, ...; () if they have none


@dataclasses.dataclass(frozen=True)
class Explorer(Plotted):
  """Decoded examples along pairs of directions in latent space."""

  title: str
  names: tuple[str, ...]  # names of the directions, 2 per pair
  positions: np.ndarray  # [steps]: positions along both directions, in standard deviations
  examples: np.ndarray  # [pairs, steps, steps, ...]: axis 1 is the first direction of a pair, axis 2 the second


@dataclasses.dataclass(frozen=True)
class Attention(Plotted):
  """Examples and the attention weights of each layer."""

  title: str
  examples: np.ndarray  # [N, ...]
  weights: dict[str, np.ndarray]  # layer -> [N, heads, queries, tokens]


_CLASSES = (ExampleRows, Gallery, Heatmap, Bars, Lines, Timelines, Points, Explorer, Attention)
KINDS = {kind.__name__: kind for kind in _CLASSES}
_OLD_NAMES = {"Rows": "ExampleRows"}  # names of figure classes in files of version 0.1


def shape_error(figure: Any) -> str | None:
  """Returns a description of the first wrong shape in a figure; None if all shapes are valid."""
  faults = [message for valid, message in _CONDITIONS[type(figure)](figure) if not valid]
  return faults[0] if faults else None


def _same_shape(arrays: Collection[np.ndarray], dimensions: tuple[int, ...]) -> Iterator[tuple[Any, str]]:
  """Yields (condition, message) for two conditions on arrays.

  All arrays have the same shape, and their number of axes is in `dimensions`. No array is empty.
  """
  shapes = {array.shape for array in arrays}
  axes = " or ".join(map(str, dimensions))
  yield (
    len(shapes) == 1 and len(next(iter(shapes))) in dimensions,
    f"arrays have shapes {sorted(shapes)}; expected one shape with {axes} axes",
  )
  yield all(array.size for array in arrays), "an array is empty"


def _rows_conditions(figure: ExampleRows) -> Iterator[tuple[Any, str]]:
  yield from _same_shape(figure.rows.values(), (3, 4))
  count = len(next(iter(figure.rows.values()), ()))
  yield len(figure.captions) in (0, count), f"{len(figure.captions)} captions for {count} examples"
  if figure.observed is not None:
    yield from _same_shape([next(iter(figure.rows.values())), figure.observed], (3, 4))


def _gallery_conditions(figure: Gallery) -> Iterator[tuple[Any, str]]:
  yield from _same_shape([figure.examples], (3, 4))


def _heatmap_conditions(figure: Heatmap) -> Iterator[tuple[Any, str]]:
  yield from _same_shape([figure.values], (1, 2))


def _bars_conditions(figure: Bars) -> Iterator[tuple[Any, str]]:
  yield from _same_shape([figure.values], (1,))
  yield len(figure.names) in (0, len(figure.values)), f"{len(figure.names)} names for {len(figure.values)} values"


def _lines_conditions(figure: Lines) -> Iterator[tuple[Any, str]]:
  yield (
    figure.lines and all(line.shape == (2, line.size // 2) for line in figure.lines.values()),
    "lines must be arrays [2, K]",
  )


def _timelines_conditions(figure: Timelines) -> Iterator[tuple[Any, str]]:
  panels = [*figure.steps]
  yield panels and panels == [*figure.windows] == [*figure.marked], "the panels of steps, windows and marks differ"
  curves = [*figure.steps.values(), *figure.windows.values()]
  yield all(curve.ndim == 2 and len(curve) == 2 for curve in curves), "steps and windows must be arrays [2, K]"
  yield all(marked.ndim == 2 and marked.shape[1] == 2 for marked in figure.marked.values()), "marks must be [K, 2]"


def _points_conditions(figure: Points) -> Iterator[tuple[Any, str]]:
  count = len(figure.examples)
  yield from _same_shape([figure.examples], (3, 4))
  yield (
    figure.views and all(view.shape == (count, 2) for view in figure.views.values()),
    f"views must be arrays [{count}, 2]",
  )
  yield figure.labels.shape == (count,) and figure.labels.dtype.kind in "iu", f"labels must be integers [{count}]"


def _explorer_conditions(figure: Explorer) -> Iterator[tuple[Any, str]]:
  yield from _same_shape([figure.examples], (5, 6))
  yield (
    figure.examples.shape[1:3] == figure.positions.shape * 2,
    "the number of steps differs from the number of positions",
  )
  yield len(figure.names) == 2 * len(figure.examples), f"{len(figure.names)} names for {len(figure.examples)} pairs"


def side_of_patch(height: int, width: int, count: int) -> int | None:
  """Returns the side of the square patches if `count` patches cover an image; see `models.transformer.patchify`."""
  sides = range(1, max(height, width) + 1)
  return next((side for side in sides if -(-height // side) * -(-width // side) == count), None)


def _attention_conditions(figure: Attention) -> Iterator[tuple[Any, str]]:
  yield from _same_shape([figure.examples], (3, 4))
  count, height, width = figure.examples.shape[:3]
  for weights in figure.weights.values():
    yield (
      weights.ndim == 4 and len(weights) == count and weights.size > 0,
      f"attention weights have shape {weights.shape}; expected [{count}, heads, queries, tokens]",
    )
    tokens = weights.shape[-1]
    if figure.examples.ndim == 4:  # an encoder of series may have fewer tokens than steps
      covers = side_of_patch(height, width, tokens) is not None
      yield covers, f"{tokens} square patches do not cover an image of {height} x {width} pixels"


_CONDITIONS: dict[type, Callable[[Any], Iterator[tuple[Any, str]]]] = {
  ExampleRows: _rows_conditions,
  Gallery: _gallery_conditions,
  Heatmap: _heatmap_conditions,
  Bars: _bars_conditions,
  Lines: _lines_conditions,
  Timelines: _timelines_conditions,
  Points: _points_conditions,
  Explorer: _explorer_conditions,
  Attention: _attention_conditions,
}


def save(path: pathlib.Path, figure: Any) -> None:
  """Writes a figure to an .npz file.

  Each array is a member of the file. The member "words" holds the other fields as JSON.
  """
  assert shape_error(figure) is None, f"{path.name}: {shape_error(figure)}"
  words: dict[str, Any] = {"kind": type(figure).__name__}
  arrays: dict[str, Any] = {}
  for field in dataclasses.fields(figure):
    value = getattr(figure, field.name)
    if isinstance(value, np.ndarray):
      arrays[field.name] = value
    elif isinstance(value, dict):
      words[field.name] = list(value)
      arrays |= {f"{field.name}.{number}": array for number, array in enumerate(value.values())}
    else:
      words[field.name] = value
  arrays["words"] = np.frombuffer(json.dumps(words).encode(), np.uint8)
  # as `np.savez_compressed`, but with the fastest compression: figures of large images took half a minute
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
    for name, array in arrays.items():
      member = io.BytesIO()
      np.lib.format.write_array(member, array, allow_pickle=False)
      archive.writestr(f"{name}.npy", member.getbuffer())


def load(path: pathlib.Path) -> Any:
  """Returns the figure in a file that `save` wrote.

  Raises:
    UserError: The file is missing, damaged, or does not hold a figure.
  """
  damaged = f"{path}: cannot be read as a figure (remove the folder {path.parent} and evaluate the run again)"
  with errors.convert_errors(damaged), path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
    words = json.loads(stored["words"].tobytes())
    name = words.pop("kind")
    kind = KINDS[_OLD_NAMES.get(name, name)]
    figure = kind(**{field.name: _field(field, words, stored) for field in dataclasses.fields(kind)})
    if shape_error(figure):
      raise ValueError(shape_error(figure))
  return figure


def _field(field: dataclasses.Field, words: dict[str, Any], stored: Any) -> Any:
  """Returns the value of a field from the JSON (`words`) or the arrays (`stored`) of a file."""
  if field.name not in (*words, *stored) and field.default is not dataclasses.MISSING:
    return field.default  # the file was written by an earlier version, which did not have this field
  kind: Any = typing.get_origin(field.type) or field.type  # `dict` for the type dict[str, np.ndarray]
  if kind is np.ndarray or field.name in stored:
    return stored[field.name]
  if words[field.name] is None and field.default is None:
    return None
  if kind is dict:
    return {name: stored[f"{field.name}.{number}"] for number, name in enumerate(words[field.name])}
  return kind(words[field.name])
