"""Scaling of each column of a table, or of each channel: standardisation, or a transform to a normal distribution."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from ae_jax import errors
from ae_jax.data import lazy_arrays, loss_columns, ranges


@dataclasses.dataclass(frozen=True, eq=False)
class Standardisation:
  """The affine map x -> (x - mean) / deviation for each column or channel, fitted to the training examples."""

  mean: Float32[np.ndarray, " columns"]
  deviation: Float32[np.ndarray, " columns"]  # 1 for a constant column

  label = "standardised value"  # name of the scaled values in figures

  def apply(self, x: Shaped[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Returns standardised examples."""
    scaled = np.empty(x.shape, np.float32)
    divide = lambda rows: np.divide(x[rows] - self.mean, self.deviation, out=scaled[rows], casting="same_kind")
    lazy_arrays.map_blocks(divide, len(x), lazy_arrays.cached_rows(x))
    return scaled

  def invert(self, x: Shaped[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Returns examples in their original units."""
    return (x * self.deviation + self.mean).astype(np.float32)

  @property
  def is_finite(self) -> Bool[np.ndarray, " columns"]:
    """Mask of the columns with at least one observed training value; the transform is undefined for the others."""
    return np.isfinite(self.mean) & np.isfinite(self.deviation)

  def as_json(self) -> dict[str, list[float]]:
    """Returns the fields as lists, for config.json."""
    return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}


@dataclasses.dataclass(frozen=True, eq=False)
class QuantileScaling:
  """Maps each column so that the training examples have a normal distribution (scikit-learn's QuantileTransformer)."""

  quantiles: Float32[np.ndarray, "levels columns"]  # quantiles of the training examples, at equally spaced levels
  scaled: Bool[np.ndarray, " columns"]  # mask of the columns that are scaled; the others are unchanged

  label = "scaled value"  # name of the scaled values in figures

  def apply(self, x: Shaped[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Returns scaled examples."""
    return self._map(x, "transform")

  def invert(self, x: Shaped[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Returns examples in their original units."""
    return self._map(x, "inverse_transform")

  @property
  def is_finite(self) -> Bool[np.ndarray, " columns"]:
    """Mask of the columns with at least one observed training value; the transform is undefined for the others."""
    return np.isfinite(self.quantiles).all(0)

  def as_json(self) -> dict[str, Any]:
    """Returns the fields as lists, for config.json."""
    return {"quantiles": self.quantiles.tolist(), "scaled": self.scaled.tolist()}

  @functools.cached_property
  def _transformer(self) -> Any:
    from sklearn.preprocessing import QuantileTransformer

    transformer = QuantileTransformer(n_quantiles=len(self.quantiles), output_distribution="normal")
    transformer.quantiles_ = self.quantiles[:, self.scaled].astype(np.float64)
    transformer.references_ = np.linspace(0, 1, len(self.quantiles))
    transformer.n_quantiles_, transformer.n_features_in_ = len(self.quantiles), int(self.scaled.sum())
    return transformer

  def _map(self, x: Shaped[np.ndarray, "*shape"], method: str) -> Float32[np.ndarray, "*shape"]:
    rows = x.reshape(-1, x.shape[-1]).astype(np.float32)
    if len(rows) and self.scaled.any():
      rows[:, self.scaled] = getattr(self._transformer, method)(rows[:, self.scaled].astype(np.float64))
    return rows.reshape(x.shape)


ColumnScaling = Standardisation | QuantileScaling


def from_json(stored: Mapping[str, Any] | None) -> ColumnScaling | None:
  """Returns the scaling that `as_json` stored, or None if `stored` is None."""
  if stored is None:
    return None
  if "quantiles" in stored:
    return QuantileScaling(np.asarray(stored["quantiles"], np.float32), np.asarray(stored["scaled"], bool))
  return Standardisation(*(np.asarray(stored[name], np.float32) for name in ("mean", "deviation")))


# config.data.scale -> unit of squared errors
_SQUARED_UNITS = {"standard": "in squared standard deviations", "quantile": "in squared units of the quantile scale"}


def squared_unit(scale: str | None, schema: Any) -> str:
  """Returns the unit of a sum of squared errors over the elements of an example, for messages; "" if none is known.

  Args:
    scale: `config.data.scale`; None for runs of earlier versions.
    schema: A `schema.Schema`, whose categories and booleans are not scaled; None for other data than tables.
  """
  unit = _SQUARED_UNITS.get(scale or "", "")
  return f"{unit} for numbers" if unit and schema is not None and schema.groups else unit


def check(scale: str, value_range: str) -> None:
  """Raises UserError if `config.data.scale` is unknown, or cannot be used with the value range."""
  errors.choose(dict.fromkeys(("none", *_FITS)), scale, "data.scale")
  if scale != "none" and value_range != "real":
    raise errors.UserError(
      f"config.data.scale={scale!r}: scaled data are not in the range {value_range!r}; set config.data.range='real' "
      "and config.objective.likelihood='gaussian'"
    )


def fit(arrays: dict[str, Any], scale: str, scaled: Bool[np.ndarray, " columns"] | None = None) -> ColumnScaling:
  """Fits a scaling to the training examples of a source and applies it to all examples, in place.

  The placement of the examples does not change the result. Masked elements are ignored by the fit. The same scaling is
  applied to targets.

  Args:
    arrays: Arrays of the source.
    scale: "standard" or "quantile".
    scaled: Mask of the columns (or channels) that are scaled; None scales all.

  Raises:
    UserError: A column or channel has no observed value.
  """
  train = arrays["train"]
  if (mask := arrays.get("train_mask")) is not None:
    as_floats = lambda rows: ranges.normalise(rows, "real")
    train = lazy_arrays.map_rows(train, train.shape[1:], np.float32, as_floats)
    train = lazy_arrays.map_pairs(train, mask, lambda rows, mask: np.where(mask, rows, np.float32(np.nan)))
  scaled = np.ones(train.shape[-1], bool) if scaled is None else scaled
  fitted = _FITS[scale](train, scaled)
  if not fitted.is_finite.all():
    column = int(np.flatnonzero(~fitted.is_finite)[0])
    raise errors.UserError(
      f"config.data.scale={scale!r}: no training example has an observed value in column or channel {column}; remove "
      "this column or channel"
    )
  apply = lambda rows: fitted.apply(ranges.normalise(rows, "real"))
  for split in loss_columns.of_examples(arrays):
    arrays[split] = lazy_arrays.map_rows(arrays[split], arrays[split].shape[1:], np.float32, apply)
  return fitted


def _standardise(train: lazy_arrays.MaybeLazy, scaled: Bool[np.ndarray, " columns"]) -> Standardisation:
  """Fits scikit-learn's StandardScaler to all training examples, in parts that do not depend on the placement."""
  from sklearn.preprocessing import StandardScaler

  scaler = StandardScaler()
  for part in lazy_arrays.parts(train):
    scaler.partial_fit(ranges.normalise(part, "real").reshape(-1, train.shape[-1]))  # sums of float32 are float64
  mean, deviation = np.where(scaled, scaler.mean_, 0.0), np.where(scaled, scaler.scale_, 1.0)
  return Standardisation(mean.astype(np.float32), deviation.astype(np.float32))


def _quantiles(train: lazy_arrays.MaybeLazy, scaled: Bool[np.ndarray, " columns"]) -> QuantileScaling:
  """Fits scikit-learn's QuantileTransformer to at most `_MOST_ROWS` training examples, drawn with a fixed seed."""
  from sklearn.preprocessing import QuantileTransformer

  drawn = np.sort(np.random.default_rng(0).permutation(len(train))[:_MOST_ROWS])
  rows = ranges.normalise(lazy_arrays.read_rows(train, drawn), "real").reshape(-1, train.shape[-1])
  transformer = QuantileTransformer(n_quantiles=min(_MOST_QUANTILES, len(rows)), subsample=None)
  return QuantileScaling(transformer.fit(rows.astype(np.float64)).quantiles_.astype(np.float32), scaled)


_MOST_ROWS, _MOST_QUANTILES = 100_000, 201
# config.data.scale -> function (examples, mask of the scaled columns)
_FITS: dict[str, Callable[..., ColumnScaling]] = {"standard": _standardise, "quantile": _quantiles}
