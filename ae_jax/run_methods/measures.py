"""Methods of `trained_run.Run` that measure reconstruction errors."""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from ae_jax import errors
from ae_jax.data import empty_rows, ranges, recorded_tables, table_rows, windows
from ae_jax.decisions import scores, thresholds
from ae_jax.runs import metric_names
from ae_jax.types import AnyArray


def score(
  run: Any,
  x: Any,
  mask: AnyArray | None = None,
  target: Any = None,
  *,
  kind: str = "reconstruction",
  **columns: Any,
) -> Float[np.ndarray, " examples"]:
  """Returns anomaly scores; they are large for examples that differ from the training data.

  The kinds of scores are:

  - "reconstruction": squared reconstruction error, summed over the elements of an example, in the units of the model:
    if the run standardises its data (config.data.scale), errors are in standard deviations.
  - "normalised": the same, but the squared error of each element is divided by the mean squared error of this element
    in training examples.
  - "mahalanobis": Mahalanobis distance of the latent code to the mean of the training codes.
  - "knn": Euclidean distance of the latent code to the fifth nearest training code. For a training example, its own
    code is one of the five, so its score is slightly smaller.
  - "negative_elbo": negative ELBO of a variational model in nats, from 32 posterior samples.

  "normalised", "mahalanobis" and "knn" compare with training examples; see `set_reference`.

  Args:
    run: The run.
    x: Examples [N, *shape], or rows of a table.
    mask: 1 for observed elements, 0 for elements to ignore, in the shape of `x` with or without its channel axis. None:
      all elements are used, except missing values if config.data.missing is "mask".
    target: Examples [N, *shape] with which the reconstructions are compared; None for `x`. Only the kinds
      "reconstruction" and "normalised" use targets.
    kind: Which score to compute.
    **columns: Other inputs of a conditional model, such as `label`.

  Returns:
    Scores float32 [N].

  Raises:
    UserError: The kind is unknown, the model does not support it, or an argument is invalid.
  """
  scores.check_target(kind, target)
  inputs = inputs_of(run, x, mask, target, columns)
  _warn_of_empty_rows(run, x, "score")
  return scores.of_kind(run, inputs, kind, lambda: run.reference)


def error_map(
  run: Any, x: Any, mask: AnyArray | None = None, target: Any = None, **columns: Any
) -> Float[np.ndarray, "examples ..."]:
  """Returns the squared reconstruction error of each element, such as a pixel, float32 [N, *shape].

  The "reconstruction" score of an example is the sum over its elements. See `score` for the arguments and the unit.
  """
  return scores.squares(run, inputs_of(run, x, mask, target, columns))


def evaluate(
  run: Any, x: Any, mask: AnyArray | None = None, target: Any = None, *, labels: Any = None, **columns: Any
) -> dict[str, float | int]:
  """Returns the reconstruction errors of the run on new data.

  Args:
    run: The run.
    x: Examples [N, *shape], or rows of a table; see `score`.
    mask: Observed elements; see `score`.
    target: Examples with which the reconstructions are compared; see `score`.
    labels: 1 for anomalies and 0 for normal examples, [N]; None if they are unknown.
    **columns: Other inputs of a conditional model; see `score`.

  Returns:
    {"examples": N, "squared_error": mean of `score`, "squared_error_low" and "squared_error_high": 95 % interval of
    this mean (mean -+ 1.96 standard errors), "mse": mean squared error per observed element}. With `target` also
    "input_squared_error", the error of the examples themselves, i.e. of doing nothing. For the data ranges "unit" and
    "symmetric" also "psnr" and "input_psnr" in dB. For a table with named columns, without `mask` and `target` also
    "column_errors/NAME", see `column_errors`; "/" in NAME is written as "%2F". With labels also "auroc" and "auprc",
    the areas under the ROC and the precision-recall curve of the scores, "auroc_low" and "auroc_high", the 95 %
    interval of "auroc", and if the run has a threshold "precision", "recall" and "f1" of its flags.

  Raises:
    UserError: There are no examples, the labels do not contain both 0 and 1, or an argument is invalid.
  """
  inputs = inputs_of(run, x, mask, target, columns)
  if not len(inputs.x):
    raise errors.UserError("evaluate: x has no examples; pass at least one")
  _warn_of_empty_rows(run, x, "evaluate")
  sums = scores.squares(run, inputs).reshape(len(inputs.x), -1).sum(1, dtype=np.float64)
  observed = inputs.x.size if inputs.mask is None else max(1, int(inputs.mask.sum()))
  mean, mse = sums.mean(), float(sums.sum() / observed)
  margin = 1.96 * sums.std(ddof=1) / len(sums) ** 0.5 if len(sums) > 1 else np.nan
  results = {"examples": len(sums), "squared_error": float(mean)}
  results |= {"squared_error_low": float(mean - margin), "squared_error_high": float(mean + margin), "mse": mse}
  errors_per_element = {"psnr": mse}
  if target is not None:
    of_input = np.square(inputs.x - inputs.target, dtype=np.float64) * (1 if inputs.mask is None else inputs.mask)
    results["input_squared_error"] = float(of_input.sum() / len(sums))
    errors_per_element["input_psnr"] = float(of_input.sum() / observed)
  if run.config.data.range != "real":
    from ae_jax.evaluators import reconstruction  # evaluators import this module

    low, high, _ = ranges.SPANS[run.config.data.range]
    results |= {name: reconstruction.psnr(each, high - low) for name, each in errors_per_element.items()}
  if run.schema is not None and run.schema.named and mask is None and target is None:
    by_column = column_errors(run, x, **columns)
    results |= {f"column_errors/{metric_names.part(name)}": float(value) for name, value in by_column.items()}
  return results if labels is None else results | _detection(run, inputs, thresholds.as_anomalous(labels, len(sums)))


