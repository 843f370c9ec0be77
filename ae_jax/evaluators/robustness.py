"""Robustness: reconstruction errors of test examples that are noisy, shifted or rotated.

The reconstruction of a noisy example is compared with the clean example, which measures whether the model removes the
noise. The reconstruction of a shifted or rotated image is compared with the shifted or rotated image, which measures
whether the model generalises to such images. The baseline is PCA with the budget of the latent code.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int

from ae_jax.evaluators import base, denoising, figures, pca, reconstruction, shown
from ae_jax.evaluators.context import EvalContext, spaced

SHIFTS = (1, 2, 3)  # pixels; errors are means over shifts up, down, left and right
ROTATIONS = (5, 10, 20, 45)  # degrees; errors are means over both directions of rotation
MAX_EXAMPLES = 1_000  # maximum number of test examples, evenly spaced
_MAX_ELEMENTS = 2**24  # maximum number of elements in these examples; if examples are large, fewer are used
_MOVEMENTS_IN_FIGURE = ("shift_3", "rotation_20", "rotation_45")


def analyze(context: EvalContext) -> Iterator[tuple[str, Any]]:
  """Yields squared errors of the model and of PCA, the relative increase of the model's errors, and figures."""
  indices = _indices(context)
  drawn = spaced(shown.SHOWN, len(indices))
  rows = {"test images": context.test[indices[drawn]]}
  errors = {"squared_error": {}, "pca_squared_error": {}}
  yield "examples", len(indices)
  for name, of_methods, disturbed, reconstructed in _measured(context, indices):
    for method, error in zip(errors, of_methods, strict=True):
      errors[method][name] = error
      yield f"{method}/{name}", error
    if name in _MOVEMENTS_IN_FIGURE:
      label = name.replace("_", " ")
      rows |= {label: disturbed[drawn], f"{label} reconstructed": reconstructed[drawn]}
  undisturbed = errors["squared_error"]["undisturbed"]
  for name, error in errors["squared_error"].items():
    yield f"increase/{name}", reconstruction.ratio(error, undisturbed) - 1.0
  if context.test.ndim != 4:
    return
  labels = {"squared_error": "this model", "pca_squared_error": pca.name_of_baseline(context.run.model.code)}
  for kind, (strengths, unit, _) in MOVEMENTS.items():
    names = ["undisturbed", *(f"{kind}_{strength}" for strength in strengths)]
    lines = {
      label: np.array([(0, *strengths), [errors[method][name] for name in names]], np.float64)
      for method, label in labels.items()
    }
    title = f"Squared error between test images after a {kind} and their reconstructions"
    yield f"{kind}s", figures.Lines(title, lines, f"{kind}, {unit}", "squared error per example")
  yield (
    "blur",
    "rotation slightly blurs images, which makes them easier to reconstruct: compare the error with the error of PCA",
  )
  title = "Shifted (pixels) and rotated (degrees) test images, and their reconstructions"
  yield "disturbed", figures.ExampleRows(title, rows)


def _indices(context: EvalContext) -> Int[np.ndarray, " chosen"]:
  """Returns the indices of the test examples that are analyzed. Anomalous examples are excluded."""
  indices = reconstruction.trained_class_only(np.arange(len(context.test)), context.dataset)
  count = min(MAX_EXAMPLES, max(1, _MAX_ELEMENTS // context.test[0].size))
  return indices[spaced(count, len(indices))]


def _measured(
  context: EvalContext, indices: Int[np.ndarray, " chosen"]
) -> Iterator[tuple[str, tuple[float, float], np.ndarray, np.ndarray]]:
  """Yields (name, (error of the model, error of PCA), disturbed examples, reconstructions) for each disturbance.

  For movements, the errors are means over the directions, and the examples are moved in the first direction.
  """
  for name, pairs in _disturbances(context, context.test[indices]):
    errors, shown_pair = [], None
    for disturbed, target in pairs:
      known = name == "undisturbed"  # these reconstructions are cached
      reconstructed = context.reconstructions[indices] if known else context.reconstruct(disturbed, indices)
      errors.append((_error(reconstructed, target), _error(pca.reconstruct(context.baseline_pca, disturbed), target)))
      shown_pair = shown_pair or (disturbed, reconstructed)
    of_model, of_pca = np.mean(errors, 0)
    yield name, (float(of_model), float(of_pca)), *shown_pair


def _disturbances(
  context: EvalContext, examples: Float32[np.ndarray, "examples ..."]
) -> Iterator[tuple[str, list[tuple[np.ndarray, np.ndarray]]]]:
  """Yields (name, [(disturbed examples, targets of their reconstructions), ...]) for each disturbance."""
  yield "undisturbed", [(examples, examples)]
  for name, noisy in denoising.disturbed(context, examples).items():
    yield name, [(noisy, examples)]
  if examples.ndim == 4:
    fill = context.dataset.span.low
    for kind, (strengths, _, moved) in MOVEMENTS.items():
      for strength in strengths:
        yield f"{kind}_{strength}", [(images, images) for images in moved(examples, strength, fill)]


def _error(
  reconstructed: Float[np.ndarray, " examples *shape"], target: Float[np.ndarray, " examples *shape"]
) -> np.floating:
  """Returns the squared error per example, averaged over the examples."""
  return np.square(reconstructed - target, dtype=np.float64).sum() / len(target)


def shift(
  images: Float[np.ndarray, "examples H W C"], rows: int, columns: int, fill: float | np.floating
) -> Float[np.ndarray, "examples H W C"]:
  """Shifts images down by `rows` and right by `columns` pixels; vacated pixels are set to `fill`.

  Negative numbers shift up and left.
  """
  margins = (0, 0), (abs(rows),) * 2, (abs(columns),) * 2, (0, 0)
  padded = np.pad(images, margins, constant_values=fill)
  top, left = abs(rows) - rows, abs(columns) - columns
  return padded[:, top : top + images.shape[1], left : left + images.shape[2]]


def rotate(
  images: Float[np.ndarray, "examples H W C"], degrees: float | int, fill: float | np.floating
) -> Float[np.ndarray, "examples H W C"]:
  """Rotates images anticlockwise around their centre, with bilinear interpolation.

  Vacated pixels are set to `fill`.
  """
  sides, angle = np.reshape(images.shape[1:3], (2, 1, 1)), np.deg2rad(degrees)
  i, j = np.indices(images.shape[1:3]) - (sides - 1) / 2
  source = np.stack([np.cos(angle) * i + np.sin(angle) * j, np.cos(angle) * j - np.sin(angle) * i]) + (sides - 1) / 2
  source = np.round(source, 9)  # so that a quarter turn maps pixels exactly to pixels
  low = np.floor(source).astype(int)
  share = (source - low).astype(images.dtype)[..., None]  # weight of the pixel below or to the right: [2, H, W, 1]
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


# Name -> (strengths, unit, function (images, strength, fill) that returns a list: the moved images for each direction).
MOVEMENTS = {"shift": (SHIFTS, "pixels", _shifts), "rotation": (ROTATIONS, "degrees", _rotations)}


EVALUATOR = base.Evaluator(
  name="robustness", skipped_without=("complete", "no_targets"), analyses=(base.Analysis(analyze),)
)
