"""Evaluates the threshold of a run: test examples with a higher anomaly score are flagged as anomalies.

The results are the confusion matrix, precision, recall, F1, score histograms, and a figure of anomalies. If the run
has no threshold, a default is used: the score that 5 % of the normal validation examples (without a validation set, of
the training examples) exceed.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from ae_jax import errors
from ae_jax.decisions import run_data, scores, thresholds
from ae_jax.evaluators import figures, recordings, shown
from ae_jax.evaluators.context import EvalContext

SHARE = 0.05  # fraction of normal examples that exceed the default threshold
_BINS = 20  # number of bins of a histogram


def analyze(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields the threshold, the confusion matrix, precision, recall and F1 with 95 % intervals, and score histograms.

  `thresholds.Confusion.intervals` computes the intervals.
  """
  try:
    threshold, note = _threshold(context)
    measured = scores.of_kind(context.run, context.test_inputs, threshold.kind, lambda: context.run.reference)
  except errors.UserError as error:
    yield "threshold_remark", f"no flags: {error}"
    yield from recordings.analyze(context)
    return
  anomalous = context.dataset.anomalous
  assert anomalous is not None  # ensured by the requirement "one_class"
  found = thresholds.confusion(measured, anomalous, threshold.value)
  yield "threshold", threshold.value
  yield "threshold_rule", note
  for name, (low, high) in found.intervals().items():
    yield name, getattr(found, name)
    if np.isfinite(low):
      yield from ((f"{name}_low", low), (f"{name}_high", high))
  yield from (("anomalies/flagged", found.true_positives), ("anomalies/not_flagged", found.false_negatives))
  yield from (("normal_examples/flagged", found.false_positives), ("normal_examples/not_flagged", found.true_negatives))
  if np.isfinite(measured).all():
    yield "score_histograms", _histograms(measured.astype(np.float64), anomalous, threshold)
    yield "anomalies", _anomalies(context, measured, threshold)
  yield from recordings.analyze(context, threshold)


def _threshold(context: EvalContext) -> tuple[thresholds.Threshold, str]:
  """Returns the threshold of the run, or a default, and a sentence that states which examples it flags and why."""
  run, dataset = context.run, context.dataset
  stored, fault = thresholds.of_run(run, context.test_inputs.has_target)
  advice = "run.set_threshold sets one, and `ae_jax evaluate --only=anomaly` measures it"
  if stored is not None:
    return stored, f"flagged: test examples with a {stored.in_words()}"
  split = "train" if dataset.validation is None else "validation"
  kind, anomalous = "reconstruction", dataset.on_validation.anomalous if split == "validation" else None
  parts = run_data.chosen_parts(run, dataset, split, anomalous)
  found = np.concatenate([scores.of_kind(run, part, kind, lambda: run.reference) for part in parts])
  value = thresholds.from_share(found, SHARE)
  default = thresholds.Threshold(value, kind, "contamination", SHARE, split, len(found), run.step, run.weights_digest)
  return (
    default,
    f"flagged: test examples with a {default.in_words()}, because {fault or 'the run has no threshold'}; {advice}",
  )


def _histograms(
  measured: Float64[np.ndarray, " examples"], anomalous: Bool[np.ndarray, " examples"], threshold: thresholds.Threshold
) -> figures.Lines:
  """Returns the score histograms of normal examples and of anomalies, on a logarithmic axis if all values are > 0."""
  is_logarithmic = bool(measured.min() > 0 and threshold.value > 0)
  scale, unscale = (np.log10, lambda x: 10**x) if is_logarithmic else (np.asarray, np.asarray)
  edges = np.histogram_bin_edges(scale(np.append(measured, threshold.value)), _BINS)
  middles = unscale((edges[1:] + edges[:-1]) / 2)
  lines = {}
  for name, chosen in (("normal examples", ~anomalous), ("anomalies", anomalous)):
    counts, _ = np.histogram(scale(measured[chosen]), edges)
    lines[name] = np.stack([middles, counts / max(1, chosen.sum())])
  top = max(float(line[1].max()) for line in lines.values())
  lines[f"threshold {threshold.value:.6g}"] = np.array([[threshold.value] * 2, [0.0, top]])
  title = f"Histograms of the scores of normal test examples and of anomalies, with {_BINS} bins"
  return figures.Lines(
    title, lines, f"{threshold.kind} score", "fraction of the examples", logarithmic_x=is_logarithmic
  )


def _anomalies(
  context: EvalContext, measured: Float[np.ndarray, " examples"], threshold: thresholds.Threshold
) -> figures.ExampleRows:
  """Returns a figure of the test anomalies with the highest and the lowest scores, in descending order."""
  dataset = context.dataset
  anomalies = np.flatnonzero(dataset.anomalous)
  order = anomalies[np.argsort(-measured[anomalies], kind="stable")]
  apart, half = dataset.test_apart(order, len(order)), shown.SHOWN // 2
  chosen = apart if len(apart) <= shown.SHOWN else np.concatenate([apart[:half], apart[-half:]])
  flagged = thresholds.flag(measured, threshold.value)
  captions = [_caption(context, int(row), float(measured[row]), bool(flagged[row])) for row in chosen]
  title = f"Test anomalies in descending order of their {threshold.kind} scores"
  if len(chosen) < len(apart):
    title += f": the {half} with the highest and the {half} with the lowest scores of {len(apart):,}"
  title += ", without windows that overlap these" if len(apart) < len(order) else ""
  title += "" if flagged[chosen].all() else "; missed: not above the threshold"
  return shown.example_rows(context, title, chosen, tuple(captions))


def _caption(context: EvalContext, row: int, score: float, is_flagged: bool) -> str:
  """Returns the class and the score of an anomaly, and where a window begins in its recording."""
  dataset = context.dataset
  words = [*dataset.test_captions(np.array([row])), dataset.class_in_words(dataset.test_labels[row])]
  return ", ".join([*words, f"score {score:.3g}", *([] if is_flagged else ["missed"])])
