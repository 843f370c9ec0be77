"""Anomaly detection: scores, thresholds, and the reference statistics that they need from the training data."""

from ae_jax.system import late_modules

__getattr__ = late_modules.importer(__name__, ("thresholds",))
