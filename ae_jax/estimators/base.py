"""Base class of the estimators: parameters, scaling and training."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from sklearn.base import BaseEstimator
from sklearn.preprocessing import QuantileTransformer, StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from ae_jax import errors, fitting, overrides
from ae_jax.estimators import options as config_options
from ae_jax.trained_run import Run

_ROWS = 256  # the number of rows is padded to a multiple of this, so the result of a row does not depend on the others
_MOST_QUANTILES = 201
_FARTHEST = 1e15  # limit of scaled values, so that sums of squares in the layers of a model do not overflow float32
ARRAY = {"dtype": [np.float64, np.float32]}  # arguments for scikit-learn's input checks
_SCALERS = {  # `scale` -> function that returns a scaler for a given number of examples
  "standard": lambda count: StandardScaler(),
  "quantile": lambda count: QuantileTransformer(
    n_quantiles=min(_MOST_QUANTILES, count), output_distribution="normal", random_state=0
  ),
}


class Autoencoder(BaseEstimator):
  """Base class of both estimators, with their common parameters and training."""

  _most_epochs = 100  # limit of the automatic choice; with few examples, more epochs take long and help little
  _parameter_constraints: dict = {  # noqa: RUF012, as scikit-learn declares it
    "latent": [Interval(Integral, 1, None, closed="left"), None],
    "model": [str],
    "epochs": [Interval(Integral, 1, None, closed="left"), None],
    "scale": [StrOptions({*_SCALERS})],
    "options": [dict, None],
    "random_state": ["random_state"],
  }

  def __init__(
    self,
    latent: int | None = None,
    *,
    model: str = fitting.AUTOMATIC,
    epochs: int | None = None,
    scale: str = "standard",
    options: Mapping[str, Any] | None = None,
    random_state: int | np.random.RandomState | None = 0,
  ) -> None:
    self.latent = latent
    self.model = model
    self.epochs = epochs
    self.scale = scale
    self.options = options
    self.random_state = random_state

  def _fit(self, x: Shaped[np.ndarray, "examples features"]) -> None:
    """Fits the scaler and trains the model on validated examples; sets `scaler_` and `run_`."""
    scaler = self._fitted_scaler(x)
    self.run_ = self._trained(_scaled(scaler, x), {})
    self.scaler_ = scaler

  def _fitted_scaler(self, x: Shaped[np.ndarray, "examples features"]) -> Any:
    """Returns a scaler that is fitted to validated examples; raises UserError if their variance is not finite."""
    scaler, x = _SCALERS[self.scale](len(x)), x.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
      if not np.isfinite(scaler.fit_transform(x)).all():
        raise errors.UserError(
          f"X: the variance of values such as {np.abs(x).max():.4g} exceeds the range of float64; divide the features "
          "by a constant, or use scale='quantile'"
        )
    return scaler

  def _trained(self, scaled: Float[np.ndarray, "examples features"], changes: dict[str, Any], start: Any = None) -> Run:
    """Trains a model on scaled examples.

    Args:
      scaled: The examples.
      changes: {config key: value}; these take precedence over `options`.
      start: Variables from which the training starts; see `in_memory.train_run`.
    """
    from ae_jax.training import in_memory

    seed = int(check_random_state(self.random_state).randint(2**31 - 1))
    fixed = {"objective.likelihood": "gaussian", **config_options.FIXED, "seed": seed}
    changes = fixed | self._of_user() | changes
    # all examples are used for training; the first is also passed as the test set, because a data set needs one
    config, dataset = fitting.problem(scaled, None, model=self.model, validation=None, test=scaled[:1], changes=changes)
    if self.model == fitting.AUTOMATIC and "epochs" not in changes:
      config = overrides.apply(config, {"epochs": min(config.epochs, self._most_epochs)})
    return in_memory.train_run(config, dataset, start)

  def _of_user(self) -> dict[str, Any]:
    """Returns {dotted config key: value} for the keys that the arguments of the estimator and its `options` set."""
    return config_options.changes(self.options, {"model.latent": self.latent, "epochs": self.epochs})

  def _checked(self, x: Any) -> Shaped[np.ndarray, "examples features"]:
    """Validates new examples; raises if the estimator is not fitted or the number or names of features differ."""
    check_is_fitted(self, "run_")
    return validate_data(self, x, reset=False, **ARRAY)

  def _scaled(self, x: Shaped[np.ndarray, "examples features"]) -> Float[np.ndarray, "examples features"]:
    return _scaled(self.scaler_, x)

  def _codes(self, x: Shaped[np.ndarray, "examples features"]) -> Float[np.ndarray, "examples latent"]:
    return in_batches(self.run_.encode, self._scaled(x)).reshape(len(x), -1)

  def _squared_errors(self, x: Shaped[np.ndarray, "examples features"]) -> Float[np.ndarray, " examples"]:
    """Returns the mean squared error of the scaled features of each example, float64."""
    # the mean is taken in batches, because NumPy adds the features of a single row in another order
    return in_batches(lambda scaled: self._squares(scaled).mean(1), self._scaled(x))

  def _squares(self, scaled: Float[np.ndarray, "rows features"]) -> Float[np.ndarray, "rows features"]:
    """Returns the squared error of each scaled feature of scaled examples, float64."""
    return np.square(self.run_.reconstruct(scaled).astype(np.float64) - scaled)


def _scaled(scaler: Any, x: Shaped[np.ndarray, "examples features"]) -> Float[np.ndarray, "examples features"]:
  """Scales examples, and clips them to a range in which the results of a model are finite in float32."""
  with np.errstate(over="ignore"):
    scaled = scaler.transform(x.astype(np.float64))
  return np.clip(scaled, -_FARTHEST, _FARTHEST).astype(np.float32)


def in_batches(method: Any, rows: Float[np.ndarray, "examples ..."]) -> Float[np.ndarray, "examples ..."]:
  """Calls a method of a run with the rows padded to a multiple of `_ROWS`, and drops the results of the padding.

  Each row is then computed by the same compiled program for any number of rows, so its result is bitwise the same.
  """
  padding = -len(rows) % _ROWS
  padded = np.concatenate([rows, np.zeros((padding, *rows.shape[1:]), rows.dtype)])
  return method(padded)[: len(rows)]
