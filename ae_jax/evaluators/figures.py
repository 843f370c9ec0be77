"""Figures as plain data: evaluators make them, files store them, and `ae_jax.report` draws them without the model.

Examples are images [N, H, W, C] or series [N, T, C], float32 in the range of the run's data.
"""

import dataclasses
import json
import pathlib
import typing
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from ae_jax import errors


@dataclasses.dataclass(frozen=True)
class ExampleRows:
  """Named rows of examples, one below the other."""

  title: str
  rows: dict[str, np.ndarray]  # name -> [N, ...], the same N in all rows


@dataclasses.dataclass(frozen=True)
class Gallery:
  """A grid of examples, filled row by row."""

  title: str
  examples: np.ndarray  # [N, ...]


@dataclasses.dataclass(frozen=True)
class Heatmap:
  """One number per pixel, per step of a series, or per cell of a table with labelled axes."""

  title: str
  unit: str
  values: np.ndarray  # [H, W] or [T]
  x_label: str = ""
  y_label: str = ""


@dataclasses.dataclass(frozen=True)
class Bars:
  """One number per name; if `names` is empty, per position, counted from 1."""

  title: str
  names: tuple[str, ...]
  values: np.ndarray  # [K]
  x_label: str
  y_label: str


@dataclasses.dataclass(frozen=True)
class Lines:
  """Named lines."""

  title: str
  lines: dict[str, np.ndarray]  # name -> [2, K], x and y of the points
  x_label: str
  y_label: str


@dataclasses.dataclass(frozen=True)
class Points:
  """Scatter plots of examples, one per view."""

  title: str
  views: dict[str, np.ndarray]  # name -> [N, 2]
  examples: np.ndarray  # [N, ...]
  labels: np.ndarray  # int [N], all 0 if there are no labels


@dataclasses.dataclass(frozen=True)
class Explorer:
  """Decoded examples along pairs of directions in latent space."""

  title: str
  names: tuple[str, ...]  # of the directions, 2 per pair
  positions: np.ndarray  # [steps], along both directions, in standard deviations
  examples: np.ndarray  # [pairs, steps, steps, ...]; the first axis of steps follows the first direction of the pair


@dataclasses.dataclass(frozen=True)
class Attention:
  """Examples and the attention weights of each layer."""

  title: str
  examples: np.ndarray  # [N, ...]
  weights: dict[str, np.ndarray]  # layer -> [N, heads, queries, tokens]


KINDS = {kind.__name__: kind for kind in (ExampleRows, Gallery, Heatmap, Bars, Lines, Points, Explorer, Attention)}
_OLD_NAMES = {"Rows": "ExampleRows"}  # names of kinds in files of version 0.1


def shape_error(figure: Any) -> str | None:
  """Returns a description of the first wrong shape in a figure; None if all shapes fit."""
  faults = [message for fits, message in _CONDITIONS[type(figure)](figure) if not fits]
  return faults[0] if faults else None


def _same_shape(arrays: Collection[np.ndarray], dimensions: tuple[int, ...]) -> Iterator[tuple[Any, str]]:
  """Yields conditions: one shape for all arrays, with a number of axes in `dimensions`, and no empty array."""
  shapes = {array.shape for array in arrays}
  yield len(shapes) == 1 and len(next(iter(shapes))) in dimensions, f"arrays of shapes {sorted(shapes)}"
  yield all(array.size for array in arrays), "an empty array"


def _of_rows(figure: ExampleRows) -> Iterator[tuple[Any, str]]:
  yield from _same_shape(figure.rows.values(), (3, 4))


def _of_gallery(figure: Gallery) -> Iterator[tuple[Any, str]]:
  yield from _same_shape([figure.examples], (3, 4))


def _of_heatmap(figure: Heatmap) -> Iterator[tuple[Any, str]]:
  yield from _same_shape([figure.values], (1, 2))


def _of_bars(figure: Bars) -> Iterator[tuple[Any, str]]:
  yield from _same_shape([figure.values], (1,))
  yield len(figure.names) in (0, len(figure.values)), f"{len(figure.names)} names for {len(figure.values)} values"


def _of_lines(figure: Lines) -> Iterator[tuple[Any, str]]:
  yield figure.lines and all(line.shape == (2, line.size // 2) for line in figure.lines.values()), "no lines [2, K]"


def _of_points(figure: Points) -> Iterator[tuple[Any, str]]:
  count = len(figure.examples)
  yield from _same_shape([figure.examples], (3, 4))
  yield figure.views and all(view.shape == (count, 2) for view in figure.views.values()), f"no views [{count}, 2]"
  yield figure.labels.shape == (count,) and figure.labels.dtype.kind in "iu", f"no labels [{count}]"


def _of_explorer(figure: Explorer) -> Iterator[tuple[Any, str]]:
  yield from _same_shape([figure.examples], (5, 6))
  yield figure.examples.shape[1:3] == figure.positions.shape * 2, "other numbers of steps than positions"
  yield len(figure.names) == 2 * len(figure.examples), f"{len(figure.names)} names for {len(figure.examples)} pairs"


def _of_attention(figure: Attention) -> Iterator[tuple[Any, str]]:
  yield from _same_shape([figure.examples], (3, 4))
  count, height, width = figure.examples.shape[:3]
  for weights in figure.weights.values():
    yield weights.ndim == 4 and len(weights) == count and weights.size > 0, f"weights of shape {weights.shape}"
    tokens = weights.shape[-1]
    if figure.examples.ndim == 4:  # not for series: an encoder may shorten them to fewer tokens than steps
      patch = max(1, round((height * width / tokens) ** 0.5))
      yield tokens == height // patch * (width // patch), f"{tokens} tokens that do not tile {height} x {width}"


_CONDITIONS: dict[type, Callable[[Any], Iterator[tuple[Any, str]]]] = {
  ExampleRows: _of_rows,
  Gallery: _of_gallery,
  Heatmap: _of_heatmap,
  Bars: _of_bars,
  Lines: _of_lines,
  Points: _of_points,
  Explorer: _of_explorer,
  Attention: _of_attention,
}


def save(path: pathlib.Path, figure: Any) -> None:
  """Writes a figure as an .npz file: its arrays, and the other fields as JSON in the member "words"."""
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
  with path.open("wb") as file:
    np.savez_compressed(file, words=np.frombuffer(json.dumps(words).encode(), np.uint8), **arrays)


def load(path: pathlib.Path) -> Any:
  """Returns the figure in a file of `save`; raises UserError if the file is damaged or holds something else."""
  damaged = f"{path}: cannot be read as a figure; remove it"
  with errors.convert_errors(damaged), path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
    words = json.loads(stored["words"].tobytes())
    name = words.pop("kind")
    kind = KINDS[_OLD_NAMES.get(name, name)]
    figure = kind(**{field.name: _field(field, words, stored) for field in dataclasses.fields(kind)})
    if shape_error(figure):
      raise ValueError(shape_error(figure))
  return figure


def _field(field: dataclasses.Field, words: dict[str, Any], stored: Any) -> Any:
  """Returns the value of a field from a file's JSON (`words`) and its arrays (`stored`)."""
  if field.name not in (*words, *stored) and field.default is not dataclasses.MISSING:
    return field.default  # the file is of a version without this field
  kind: Any = typing.get_origin(field.type) or field.type  # dict of dict[str, np.ndarray]
  if kind is np.ndarray:
    return stored[field.name]
  if kind is dict:
    return {name: stored[f"{field.name}.{number}"] for number, name in enumerate(words[field.name])}
  return kind(words[field.name])
