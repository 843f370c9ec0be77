"""Names of metrics: the PCA baselines, the error used for model selection, and names with a column or a factor.

Model selection (of checkpoints and hyperparameters) uses the validation set if there is one, otherwise the test set.

"/" separates the parts of a name, such as "reconstruction/column_rmse/age". In the name of a column or a factor, "/" is
written as "%2F", so "glucose mg/dL" becomes "glucose mg%2FdL". What a user reads has the exact name, see `in_words`.
"""

import re
from collections.abc import Container

PCA = "test/pca_squared_error"  # PCA with as many components as the latent size
QUANTISED_PCA = "test/pca_quantised_squared_error"  # quantised PCA with as many bits as the discrete latent code
_SQUARED_ERRORS = ("validation/squared_error", "test/squared_error")
_ESCAPED_SLASH = re.compile("%((?:25)*)2F")


def part(name: str) -> str:
  """Returns the name of a column or a factor as a part of the name of a metric, without "/"; see `in_words`."""
  return _ESCAPED_SLASH.sub(r"%25\g<1>2F", name).replace("/", "%2F")


def in_words(name: str) -> str:
  """Returns a name in which `part` replaced "/", with "/"; `in_words(part(name))` is `name` for every name."""
  return _ESCAPED_SLASH.sub(lambda match: f"%{match[1][2:]}2F" if match[1] else "/", name)


def names_data(metric: str) -> bool:
  """Returns whether the last part of "METRIC/PART" is the name of a column or a factor of the data."""
  last = metric.rpartition("/")[2]
  return last.startswith("column_") or last.endswith("_by_factor")


def days(name: str, dates: Container[str]) -> bool:
  """Returns whether a metric is an error in days; `dates` contains the names of the date columns."""
  metric, _, column = name.rpartition("/")
  return metric.rpartition("/")[2] in ("column_rmse", "column_errors") and in_words(column) in dates


def selection_key(metrics: Container[str]) -> str:
  """Returns the metric used for model selection: the validation error if it is in `metrics`, else the test error."""
  validation, test = _SQUARED_ERRORS
  return validation if validation in metrics else test


def pca_key(metrics: Container[str]) -> str:
  """Returns the metric name of the model's PCA baseline: quantised PCA if it is in `metrics`, else PCA."""
  return QUANTISED_PCA if QUANTISED_PCA in metrics else PCA
