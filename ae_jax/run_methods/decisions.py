"""Methods of `trained_run.Run` for anomaly detection: thresholds, flags, and explanations of scores."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ae_jax import errors
from ae_jax.data import table_rows
from ae_jax.decisions import run_data, scores, store, thresholds
from ae_jax.run_methods import measures
from ae_jax.types import AnyArray

_ELEMENTWISE = ("reconstruction", "normalised")  # kinds of scores that are sums over the elements


def threshold(run: Any) -> thresholds.Threshold | None:
  """The threshold of the anomaly scores that `set_threshold` has set; None if there is none."""
  if run.workdir is None or not (run.workdir / store.THRESHOLD).exists():
    return None
  found = store.read_threshold(run.workdir, run.weights_digest)
  if scores.of_run(run, found.kind).needs_reference and found.reference != store.digest(run.reference):
    raise errors.UserError(
      f"{run.workdir / store.THRESHOLD}: the threshold was set before the reference statistics of the {found.kind!r} "
      "scores changed; set it again with run.set_threshold"
    )
  return found


def reference(run: Any) -> scores.Reference:
  """The reference statistics that `set_reference` stored; otherwise, computed from training examples on first use."""
  found = None if run.workdir is None else store.read_reference(run.workdir, run.weights_digest)
  if found is not None:
    return found
  try:
    dataset = run_data.load(run)
  except errors.UserError as error:
    raise errors.UserError(
      f"this kind of score compares with training examples, which are not stored with the run; call "
      f"run.set_reference(x_train) once ({error})"
    ) from None
  return scores.checked_reference(run, run_data.chosen_parts(run, dataset, "train"))


def set_reference(run: Any, x: Any = None, mask: AnyArray | None = None, target: Any = None, **columns: Any) -> None:
  """Computes and stores the statistics of training examples that the scores "normalised", "mahalanobis" and "knn" use.

  They (mean squared error of each element, and latent codes) are stored as reference.npz in the run folder; without it,
  these scores read the training data again. Afterwards, set the threshold again if it uses one of these scores.

  Args:
    run: The run.
    x: Training examples [N, *shape], or rows of a table; None: at most 10,000 training examples of the run, read again.
    mask: Observed elements of `x`; see `score`.
    target: Examples with which the reconstructions are compared; see `score`.
    **columns: Other inputs of a conditional model; see `score`.

  Raises:
    UserError: The data of the run cannot be read, or an argument is invalid.
  """
  if x is None:
    _refuse("set_reference without x", {"mask": mask, "target": target} | columns, "pass x too, or remove them")
    parts: Iterable[scores.Inputs] = run_data.chosen_parts(run, run_data.load(run), "train")
  else:
    parts = [measures.inputs_of(run, x, mask, target, columns)]
  found = scores.checked_reference(run, parts)
  _store_reference(run, found)
  vars(run)["reference"] = found
  old = vars(run).get("threshold")
  if old is not None and scores.choose(old.kind).needs_reference and old.reference != store.digest(found):
    del vars(run)["threshold"]
    warnings.warn(
      f"set_reference: the threshold was set before the reference statistics of the {old.kind!r} scores changed; set "
      "it again with run.set_threshold",
      stacklevel=2,
    )


def _refuse(where: str, arguments: Mapping[str, Any], fix: str) -> None:
  """Raises UserError if one of the arguments is not None, because it would be ignored."""
  given = [name for name, argument in arguments.items() if argument is not None]
  if given:
    raise errors.UserError(f"{where}: {' and '.join(given)} would be ignored; {fix}")


def set_threshold(
  run: Any,
  x: Any = None,
  labels: AnyArray | None = None,
  *,
  value: float | None = None,
  contamination: float | None = None,
  precision: float | None = None,
  recall: float | None = None,
  kind: str = "reconstruction",
  mask: AnyArray | None = None,
  target: Any = None,
  **columns: Any,
) -> thresholds.Threshold:
  """Sets the score above which `flag` flags an example, and stores it as threshold.json in the run folder.

  Give at most one of `value`, `contamination`, `precision` and `recall`. Without them, the threshold with the largest
  F1 for the labels is chosen.

  Args:
    run: The run.
    x: Examples [N, *shape], or rows of a table. None: the validation examples of the run, read again; without a
      validation set, the training examples, with a warning. With `contamination`, examples that are known to be
      anomalies are left out.
    labels: True or 1 for anomalies and False or 0 for normal examples, [N]. None: if `x` is None and the run has
      `config.data.one_class`, validation examples of other classes are anomalies; otherwise unknown.
    value: The threshold itself.
    contamination: Fraction of the examples to flag; 0.01 takes the 0.99 quantile of the scores.
    precision: Minimum precision; among such thresholds, the one with the largest recall is chosen.
    recall: Minimum recall; among such thresholds, the highest is chosen.
    kind: Which score to compute; see `score`.
    mask: Observed elements of `x`; see `score`.
    target: Examples with which the reconstructions of `x` are compared; `flag` must then be called with targets, too.
    **columns: Other inputs of a conditional model, for `x`.

  Returns:
    The threshold, which is also `run.threshold`.

  Raises:
    UserError: Arguments contradict each other, labels are missing, or no threshold has the required precision.
  """
  needs_reference = scores.of_run(run, kind).needs_reference
  levels = {"value": value, "contamination": contamination, "precision": precision, "recall": recall}
  rule, level = _rule(levels)
  inputs = {"mask": mask, "target": target} | columns
  if rule == "value":
    given = {"x": x, "labels": labels} | inputs
    _refuse(f"set_threshold with value={level}", given, "a value needs no examples; remove them")
    reference = run.reference if needs_reference else None
    found, split, count, targets, level = float(level), "", 0, None, None
  else:
    scores.check_target(kind, target)
    parts, anomalous, split = _examples(run, x, labels, inputs, rule)
    reference = run.reference if needs_reference else None
    measured, targets = _measured(run, parts, kind)
    found, count = _value(rule, level, measured, anomalous), len(measured)
  if split == "train":
    warnings.warn(f"set_threshold: uses the training examples; {thresholds.ON_TRAINING}", stacklevel=2)
  compared = "" if reference is None else store.digest(reference)
  chosen = thresholds.Threshold(found, kind, rule, level, split, count, run.step, run.weights_digest, compared, targets)
  if run.workdir is not None and run.workdir.exists():
    if reference is not None:
      _store_reference(run, reference)
    store.write_threshold(run.workdir, chosen)
  vars(run)["threshold"] = chosen
  return chosen


def _rule(levels: Mapping[str, Any]) -> tuple[str, Any]:
  """Returns (name, value) of the only entry that is not None, or ("f1", None); raises UserError if several are set."""
  given = {name: level for name, level in levels.items() if level is not None}
  if len(given) > 1:
    raise errors.UserError(f"set_threshold: {' and '.join(given)} are given; pass one of them")
  rule, level = next(iter(given.items()), ("f1", None))
  if rule == "value" and not errors.is_number(level):
    raise errors.UserError(f"set_threshold: value={errors.format_value(level)}: must be a finite number")
  return rule, level


def _measured(
  run: Any, parts: Iterable[scores.Inputs], kind: str
) -> tuple[Float[np.ndarray, " examples"], bool | None]:
  """Returns the scores of all parts, and whether the examples have targets (None if this kind uses no targets)."""
  found, has_target = [], False
  for part in parts:
    found.append(scores.of_kind(run, part, kind, lambda: run.reference))
    has_target = part.has_target
  return np.concatenate(found), has_target if scores.choose(kind).reads_target else None


def _value(rule: str, level: float | None, measured: Float[np.ndarray, " examples"], anomalous: Any) -> float:
  """Computes the threshold from scores by a rule; see `set_threshold`."""
  if rule == "contamination":
    return thresholds.from_share(measured, level)
  if rule == "f1":
    return thresholds.best_f1(measured, anomalous)
  choose = thresholds.with_precision if rule == "precision" else thresholds.with_recall
  return choose(measured, anomalous, level)


def _examples(
  run: Any, x: Any, labels: Any, inputs: Mapping[str, Any], rule: str
) -> tuple[Iterable[scores.Inputs], Bool[np.ndarray, " examples"] | None, str]:
  """Returns the examples for a threshold in parts, the mask of anomalies (None: unknown), and "given" or the split.

  If the rule is "contamination", known anomalies are left out.
  """
  if x is None:
    return _own_examples(run, {"labels": labels} | {**inputs}, rule)
  columns = dict(inputs)
  given = measures.inputs_of(run, x, columns.pop("mask"), columns.pop("target"), columns)
  if labels is None and rule != "contamination":
    raise errors.UserError(f"set_threshold: the rule {rule!r} needs labels; pass labels= or contamination=0.01")
  anomalous = None if labels is None else thresholds.as_anomalous(labels, len(given.x))
  if rule == "contamination" and anomalous is not None:
    given = run_data.of_normal(given, anomalous)
  return [given], anomalous, "given"


def _own_examples(
  run: Any, inputs: Mapping[str, Any], rule: str
) -> tuple[Iterable[scores.Inputs], Bool[np.ndarray, " examples"] | None, str]:
  """Returns the result of `_examples` for the data set of the run; raises UserError if one of `inputs` is given."""
  _refuse("set_threshold without x", inputs, "pass x too, or remove them")
  dataset = run_data.load(run)
  split = "train" if dataset.validation is None else "validation"
  anomalous = dataset.on_validation.anomalous if split == "validation" else None
  if anomalous is None and rule != "contamination":
    raise errors.UserError(
      f"set_threshold: the rule {rule!r} needs labels; pass x and labels=, or contamination=0.01; x and labels= can "
      "be omitted only if the run has config.data.one_class and a validation set with anomalies"
    )
  left_out = anomalous if rule == "contamination" else None
  return run_data.chosen_parts(run, dataset, split, left_out), anomalous, split


def _store_reference(run: Any, found: scores.Reference) -> None:
  if run.workdir is not None and run.workdir.exists():
    store.write_reference(run.workdir, found, run.weights_digest)


def flag(run: Any, x: Any, mask: AnyArray | None = None, target: Any = None, **columns: Any) -> Bool[np.ndarray, "..."]:
  """Flags anomalies: returns booleans [N], True for examples whose score is above the threshold of the run.

  See `score` for the arguments. An example whose score is NaN is flagged.

  Raises:
    UserError: The run has no threshold, the threshold belongs to other weights or other reference statistics, it
      was set with targets and `target` is None (or vice versa), or an argument is invalid.
  """
  chosen = required_threshold(run)
  if fault := chosen.target_fault(target is not None):
    raise errors.UserError(f"flag: {fault}")
  return thresholds.flag(measures.score(run, x, mask, target, kind=chosen.kind, **columns), chosen.value)


def required_threshold(run: Any) -> thresholds.Threshold:
  """Returns the threshold of a run; raises UserError if it has none."""
  if run.threshold is None:
    raise errors.UserError("flag: the run has no threshold; call run.set_threshold(contamination=0.01) once")
  return run.threshold


def explain(
  run: Any,
  x: Any,
  mask: AnyArray | None = None,
  target: Any = None,
  *,
  kind: str = "reconstruction",
  count: int | None = None,
  **columns: Any,
) -> Any:
  """Returns the fraction that each element (such as a pixel or a table column) contributes to the score of its example.

  Args:
    run: The run.
    x: Examples [N, *shape], or rows of a table; see `score`.
    mask: Observed elements; see `score`.
    target: Examples with which the reconstructions are compared; see `score`.
    kind: "reconstruction" or "normalised"; only these scores are sums over the elements.
    count: Maximum number of columns that are returned for each row of a table, largest fraction first. None: all.
    **columns: Other inputs of a conditional model; see `score`.

  Returns:
    Fractions [N, *shape], which sum to 1 for each example, or to 0 if its score is 0. For a table, a DataFrame with one
    line per row and column, the largest fraction of each row first: `row` (the index of a DataFrame, otherwise the row
    number), `column`, `value` and `reconstruction` (as in the table; new words are marked), and `share`.

  Raises:
    UserError: The kind is not one of these, or an argument is invalid.
  """
  if kind not in _ELEMENTWISE:
    scores.choose(kind)
    raise errors.UserError(
      f"explain: kind={kind!r}: this score is not a sum over elements, so it has no per-element contributions; use "
      f"{' or '.join(map(repr, _ELEMENTWISE))}"
    )
  if count is not None and run.schema is None:
    raise errors.UserError("explain: count= is only for runs on tables; omit it")
  if count is not None and (not isinstance(count, int) or count < 1):
    raise errors.UserError(f"explain: count={errors.format_value(count)}: must be an integer of at least 1")
  inputs = measures.inputs_of(run, x, mask, target, columns)
  if kind == "normalised":
    found = scores.normalised_squares(run, inputs, run.reference)
  else:
    found = scores.squares(run, inputs).astype(np.float64)
  totals = found.sum(tuple(range(1, found.ndim)), keepdims=True)
  shares = np.divide(found, totals, out=np.zeros_like(found), where=totals > 0)
  if run.schema is None:
    return shares.astype(np.float32)
  reconstructed = run.conversion.invert(run.apply("reconstruct", inputs.x, inputs.columns))
  return table_rows.explained(x, run.schema.by_column(shares), reconstructed, run.schema, count)
