"""Standardisation of the examples: each column of a table, or each channel, gets mean 0 and standard deviation 1."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

from ae_jax import errors
from ae_jax.data import lazy_arrays, loss_columns, ranges


@dataclasses.dataclass(frozen=True, eq=False)
class Standardisation:
  """The affine map x -> (x - mean) / deviation of the last axis of examples, fitted to the training examples."""

  mean: Float32[np.ndarray, " columns"]
  deviation: Float32[np.ndarray, " columns"]  # 1 for a constant column

  def apply(self, x: Shaped[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Returns standardised examples."""
    return ((x - self.mean) / self.deviation).astype(np.float32)

  def invert(self, x: Shaped[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Returns examples in their original units."""
    return (x * self.deviation + self.mean).astype(np.float32)

  def as_json(self) -> dict[str, list[float]]:
    """Returns the numbers as lists, for config.json."""
    return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}


def from_json(stored: Mapping[str, Sequence[float]] | None) -> Standardisation | None:
  """Returns the standardisation that `Standardisation.as_json` stored; None for None."""
  return stored and Standardisation(*(np.asarray(stored[name], np.float32) for name in ("mean", "deviation")))


def check(scale: str, value_range: str) -> None:
  """Raises UserError unless `config.data.scale` is valid for the range."""
  errors.choose(dict.fromkeys(("none", "standard")), scale, "data.scale")
  if scale == "standard" and value_range != "real":
    raise errors.UserError(
      f"config.data.scale='standard': standardised data are not in the range {value_range!r}; set "
      "config.data.range='real' and config.objective.likelihood='gaussian'"
    )


def standardise(arrays: dict[str, Any]) -> Standardisation:
  """Fits a standardisation to the training examples of a source and applies it to all examples, in place.

  scikit-learn computes the means and standard deviations, over all training examples and in parts of the same size for
  every placement, so the placement does not change them. Masked elements do not count. Targets are standardised like
  the examples.

  Raises:
    UserError: A column or channel has no observed value.
  """
  from sklearn.preprocessing import StandardScaler

  train = arrays["train"]
  if (mask := arrays.get("train_mask")) is not None:
    as_floats = lambda rows: ranges.normalise(rows, "real")
    train = lazy_arrays.map_rows(train, train.shape[1:], np.float32, as_floats)
    train = lazy_arrays.map_pairs(train, mask, lambda rows, mask: np.where(mask, rows, np.float32(np.nan)))
  scaler = StandardScaler()
  for part in lazy_arrays.parts(train, np.arange(len(train))):
    scaler.partial_fit(ranges.normalise(part, "real").reshape(-1, train.shape[-1]).astype(np.float64))
  fitted = Standardisation(scaler.mean_.astype(np.float32), scaler.scale_.astype(np.float32))
  if not np.isfinite(fitted.mean).all():
    column = int(np.flatnonzero(~np.isfinite(fitted.mean))[0])
    raise errors.UserError(
      f"config.data.scale='standard': no training example has an observed value in column or channel {column}; "
      "remove it"
    )
  apply = lambda rows: fitted.apply(ranges.normalise(rows, "real"))
  for half in loss_columns.of_examples(arrays):
    arrays[half] = lazy_arrays.map_rows(arrays[half], arrays[half].shape[1:], np.float32, apply)
  return fitted
