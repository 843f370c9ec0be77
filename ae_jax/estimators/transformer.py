"""An autoencoder as a transformer with scikit-learn's interface."""

from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from ae_jax import errors
from ae_jax.estimators import base
from ae_jax.estimators import options as config_options


class AutoencoderTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, base.Autoencoder):
  """Transforms arrays [N, features] to the latent codes of an autoencoder: nonlinear PCA with scikit-learn's interface.

  Features are scaled in float64, and a model as in `ae_jax.fit` is trained on them in memory: nothing is printed, and
  there is no run folder. With `model="auto"`, the model is PCA plus a correction by a dense network (see
  `ae_jax.config.automatic`). Compiled programs are stored in the cache folder: `fit` sets JAX's global option
  `jax_compilation_cache_dir`, unless it already has a value (see `ae_jax.system.cache`).

  Example:
    >>> latents = AutoencoderTransformer(latent=2).fit_transform(X)

  Args:
    latent: Number of latent features. None: if `model` is "auto", a third of the number of features, at most 32;
      otherwise the value in the config.
    model: "auto", or the name of a shipped config for vectors, such as "dense" or "vae".
    epochs: Number of epochs. None: if `model` is "auto", chosen from the number of examples, at most 100; otherwise the
      value in the config.
    scale: "standard" (mean 0 and variance 1), or "quantile" (to a normal distribution, for features with long tails).
    options: Values of other config keys, such as {"model__widths": (64,), "batch_size": 128}; see `ae_jax.fit`. Keys
      that have no effect in a fit in memory, such as "trackers" and most keys of "data", raise UserError.
    random_state: Seed of the initialisation and of the order of the examples. With the default 0, each fit gives the
      same result; with None, each fit draws another seed.

  Attributes:
    run_: The trained `ae_jax.Run`, whose examples are scaled features.
    scaler_: The fitted scaler of scikit-learn.
    n_features_in_: Number of features.
    feature_names_in_: Names of the features, if `X` had names.
  """

  @_fit_context(prefer_skip_nested_validation=True)
  def fit(self, X: Any, y: Any = None) -> "AutoencoderTransformer":
    """Fits the scaling and trains the model on examples [N, features]; `y` is ignored."""
    self._fit(validate_data(self, X, ensure_min_samples=2, **base.ARRAY))
    return self

  @_fit_context(prefer_skip_nested_validation=True)
  def partial_fit(self, X: Any, y: Any = None) -> "AutoencoderTransformer":
    """Trains the model on a part of the examples, [N, features], for `epochs` epochs (default: 1); `y` is ignored.

    The first call fits the scaling and PCA, so it should have several hundred examples. Later calls continue from the
    trained parameters, without the training stages of the config. The learning rate is constant.
    """
    of_user = self._of_user()
    config_options.check_partial(of_user)
    is_first = not hasattr(self, "run_")
    x = validate_data(self, X, reset=is_first, ensure_min_samples=2 if is_first else 1, **base.ARRAY)
    if is_first:
      self.scaler_ = self._fitted_scaler(x)
    changes = config_options.PARTIAL | ({} if "epochs" in of_user else {"epochs": 1})
    # the first call has chosen the model; later calls keep it, and skip the stages that begin a training
    changes |= {} if is_first else {"model": self.run_.config.model.to_dict(), "stages": ()}
    self.run_ = self._trained(self._scaled(x), changes, None if is_first else self.run_.variables)
    return self

  def transform(self, X: Any) -> Float[np.ndarray, "examples latent"]:
    """Returns the latent codes [N, latent] of examples [N, features], in the dtype of `X`."""
    x = self._checked(X)
    return self._codes(x).astype(x.dtype)

  def inverse_transform(self, X: Any) -> Float[np.ndarray, "examples features"]:
    """Decodes latent codes [N, latent] to examples [N, features] in the units of the data."""
    check_is_fitted(self, "run_")
    codes = check_array(X, **base.ARRAY)
    if codes.shape[1] != self._n_features_out:
      raise errors.UserError(
        f"X has {codes.shape[1]} latent features, but AutoencoderTransformer has {self._n_features_out}; pass the "
        "result of transform"
      )
    decoded = base.in_batches(
      self.run_.decode, codes.astype(np.float32).reshape(len(codes), *self.run_.model.code.shape)
    )
    return self.scaler_.inverse_transform(decoded.astype(np.float64)).astype(codes.dtype)

  def score(self, X: Any, y: Any = None) -> float:
    """Returns the negative mean squared error of the scaled features of examples [N, features]; `y` is ignored.

    Larger is better, so `GridSearchCV` selects the smallest error. If `scale` is "standard", a model that always
    returns the mean of each feature has a score of about -1.
    """
    return -float(self._squared_errors(self._checked(X)).mean())

  @property
  def _n_features_out(self) -> int:
    return self.run_.model.code.size

  def __sklearn_tags__(self) -> Any:
    tags = super().__sklearn_tags__()
    tags.transformer_tags.preserves_dtype = ["float64", "float32"]
    return tags
