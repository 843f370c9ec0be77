"""An autoencoder as an outlier detector with scikit-learn's interface."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from sklearn.base import OutlierMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import validate_data

from ae_jax import errors, fitting
from ae_jax.estimators import base


class AutoencoderDetector(OutlierMixin, base.Autoencoder):
  """Outlier detector for arrays [N, features], based on the reconstruction error and the latents of an autoencoder.

  The model is trained as in `AutoencoderTransformer`. The training examples may contain outliers. In many epochs, the
  model would learn to reconstruct them, so with `model="auto"` and without `epochs`, it is trained for at most 10.

  Example:
    >>> is_outlier = AutoencoderDetector(contamination=0.05).fit_predict(X) == -1

  Args:
    latent: Number of latent features; see `AutoencoderTransformer`.
    model: Name of the config; see `AutoencoderTransformer`.
    epochs: Number of epochs; see `AutoencoderTransformer`.
    scale: Scaling of the features; see `AutoencoderTransformer`.
    options: Values of other config keys; see `AutoencoderTransformer`.
    random_state: Seed; see `AutoencoderTransformer`.
    contamination: Fraction of outliers among the training examples, in (0, 0.5]; it determines the threshold of
      `predict`, and does not change the scores.
    scoring: Parts of the anomaly score: "reconstruction" (mean squared error of the scaled features), "latent" (squared
      Mahalanobis distance of the latents from the mean of the training latents), or "both". An outlier with large
      values can attract a latent axis during training. It is then reconstructed well, but its latents are far from
      the mean (compare the major and minor components of Shyu et al. 2003).

  Attributes:
    run_: The trained `ae_jax.Run`, whose examples are scaled features.
    scaler_: The fitted scaler of scikit-learn.
    location_: Mean of the latents of the training examples; not set if `scoring` is "reconstruction".
    covariance_: Covariance of the latents of the training examples; not set if `scoring` is "reconstruction".
    scales_: {part of the anomaly score: its mean over the training examples}.
    offset_: Threshold of `score_samples`: `decision_function` is `score_samples` minus `offset_`.
    n_features_in_: Number of features.
    feature_names_in_: Names of the features, if `X` had names.
  """

  _most_epochs = 10  # experiments/detectors
  _parameter_constraints: dict = {  # noqa: RUF012
    **base.Autoencoder._parameter_constraints,
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
    x = validate_data(self, X, ensure_min_samples=2, **base.ARRAY)
    self._fit(x)
    if self.scoring != "reconstruction":
      from ae_jax.decisions import scores

      self.location_, self.covariance_ = scores.moments(self._codes(x))
    parts = self._parts(x)
    self.scales_ = {name: float(values.mean()) or 1.0 for name, values in parts.items()}
    self.offset_ = float(np.quantile(-self._scores(parts), self.contamination))
    return self

  def score_samples(self, X: Any) -> Float[np.ndarray, " examples"]:
    """Returns the negative anomaly score [N] of examples [N, features]: smaller values are more abnormal.

    The anomaly score is the sum of the parts in `scoring`, each divided by its mean over the training examples.
    """
    return -self._scores(self._parts(self._checked(X)))

  def decision_function(self, X: Any) -> Float[np.ndarray, " examples"]:
    """Returns `score_samples` minus the threshold [N]: negative for outliers."""
    return self.score_samples(X) - self.offset_

  def predict(self, X: Any) -> Int[np.ndarray, " examples"]:
    """Returns -1 for outliers and 1 for other examples, [N]."""
    return np.where(self.decision_function(X) < 0, -1, 1)

  def explain(self, X: Any) -> Float[np.ndarray, "examples features"]:
    """Returns the fraction of the score that the reconstruction error of each feature contributes, [N, features].

    The rest, 1 minus the sum of a row, is contributed by the distance of its latents; it is 0 if `scoring` is
    "reconstruction".

    Raises:
      UserError: `scoring` is "latent"; this score is not a sum over features.
    """
    x = self._checked(X)
    if self.scoring == "latent":
      raise errors.UserError("explain: scoring='latent' is not a sum over features; fit with scoring='both'")
    shares = base.in_batches(self._squares, self._scaled(x)) / x.shape[1] / self.scales_["reconstruction"]
    totals = self._scores(self._parts(x))[:, None]
    return np.divide(shares, totals, out=np.zeros_like(shares), where=totals > 0)

  def _parts(self, x: Shaped[np.ndarray, "examples features"]) -> dict[str, Float[np.ndarray, " examples"]]:
    """Returns the parts of the anomaly score, {"reconstruction": float64 [N], "latent": float64 [N]} or one of them."""
    from ae_jax.decisions import scores

    parts = {}
    if self.scoring != "latent":
      parts["reconstruction"] = self._squared_errors(x)
    if self.scoring != "reconstruction":
      moments = scores.Moments(self.location_, self.covariance_)
      parts["latent"] = base.in_batches(lambda codes: np.square(scores.distances(codes, moments)), self._codes(x))
    return parts

  def _scores(self, parts: Mapping[str, Float[np.ndarray, " examples"]]) -> Float[np.ndarray, " examples"]:
    return np.sum([values / self.scales_[name] for name, values in parts.items()], 0)
