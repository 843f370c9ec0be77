"""What a run says on the screen, in sentences."""

import math


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


def closing(metrics, workdir):
  """How good the result is, against what, and where to look."""
  error, pca = metrics["test/squared_error"], metrics["test/pca_squared_error"]
  if not math.isfinite(error):
    verdict = "the training diverged, so lower the learning rate"
  elif pca < 1e-4 * error:
    verdict = "PCA needs no less, its code being as large as the data"
  elif error < pca:
    verdict = f"that is {error / pca:.0%} of PCA's"
  else:
    verdict = "that is no better than PCA, so train longer or change the learning rate"
  lines = [f"After {metrics['epoch']:.0f} epochs: {error_beside_pca(metrics)}: {verdict}."]
  if "test/nats" in metrics:
    lines.append(
      f"Cross-entropy {metrics['test/nats']:.2f} nats per test example, of which {metrics['test/nats_floor']:.2f} are "
      "the floor that no reconstruction can go below."
    )
  lines.append(
    f"Trained at {metrics['images_per_second']:,.0f} images/s after {metrics['compile_seconds']:.1f} s of compiling."
  )
  lines.append(
    f"Look at {workdir / 'pictures' / 'reconstructions.png'} and curves.png; use it: ae_jax.load({str(workdir)!r})."
  )
  return "\n".join(lines)
