"""Autoencoders with scikit-learn's interface: a transformer and an outlier detector for arrays [N, features]."""

from ae_jax.estimators.detector import AutoencoderDetector
from ae_jax.estimators.transformer import AutoencoderTransformer

__all__ = ["AutoencoderDetector", "AutoencoderTransformer"]
