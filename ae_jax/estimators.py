"""Autoencoders with scikit-learn's interface: a transformer and an outlier detector for rows of numbers."""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, OutlierMixin, TransformerMixin, _fit_context
from sklearn.preprocessing import QuantileTransformer, StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from ae_jax import errors, fitting, overrides
from ae_jax.trained_run import Run

__all__ = ["AutoencoderDetector", "AutoencoderTransformer"]

_ROWS = 256  # rows per call of the model; smaller batches are padded, so that a row has the same result in each batch
_MOST_QUANTILES = 201
_ARRAY = {"dtype": [np.float64, np.float32]}
_SCALERS = {  # `scale` -> function (number of examples) that returns the scaler
  "standard": lambda count: StandardScaler(),
  "quantile": lambda count: QuantileTransformer(
    n_quantiles=min(_MOST_QUANTILES, count), output_distribution="normal", random_state=0
  ),
}


class _Autoencoder(BaseEstimator):
  """The parameters and the fit that both estimators share."""

  _most_epochs = 100  # of the automatic choice: more epochs take longer than they help for few examples
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
    """Fits the scaler and trains the model on checked examples; sets `scaler_` and `run_`."""
    scaler = _SCALERS[self.scale](len(x))
    scaled = scaler.fit_transform(x.astype(np.float64)).astype(np.float32)
    self.run_ = self._trained(scaled, {})
    self.scaler_ = scaler

  def _trained(self, scaled: Float[np.ndarray, "examples features"], changes: dict[str, Any], start: Any = None) -> Run:
    """Returns a model that was trained on scaled examples.

    Args:
      scaled: The examples.
      changes: Values of config keys, which replace those of `options`.
      start: Variables from which the training starts; see `in_memory.train_run`.
    """
    from ae_jax.training import in_memory

    seed = int(check_random_state(self.random_state).randint(2**31 - 1))
    of_arguments = {"model.latent": self.latent, "epochs": self.epochs, "seed": seed}
    of_user = fitting.with_keys(of_arguments, overrides.dotted(self.options or {}))
    fixed = {"data.range": "real", "data.scale": "none", "data.kind": "table", "evaluators": ()}
    fitting.check_once(fixed, of_user)
    likelihood = {"objective.likelihood": "gaussian"}
    changes = likelihood | fixed | of_user | changes
    # all examples are for training, and a data set needs a test set
    config, dataset = fitting.problem(scaled, None, model=self.model, validation=None, test=scaled[:1], changes=changes)
    if self.model == fitting.AUTOMATIC and "epochs" not in changes:
      config = overrides.apply(config, {"epochs": min(config.epochs, self._most_epochs)})
    return in_memory.train_run(config, dataset, start)

  def _checked(self, x: Any) -> Shaped[np.ndarray, "examples features"]:
    """Returns new examples as an array; raises if the estimator is not fitted or the examples do not match."""
    check_is_fitted(self, "run_")
    return validate_data(self, x, reset=False, **_ARRAY)

  def _scaled(self, x: Shaped[np.ndarray, "examples features"]) -> Float[np.ndarray, "examples features"]:
    return self.scaler_.transform(x.astype(np.float64)).astype(np.float32)

  def _codes(self, x: Shaped[np.ndarray, "examples features"]) -> Float[np.ndarray, "examples latent"]:
    return _in_batches(self.run_.encode, self._scaled(x)).reshape(len(x), -1)

  def _squared_errors(self, x: Shaped[np.ndarray, "examples features"]) -> Float[np.ndarray, " examples"]:
    """Returns the mean squared error of the scaled features of each example, float64."""
    scaled = self._scaled(x)
    squares = np.square(_in_batches(self.run_.reconstruct, scaled).astype(np.float64) - scaled)
    return squares.mean(1)


def _in_batches(method: Any, rows: Float[np.ndarray, "examples ..."]) -> Float[np.ndarray, "examples ..."]:
  """Returns the results of a method of a run, with rows padded to a multiple of `_ROWS`.

  The result of a row then comes from the same program for each number of rows, so that it has the same bits.
  """
  padding = -len(rows) % _ROWS
  padded = np.concatenate([rows, np.zeros((padding, *rows.shape[1:]), rows.dtype)])
  return method(padded)[: len(rows)]


class AutoencoderTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _Autoencoder):
  """Latent codes of an autoencoder as a scikit-learn transformer: nonlinear PCA for rows of numbers.

  Features are standardised in float64, and a model of `ae_jax.fit` is trained on them in memory: nothing is printed and
  no file is left. With `model="auto"`, PCA has a correction by a dense network (see `ae_jax.config.automatic`).

  Example:
    >>> codes = AutoencoderTransformer(latent=2).fit_transform(X)

  Args:
    latent: Number of latent features; None: a third of the features, at most 32.
    model: "auto", or the name of a shipped config for rows of numbers, such as "dense" or "vae".
    epochs: Number of epochs; None: chosen by the number of examples, or by the config.
    scale: "standard" (mean 0 and variance 1), or "quantile" (to a normal distribution, for features with long tails).
    options: Values of other config keys, {"model__widths": (64,), "batch_size": 128}; see `ae_jax.fit`.
    random_state: Seed of the initialisation and of the order of the examples. The default 0 gives equal results in each
      fit; None draws another seed in each fit.

  Attributes:
    run_: The trained `ae_jax.Run` for scaled features.
    scaler_: The fitted scaler of scikit-learn.
    n_features_in_: Number of features.
    feature_names_in_: Names of the features, if `X` had names.
  """

  @_fit_context(prefer_skip_nested_validation=True)
  def fit(self, X: Any, y: Any = None) -> "AutoencoderTransformer":
    """Fits the scaling and trains the model on examples [N, features]; `y` is ignored."""
    self._fit(validate_data(self, X, ensure_min_samples=2, **_ARRAY))
    return self

  @_fit_context(prefer_skip_nested_validation=True)
  def partial_fit(self, X: Any, y: Any = None) -> "AutoencoderTransformer":
    """Trains the model for one epoch, or for `epochs`, on some of the examples [N, features]; `y` is ignored.

    The first call fits the scaling and PCA to its examples, so it should have some hundred; later calls continue from
    the trained parameters. The learning rate is constant.
    """
    is_first = not hasattr(self, "run_")
    x = validate_data(self, X, reset=is_first, ensure_min_samples=2 if is_first else 1, **_ARRAY)
    if is_first:
      scaler = _SCALERS[self.scale](len(x))
      scaler.fit(x.astype(np.float64))
      self.scaler_ = scaler
    changes = {"optimizer.schedule": "constant", "optimizer.warmup_epochs": 0.0}
    changes |= {} if self.epochs else {"epochs": 1}
    # the model was chosen for the first examples
    changes |= {} if is_first else {"model": self.run_.config.model.to_dict()}
    self.run_ = self._trained(self._scaled(x), changes, None if is_first else self.run_.variables)
    return self

  def transform(self, X: Any) -> Float[np.ndarray, "examples latent"]:
    """Returns the latent codes [N, latent] of examples [N, features], in the dtype of `X`."""
    x = self._checked(X)
    return self._codes(x).astype(x.dtype)

  def inverse_transform(self, X: Any) -> Float[np.ndarray, "examples features"]:
    """Returns the examples [N, features] decoded from latent codes [N, latent], in the unit of the data."""
    check_is_fitted(self, "run_")
    codes = check_array(X, **_ARRAY)
    if codes.shape[1] != self._n_features_out:
      raise errors.UserError(
        f"X has {codes.shape[1]} latent features, but AutoencoderTransformer has {self._n_features_out}; pass the "
        "result of transform"
      )
    decoded = _in_batches(self.run_.decode, codes.astype(np.float32).reshape(len(codes), *self.run_.model.code.shape))
    return self.scaler_.inverse_transform(decoded.astype(np.float64)).astype(codes.dtype)

  def score(self, X: Any, y: Any = None) -> float:
    """Returns minus the mean squared error of the scaled features of examples [N, features]; `y` is ignored.

    Larger is better, so that `GridSearchCV` selects the smallest error. The score of a model that always returns the
    means is about -1 if `scale` is "standard".
    """
    return -float(self._squared_errors(self._checked(X)).mean())

  @property
  def _n_features_out(self) -> int:
    return self.run_.model.code.size

  def __sklearn_tags__(self) -> Any:
    tags = super().__sklearn_tags__()
    tags.transformer_tags.preserves_dtype = ["float64", "float32"]
    return tags


