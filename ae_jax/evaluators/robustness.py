"""Reconstruction of disturbed test examples: with noise, shifted, or rotated.

The reconstruction of a noisy example is compared with the clean example: does the model remove the noise? The
reconstruction of a shifted or rotated image is compared with that same image: does the model generalise to it? PCA with
as many components as the latent size is the baseline.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int

from ae_jax.evaluators import base, denoising, figures, reconstruction
from ae_jax.evaluators.context import EvalContext, spaced

SHIFTS = (1, 2, 3)  # pixels: the mean over up, down, left and right
ROTATIONS = (5, 10, 20, 45)  # degrees: the mean over both directions
MAX_EXAMPLES = 1_000  # evenly spaced test examples
_MAX_ELEMENTS = 2**24  # in all of them; limits the number of large examples
_PICTURED = (("shift", 3), ("rotation", 20), ("rotation", 45))
_METHODS = {"squared_error": "this model", "pca_squared_error": "PCA of the same size"}  # metric -> its line


def analyze(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Generates squared errors of the model and of PCA, the increase over undisturbed examples, and figures."""
  indices = _indices(context)
  examples = context.test[indices]
  methods = {
    "squared_error": lambda x: context.reconstruct(x, indices),
    "pca_squared_error": reconstruction.pca(context.train, context.run.model.code.size),
  }
  errors = {method: {} for method in methods}
  yield "examples", len(examples)
  for name, pairs in _disturbances(context, examples):
    for method, reconstruct in methods.items():
      errors[method][name] = float(np.mean([_error(reconstruct(disturbed), target) for disturbed, target in pairs]))
      yield f"{method}/{name}", errors[method][name]
  undisturbed = errors["squared_error"]["undisturbed"]
  for name, error in errors["squared_error"].items():
    yield f"increase/{name}", reconstruction.ratio(error, undisturbed) - 1.0
  if examples.ndim == 3:
    yield "movements", "shifts and rotations are measured for images, not for series"
    return
  for kind, (strengths, unit, _) in MOVEMENTS.items():
    names = ["undisturbed", *(f"{kind}_{strength}" for strength in strengths)]
    lines = {
      label: np.array([(0, *strengths), [errors[method][name] for name in names]], np.float64)
      for method, label in _METHODS.items()
    }
    title = f"Squared error of reconstructed test images after a {kind}, relative to the moved images"
    yield f"{kind}s", figures.Lines(title, lines, f"{kind}, {unit}", "squared error per example")
  yield "blur", "rotation blurs images a little and makes them easier to reconstruct: compare with PCA's error"
  yield "disturbed", _pictured(context, indices)


def _indices(context: EvalContext) -> Int[np.ndarray, " chosen"]:
  """Returns the indices of the test examples that are analyzed; none of them is anomalous."""
  indices = reconstruction.trained_class_only(np.arange(len(context.test)), context.dataset)
  count = min(MAX_EXAMPLES, max(1, _MAX_ELEMENTS // context.test[0].size))
  return indices[spaced(count, len(indices))]


def _disturbances(
  context: EvalContext, examples: Float32[np.ndarray, "examples ..."]
) -> Iterator[tuple[str, list[tuple[np.ndarray, np.ndarray]]]]:
  """Generates (name, pairs of disturbed examples and the targets of their reconstructions)."""
  yield "undisturbed", [(examples, examples)]
  for name, noisy in denoising.disturbed(context, examples).items():
    yield name, [(noisy, examples)]
  if examples.ndim == 4:
    fill = context.dataset.span.low
    for kind, (strengths, _, moved) in MOVEMENTS.items():
      for strength in strengths:
        yield f"{kind}_{strength}", [(images, images) for images in moved(examples, strength, fill)]


def _pictured(context: EvalContext, indices: Int[np.ndarray, " chosen"]) -> figures.ExampleRows:
  """Returns some test images after the movements of `_PICTURED`, and their reconstructions."""
  indices = indices[spaced(reconstruction.SHOWN, len(indices))]
  examples = context.test[indices]
  rows, fill = {"test images": examples}, context.dataset.span.low
  for kind, strength in _PICTURED:
    images = MOVEMENTS[kind][2](examples, strength, fill)[0]
    rows |= {f"{kind} {strength}": images, f"{kind} {strength} reconstructed": context.reconstruct(images, indices)}
  return figures.ExampleRows("Shifted (pixels) and rotated (degrees) test images, and their reconstructions", rows)


def _error(
  reconstructed: Float[np.ndarray, " examples *shape"], target: Float[np.ndarray, " examples *shape"]
) -> np.floating:
  """Returns the squared error per example."""
  return np.square(reconstructed - target, dtype=np.float64).sum() / len(target)


def shift(
  images: Float[np.ndarray, "examples H W C"], rows: int, columns: int, fill: float | np.floating
) -> Float[np.ndarray, "examples H W C"]:
  """Shifts images down and to the right (up and left if negative); pixels from outside are `fill`."""
  margins = (0, 0), (abs(rows),) * 2, (abs(columns),) * 2, (0, 0)
  padded = np.pad(images, margins, constant_values=fill)
  top, left = abs(rows) - rows, abs(columns) - columns
  return padded[:, top : top + images.shape[1], left : left + images.shape[2]]


def rotate(
  images: Float[np.ndarray, "examples H W C"], degrees: float | int, fill: float | np.floating
) -> Float[np.ndarray, "examples H W C"]:
  """Rotates images anticlockwise around their centre, with bilinear interpolation; pixels from outside are `fill`."""
  sides, angle = np.reshape(images.shape[1:3], (2, 1, 1)), np.deg2rad(degrees)
  i, j = np.indices(images.shape[1:3]) - (sides - 1) / 2
  source = np.stack([np.cos(angle) * i + np.sin(angle) * j, np.cos(angle) * j - np.sin(angle) * i]) + (sides - 1) / 2
  source = np.round(source, 9)  # a quarter turn lands exactly on pixels
  low = np.floor(source).astype(int)
  share = (source - low).astype(images.dtype)[..., None]  # of the pixel below or to the right: [2, H, W, 1]
  padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=fill)
  rotated = np.zeros_like(images)
  for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
    weights = np.where(np.reshape(corner, (2, 1, 1, 1)), share, 1 - share).prod(0)
    rows, columns = np.clip(low + np.reshape(corner, (2, 1, 1)) + 1, 0, sides + 1)
    rotated += weights * padded[:, rows, columns]
  return rotated


def _shifts(images: np.ndarray, pixels: int, fill: float) -> list[np.ndarray]:
  directions = ((0, pixels), (0, -pixels), (pixels, 0), (-pixels, 0))
  return [shift(images, *direction, fill) for direction in directions]


def _rotations(images: np.ndarray, degrees: int, fill: float) -> list[np.ndarray]:
  return [rotate(images, angle, fill) for angle in (degrees, -degrees)]


# name -> (strengths, their unit, function from images to the list of images that are moved by a strength)
MOVEMENTS = {"shift": (SHIFTS, "pixels", _shifts), "rotation": (ROTATIONS, "degrees", _rotations)}


EVALUATOR = base.Evaluator(name="robustness", analyses=(base.Analysis(analyze),))