def _warn_of_empty_rows(run: Any, x: Any, method: str) -> None:
  """Warns of rows of a table in which all columns are missing, because they get ordinary scores."""
  if note := empty_rows.note_on(x, run.schema):
    warnings.warn(f"{method}: {note}", stacklevel=3)


def _detection(run: Any, inputs: scores.Inputs, anomalous: Bool[np.ndarray, " examples"]) -> dict[str, float]:
  """Returns how well the scores of the kind of the run's threshold tell anomalies from normal examples."""
  from ae_jax.evaluators import anomaly  # evaluators import this module

  if anomalous.all() or not anomalous.any():
    raise errors.UserError("labels: must contain both 1 (anomalies) and 0 (normal examples)")
  threshold, _ = thresholds.of_run(run, inputs.has_target)
  kind = "reconstruction" if threshold is None else threshold.kind
  found = scores.of_kind(run, inputs, kind, lambda: run.reference)
  area, count = anomaly.auroc(found, anomalous), int(anomalous.sum())
  low, high = anomaly.auroc_interval(area, count, len(anomalous) - count)
  results = {"auroc": area, "auroc_low": low, "auroc_high": high, "auprc": anomaly.auprc(found, anomalous)}
  if threshold is None:
    return results
  confusion = thresholds.confusion(found, anomalous, threshold.value)
  return results | {name: float(getattr(confusion, name)) for name in ("precision", "recall", "f1")}


def column_errors(run: Any, x: Any, **columns: Any) -> dict[str, float]:
  """Returns the reconstruction error of each column of a table, {column: error}.

  The error is the root-mean-square error in the unit of the column (days for dates) or, for categories and booleans,
  the fraction of wrong reconstructions. Missing values are ignored.

  Raises:
    UserError: The run was not trained on a table, or an argument is invalid.
  """
  raw = table_rows.raw_rows(x, run.schema)
  outputs = run.reconstructions_of(run.conversion(x), columns)
  return run.schema.column_errors(run.schema.decode(outputs), raw, ~np.isnan(raw))


def score_record(run: Any, record: Any, *, per_channel: bool = False) -> Float64[np.ndarray, "steps ..."]:
  """Returns the anomaly score of each time step of a long recording, for a run with config.data.window.

  Args:
    run: The run.
    record: Recording [T] or [T, C]; or a DataFrame or dict of columns, if the run was trained on a table. It is cut
      into windows like the training recording. With config.data.missing="mask", NaN is a missing value, which adds
      nothing to the score.
    per_channel: Whether to return the errors of each channel instead of their sum.

  Returns:
    Squared reconstruction error of each step, [T], summed over the channels and averaged over the windows that contain
    the step; NaN for steps that are in no window, such as those at the end and, with config.data.max_gap, those between
    two close gaps, and for steps without any value. With `per_channel=True`, the errors [T, C]; NaN for missing values.

  Raises:
    UserError: The run was not trained on windows, or the recording is shorter than a window.
  """
  window, stride = run.config.data.window, run.config.data.stride or run.config.data.window
  if not window:
    raise errors.UserError("score_record: the examples of this run are not windows (config.data.window=0); use score")
  found = recorded_tables.read_new(record, run.record_columns, run.config.data.missing, "the recording")
  cut = windows.of_record(found.values, window, stride, "the recording", found.pieces)
  inputs, starts = inputs_of(run, cut[:], None, None, {}), windows.starts_of(found.pieces, window, stride)
  squares = np.square(run.apply("reconstruct", inputs.x, inputs.columns) - inputs.x, dtype=np.float64)
  if inputs.mask is not None:
    squares = np.where(inputs.mask, squares, np.nan)
  over_time = lambda values: windows.over_time(values, starts, len(found.values))
  of_channels = np.stack([over_time(channel) for channel in np.moveaxis(squares, -1, 0)], 1)
  if per_channel:
    return of_channels
  return np.where(np.isnan(of_channels).all(1), np.nan, np.nansum(of_channels, 1))


def inputs_of(run: Any, x: Any, mask: AnyArray | None, target: Any, columns: dict[str, Any]) -> scores.Inputs:
  """Converts the arguments of `score` to inputs of the scores: examples, targets, mask and other model inputs.

  The mask is True for elements that were observed in both the example and its target.
  """
  examples = run.conversion(x, mask)
  others = run.check_columns(len(examples.x), columns, examples.mask)
  if target is None:
    return scores.Inputs(examples.x, examples.x, examples.mask, others)
  targets = run.conversion(target, mask)
  if targets.x.shape != examples.x.shape:
    raise errors.UserError(f"target: {len(targets.x)} targets for {len(examples.x)} examples; pass one per example")
  masks = [each.mask for each in (examples, targets) if each.mask is not None]
  return scores.Inputs(examples.x, targets.x, np.logical_and.reduce(masks) if masks else None, others)