class AutoencoderDetector(OutlierMixin, _Autoencoder):
  """Outliers by the errors and the latents of an autoencoder, as a scikit-learn detector for rows of numbers.

  The model is trained like that of `AutoencoderTransformer`. The training examples may contain outliers; many epochs
  would teach the model to reconstruct them, so there are only a few by default.

  Example:
    >>> is_outlier = AutoencoderDetector(contamination=0.05).fit_predict(X) == -1

  Args:
    latent: See `AutoencoderTransformer`, as for the arguments up to `random_state`.
    model: Name of the config.
    epochs: Number of epochs.
    scale: Scaling of the features.
    options: Values of other config keys.
    random_state: Seed.
    contamination: Share of outliers among the training examples, in (0, 0.5]; it sets the threshold of `predict`, and
      does not change the scores.
    scoring: Parts of the anomaly score: "reconstruction" (squared error of the scaled features), "latent" (squared
      Mahalanobis distance of the latents from those of the training examples), or "both". Outliers with large values
      draw a latent axis towards them and are then reconstructed well, but are far from the mean in the latents (as
      the major and minor components of Shyu et al. 2003).

  Attributes:
    run_: The trained `ae_jax.Run` for scaled features.
    scaler_: The fitted scaler of scikit-learn.
    codes_: Latents of the training examples.
    scales_: Mean of each part of the anomaly score over the training examples.
    offset_: Threshold of `score_samples`: `decision_function` is `score_samples` minus `offset_`.
    n_features_in_: Number of features.
    feature_names_in_: Names of the features, if `X` had names.
  """

  _most_epochs = 10  # experiments/detectors
  _parameter_constraints: dict = {  # noqa: RUF012
    **_Autoencoder._parameter_constraints,
    "contamination": [Interval(Real, 0, 0.5, closed="right")],
    "scoring": [StrOptions({"both", "reconstruction", "latent"})],
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
    contamination: float = 0.1,
    scoring: str = "both",
  ) -> None:
    super().__init__(latent, model=model, epochs=epochs, scale=scale, options=options, random_state=random_state)
    self.contamination = contamination
    self.scoring = scoring

  @_fit_context(prefer_skip_nested_validation=True)
  def fit(self, X: Any, y: Any = None) -> "AutoencoderDetector":
    """Trains the model on examples [N, features] and sets the threshold; `y` is ignored."""
    x = validate_data(self, X, ensure_min_samples=2, **_ARRAY)
    self._fit(x)
    self.codes_ = self._codes(x)
    parts = self._parts(x)
    self.scales_ = {name: float(values.mean()) or 1.0 for name, values in parts.items()}
    self.offset_ = float(np.quantile(-self._scores(parts), self.contamination))
    return self

  def score_samples(self, X: Any) -> Float[np.ndarray, " examples"]:
    """Returns minus the anomaly score [N] of examples [N, features]: smaller values are more abnormal.

    The anomaly score is a sum of the two parts of `scoring`, each divided by its mean over the training examples.
    """
    return -self._scores(self._parts(self._checked(X)))

  def decision_function(self, X: Any) -> Float[np.ndarray, " examples"]:
    """Returns `score_samples` minus the threshold [N]: negative for outliers."""
    return self.score_samples(X) - self.offset_

  def predict(self, X: Any) -> Int[np.ndarray, " examples"]:
    """Returns -1 for outliers and 1 for other examples, [N]."""
    return np.where(self.decision_function(X) < 0, -1, 1)

  def _parts(self, x: Shaped[np.ndarray, "examples features"]) -> dict[str, Float[np.ndarray, " examples"]]:
    """Returns the parts of the anomaly score, {"reconstruction" or "latent": float64 [N]}."""
    from ae_jax.decisions import scores

    parts = {}
    if self.scoring != "latent":
      parts["reconstruction"] = self._squared_errors(x)
    if self.scoring != "reconstruction":
      parts["latent"] = np.square(scores.mahalanobis(self._codes(x), self.codes_))
    return parts

  def _scores(self, parts: Mapping[str, Float[np.ndarray, " examples"]]) -> Float[np.ndarray, " examples"]:
    return np.sum([values / self.scales_[name] for name, values in parts.items()], 0)
