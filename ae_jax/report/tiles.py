"""The most important metrics of a run, at the top of its report."""

import math

from ae_jax.report import measured, tables
from ae_jax.runs import metric_names

# metric, label ({}: a test example), text below the value, metric that fills the {} of this text
_TILES = (
  ("test/squared_error", "squared error per {}", "baseline PCA: {}", metric_names.PCA),
  ("test/nats", "cross-entropy per {}, nats", "lower bound: {}", "test/nats_floor"),
  ("test/auroc", "AUROC of anomaly detection", "baseline PCA: {}", "test/pca_auroc"),
  ("reconstruction/ssim", "structural similarity (SSIM)", "PSNR: {} dB", "reconstruction/psnr"),
  ("probe/linear/code", "linear probe accuracy, latent codes", "on raw examples: {}", "probe/linear/pixels"),
  ("generation/nll", "negative log-likelihood, nats", "negative ELBO: {}", "generation/negative_elbo"),
)


_OF_PAIRS = ("test/psnr", "PSNR, dB", "input: {} dB", "test/input_psnr")  # first tile of runs with targets


def of(result: measured.Result) -> list[dict[str, str]]:
  """Returns the most important finite metrics, each with a text that compares it, e.g. with the PCA baseline.

  Each is a dict {"name", "value", "beside"}; see `page.write`.
  """
  tiles, metrics = [], {name: value for name, value in result.metrics.items() if math.isfinite(value)}
  of_pairs = "test/input_psnr" in metrics
  for name, label, template, reference in (*([_OF_PAIRS] if of_pairs else []), *_TILES):
    reference = metric_names.pca_key(metrics) if reference == metric_names.PCA else reference
    if name in metrics:
      is_shown = reference in metrics and not (of_pairs and reference == "reconstruction/psnr")  # it has its own tile
      beside = template.format(tables.number(metrics[reference])) if is_shown else ""
      if name == "test/auroc":
        beside = "; ".join(filter(None, (result.auroc_interval, beside)))
      if name == "test/squared_error" and "test/input_squared_error" in metrics:
        beside = f"input: {tables.number(metrics['test/input_squared_error'])}; {beside}"
      label = label.format(result.tested)
      label = f"{label}, {result.unit}" if result.unit and name == "test/squared_error" else label
      tiles.append({"name": label, "value": tables.number(metrics[name], 3), "beside": beside})
  return tiles
