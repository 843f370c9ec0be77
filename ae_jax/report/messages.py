"""The sentences on the screen and at the top of a page."""

import math

from ae_jax.report import verdict


def opening(description, placement, workdir):
  """Returns the first line on the screen: model, data and folder; `description` is what config.json holds."""
  config, data = description["config"], description["data"]
  size = "x".join(map(str, data["shape"]))
  return (
    f"{config['model']['name']} with {description['parameters']:,} parameters, latent {config['model']['latent']}; "
    f"{config['data']['name']}: {data['train']:,} training and {data['test']:,} test examples of {size}, {placement}; "
    f"{workdir}"
  )


def error_beside_pca(result):
  """Returns the test error and that of PCA, one clause each."""
  most = min(result.description["data"]["train"] - 1, result.elements)
  size = "as many numbers" if result.latent <= most else f"{most:,} numbers, the most it can have here,"
  if result.is_quantised:
    size = "as many bits"
  error, pca = verdict.number(result.error), verdict.number(result.pca)
  return f"squared error {error} per test example; PCA with {size} {pca}"


def closing(metrics, description, workdir, skipped=0):
  """Returns the last lines on the screen: how good the model is, against what, and where to look.

  Args:
    metrics: the last value of each metric.
    description: what config.json holds.
    workdir: the folder of the run.
    skipped: the number of steps that were skipped, see `verdict.skipped_steps`.
  """
  result = verdict.Result(metrics, description, skipped)
  epochs = f"{metrics['epoch']:.0f} epoch{'' if metrics['epoch'] == 1 else 's'}"
  lines = [f"After {epochs}: {_judged(result, finished=True)}.", verdict.of_skipped(result)]
  if "test/nats" in metrics and not result.diverged:
    lines.append(
      f"Cross-entropy {metrics['test/nats']:.2f} nats per test example, of which {metrics['test/nats_floor']:.2f} are "
      "the floor that no reconstruction can go below."
    )
  lines.append(
    f"Trained at {metrics['images_per_second']:,.0f} images/s after {metrics['compile_seconds']:.1f} s of compiling."
  )
  lines.append(f"Look at {workdir / 'report.html'} or at its pictures; use it: ae_jax.load({str(workdir)!r}).")
  return "\n".join(filter(None, lines))


def headline(metrics, description, skipped=0, finished=True):
  """Returns a few sentences on how good a run is, against what; a page begins with them.

  Args:
    metrics: the last value of each metric.
    description: what config.json holds.
    skipped: the number of steps that were skipped, see `verdict.skipped_steps`.
    finished: whether all epochs have been trained; before that no advice is given.
  """
  if metrics.get("test/squared_error") is None or metrics.get("test/pca_squared_error") is None:
    return "The training has begun; how good the model is will stand here after the first evaluation."
  result = verdict.Result(metrics, description, skipped)
  judged = _judged(result, finished)
  said = [f"{judged[0].upper()}{judged[1:]}.", verdict.of_skipped(result)]
  if metrics.get("test/nats_floor") is not None and "test/nats" in metrics and not result.diverged:
    above = metrics["test/nats"] - metrics["test/nats_floor"]
    said.append(f"The cross-entropy is {above:.1f} nats above the floor that no model can go below.")
  if math.isfinite(metrics.get("test/auroc", math.nan)):
    pca = f"; with PCA's errors it is {metrics['test/pca_auroc']:.3f}" if "test/pca_auroc" in metrics else ""
    said.append(f"The AUROC of telling anomalies by their reconstruction errors is {metrics['test/auroc']:.3f}{pca}.")
  return " ".join(filter(None, said))


def _judged(result, finished):
  """The test error, PCA's, and the verdict; the numbers only where they are finite."""
  if math.isfinite(result.error):
    return f"{error_beside_pca(result)}: {verdict.of(result, finished)}"
  return f"the test error is not finite; {verdict.of(result, finished)}"
