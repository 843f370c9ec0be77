"""Sentences that a training run prints, and the headline of the report of the run."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from ae_jax.data import remarks
from ae_jax.report import measured, trends, verdict


def opening(description: Mapping[str, Any], placement: str, workdir: pathlib.Path) -> str:
  """Returns the first line that a run prints, with its model, data and run folder.

  Args:
    description: Contents of config.json.
    placement: Text that says where the training examples are kept, see `placements.decide`.
    workdir: Run folder.
  """
  config, data = description["config"], description["data"]
  model = config["model"]
  return (
    f"{model['name']} with {description['parameters']:,} parameters, latent size {model['latent']}; "
    f"{config['data']['name']}: {examples(data)}, {placement}; "
    f"run folder {workdir}"
  )


def sizes(data: Mapping[str, Any]) -> str:
  """Returns the sizes of the training, validation and test sets as text; `data` is "data" in config.json."""
  validation = f", {data['validation']:,} validation" if "validation" in data else ""
  return f"{data['train']:,} training{validation} and {data['test']:,} test"


def examples(data: Mapping[str, Any]) -> str:
  """Returns the sizes of the sets, and the shape of an example or the columns of a table; see `sizes`."""
  columns = (data.get("schema") or {}).get("columns", ())
  return f"{sizes(data)} {remarks.examples_of(data['shape'], len(columns))}"


def error_and_baseline(result: measured.Result) -> str:
  """Returns a clause that states the test error and the error of the PCA baseline."""
  count = result.description["data"]["train"]
  max_components = min(count - 1, result.elements)
  if result.is_quantised:
    baseline = "PCA with the same number of bits"
  elif result.latent <= max_components:
    baseline = "PCA with the same latent size"
  else:
    few = f"{count:,} training examples" if count <= result.elements else f"examples of {result.elements:,} elements"
    baseline = f"PCA with {max_components:,} components, the maximum for {few}"
  error, pca = measured.number(result.error), measured.number(result.pca)
  unit = f", {result.unit}" if result.unit else ""
  return f"squared error {error} per {result.tested}{unit} (baseline: {baseline}, {pca})"


def closing(
  metrics: measured.Metrics, description: Mapping[str, Any], workdir: pathlib.Path, curves: trends.Curves
) -> str:
  """Returns the last lines that a run prints: test error, verdict, speed, and how to load the model.

  Args:
    metrics: Last value of each metric.
    description: Contents of config.json.
    workdir: Run folder.
    curves: Learning curves, see `logs.curves`.
  """
  result = measured.Result(metrics, description, curves)
  epochs = f"{metrics['epoch']:.0f} epoch{'' if metrics['epoch'] == 1 else 's'}"
  lines = [f"After {epochs}: {_errors_and_verdict(result, finished=True)}", _of_input(metrics)]
  lines += [verdict.of_skipped(result), verdict.of_halvings(result)]
  lines += _faults(description)
  if "test/nats" in metrics and not result.diverged:
    lines.append(
      f"Cross-entropy: {metrics['test/nats']:.2f} nats per {result.tested}; "
      f"lower bound for any model: {metrics['test/nats_floor']:.2f}."
    )
  lines.append(_of_anomalies(result))
  lines.append(
    f"Training speed: {metrics['images_per_second']:,.0f} examples/s; compilation: {metrics['compile_seconds']:.1f} s."
  )
  lines.append(f"Report: {workdir / 'report.html'}. To load the model: ae_jax.load({str(workdir)!r})")
  return "\n".join(filter(None, lines))


def headline(
  metrics: measured.Metrics, description: Mapping[str, Any], curves: trends.Curves, finished: bool = True
) -> str:
  """Returns the sentences at the top of a report: test error, PCA baseline and verdict.

  Args:
    metrics: Last value of each metric.
    description: Contents of config.json.
    curves: Learning curves, see `logs.curves`.
    finished: Whether training has ended. During training, only a diverged run gets advice.
  """
  if metrics.get("test/squared_error") is None or metrics.get("test/pca_squared_error") is None:
    return "Training has started. Results appear here after the first evaluation."
  result = measured.Result(metrics, description, curves)
  sentence = _errors_and_verdict(result, finished)
  sentences = [f"{sentence[0].upper()}{sentence[1:]}", _of_input(metrics), verdict.of_skipped(result)]
  sentences.append(verdict.of_halvings(result))
  sentences += _faults(description)
  if metrics.get("test/nats_floor") is not None and "test/nats" in metrics and not result.diverged:
    above = metrics["test/nats"] - metrics["test/nats_floor"]
    sentences.append(f"The cross-entropy is {above:.1f} nats above its lower bound.")
  sentences.append(_of_anomalies(result))
  return " ".join(filter(None, sentences))


def _of_input(metrics: measured.Metrics) -> str:
  """Returns sentences that compare PSNR and error of the model with those of its input; "" without targets."""
  error, of_input = metrics["test/squared_error"], metrics.get("test/input_squared_error")
  if of_input is None or not math.isfinite(error):
    return ""
  comparison = "less" if error < of_input else "not less"
  sentence = f"The input itself has the squared error {measured.number(of_input)}: the model's error is {comparison}."
  psnrs = [metrics.get(name, math.nan) for name in ("test/psnr", "test/input_psnr")]
  if not all(map(math.isfinite, psnrs)):
    return sentence
  return f"PSNR {psnrs[0]:.2f} dB (input: {psnrs[1]:.2f} dB). {sentence}"


def _of_anomalies(result: measured.Result) -> str:
  """Returns a sentence with the AUROC, its interval and that of PCA; "" if it is not measured."""
  metrics = result.metrics
  if not math.isfinite(metrics.get("test/auroc", math.nan)):
    return ""
  of_pca = f"PCA: {metrics['test/pca_auroc']:.3f}" if "test/pca_auroc" in metrics else ""
  beside = "; ".join(filter(None, (result.auroc_interval, of_pca)))
  more = f" ({beside})" if beside else ""
  return f"Anomaly detection by the reconstruction error: AUROC {metrics['test/auroc']:.3f}{more}."


def _faults(description: Mapping[str, Any]) -> list[str]:
  """Returns sentences about suspicious values of the data; runs of earlier versions have none."""
  return [f"Check the data: {fault}." for fault in description["data"].get("faults", ())]


def _errors_and_verdict(result: measured.Result, finished: bool) -> str:
  """Returns the errors of the model and of PCA, or a note that the test error is not finite, and then the verdict."""
  if math.isfinite(result.error):
    return f"{error_and_baseline(result)}. {verdict.of(result, finished)}"
  return f"the test error is not finite. {verdict.of(result, finished)}"
