"""What a run says on the screen, in sentences."""

import math

from ae_jax.models import bottlenecks


def opening(description, placement, workdir):
  """What is about to be trained, on what, and where it will lie, from what config.json holds."""
  config, data = description["config"], description["data"]
  size = "x".join(map(str, data["shape"]))
  return (
    f"{config['model']['name']} with {description['parameters']:,} parameters, latent {config['model']['latent']}; "
    f"{config['data']['name']}: {data['train']:,} training and {data['test']:,} test examples of {size}, {placement}; "
    f"{workdir}"
  )


def error_beside_pca(metrics):
  """The test error and that of PCA, one clause each."""
  error, pca = metrics["test/squared_error"], metrics["test/pca_squared_error"]
  return f"squared error {error:.3f} per test example; PCA with as many numbers {pca:.3f}"


def closing(metrics, model, workdir):
  """How good the result is, against what, and where to look; `model` is that part of the config."""
  error, pca = metrics["test/squared_error"], metrics["test/pca_squared_error"]
  if not math.isfinite(error):
    verdict = "the training diverged, so lower the learning rate"
  elif pca < 1e-4 * error:
    verdict = "PCA needs no less, its code being as large as the data"
  elif error < pca:
    verdict = f"that is {error / pca:.0%} of PCA's"
  else:
    verdict = f"that is no better than PCA, so {_advice(model)}"
  lines = [f"After {metrics['epoch']:.0f} epochs: {error_beside_pca(metrics)}: {verdict}."]
  if "test/nats" in metrics:
    lines.append(
      f"Cross-entropy {metrics['test/nats']:.2f} nats per test example, of which {metrics['test/nats_floor']:.2f} are "
      "the floor that no reconstruction can go below."
    )
  lines.append(
    f"Trained at {metrics['images_per_second']:,.0f} images/s after {metrics['compile_seconds']:.1f} s of compiling."
  )
  lines.append(f"Look at {workdir / 'report.html'} or at its pictures; use it: ae_jax.load({str(workdir)!r}).")
  return "\n".join(lines)


def _advice(model):
  """What may make a model better than PCA that is not."""
  code = bottlenecks.DETERMINISTIC.get(str(model.get("bottleneck")))
  if isinstance(code, bottlenecks.FiniteScalars):
    return "give the code more units or levels: PCA's numbers are not rounded to a few"
  return "train longer or change the learning rate"


def headline(metrics, model):
  """How good a run is, against what, in a sentence or two to begin a page with.

  `metrics` are the last of each name, `model` is that part of the config.
  """
  error, pca = metrics.get("test/squared_error"), metrics.get("test/pca_squared_error")
  if error is None or pca is None:
    return "The training has begun; how good the model is will stand here after the first evaluation."
  if not math.isfinite(error):
    return "The training diverged: lower the learning rate."
  numbers = f"{model['latent']:,} number{'s' if model['latent'] > 1 else ''}"
  restored = f"Test examples come back with a squared error of {error:.3g}"
  if pca < 1e-4 * error:
    said = f"{restored}; the code is so large that PCA with its {numbers} would make none."
  elif error < pca:
    said = f"{restored}, {error / pca:.0%} of the {pca:.3g} that PCA leaves with the same {numbers}."
  else:
    said = f"{restored}, no better than PCA with its {numbers}, {pca:.3g}: {_advice(model)}."
  if metrics.get("test/nats_floor") is not None and math.isfinite(metrics.get("test/nats", math.nan)):
    above = metrics["test/nats"] - metrics["test/nats_floor"]
    said += f" The cross-entropy is {above:.1f} nats above the floor that no model can go below."
  if math.isfinite(metrics.get("test/auroc", math.nan)):
    said += f" By its errors the anomalies are told with an AUROC of {metrics['test/auroc']:.3f}"
    said += f", by PCA's with {metrics['test/pca_auroc']:.3f}." if "test/pca_auroc" in metrics else "."
  return said
