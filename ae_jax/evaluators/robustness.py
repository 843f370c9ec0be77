"""What a model makes of test examples that were disturbed.

Of an example with noise the reconstruction is held against the clean one: does the model take the noise away? Of an
image that was shifted or rotated it is held against that very image: does the model know it as well as the first one?
PCA of the same size is asked the same.
"""

import functools

import numpy as np

from ae_jax.evaluators import base, denoising, figures, reconstruction
from ae_jax.evaluators.context import shown

SHIFTS = (1, 2, 3)  # pixels: the mean over up, down, left and right
ROTATIONS = (5, 10, 20, 45)  # degrees: the mean over both ways
MOST = 1_000  # test examples, at even distances
_MOST_NUMBERS = 2**24  # in them, so that fewer of large ones are analyzed
_PICTURED = (("shift", 3), ("rotation", 20), ("rotation", 45))


def analyze(context):
  """Generates squared errors per example, by what share they are above the undisturbed, PCA's, and pictures."""
  numbers = _numbers(context)
  examples = context.test[numbers]
  ways = {
    "squared_error": functools.partial(context.reconstruct, numbers=numbers),
    "pca_squared_error": reconstruction.pca(context.train, context.run.model.code.numbers),
  }
  errors = {way: {} for way in ways}
  yield "examples", len(examples)
  for name, pairs in _disturbances(context, examples):
    for way, reconstruct in ways.items():
      errors[way][name] = float(np.mean([_error(reconstruct(given), wanted) for given, wanted in pairs]))
      yield f"{way}/{name}", errors[way][name]
  undisturbed = errors["squared_error"]["undisturbed"]
  for name, error in errors["squared_error"].items():
    yield f"increase/{name}", reconstruction.ratio(error, undisturbed) - 1.0
  if examples.ndim == 3:
    yield "movements", "series are neither shifted nor rotated here; images are"
    return
  for kind, (strengths, unit, _) in MOVEMENTS.items():
    names = ["undisturbed", *(f"{kind}_{strength}" for strength in strengths)]
    lines = {
      words: np.array([(0, *strengths), [errors[way][name] for name in names]], np.float64)
      for way, words in {"squared_error": "this model", "pca_squared_error": "PCA of the same size"}.items()
    }
    title = f"the error of test images after a {kind}, held against what they are then"
    yield f"{kind}s", figures.Lines(title, lines, f"{kind}, {unit}", "squared error per example")
  yield "blur", "rotating blurs a little and what is blurred is easier, as PCA's error shows: hold rotations against it"
  yield "disturbed", _pictured(context, numbers)


def _numbers(context):
  """Returns the numbers of the test examples that are analyzed, of those that are like the ones trained on."""
  numbers = reconstruction.typical(np.arange(len(context.test)), context.dataset)
  most = min(MOST, max(1, _MOST_NUMBERS // context.test[0].size))
  return numbers[shown(most, len(numbers))]


def _disturbances(context, examples):
  """Generates (name, pairs of disturbed examples and what their reconstructions are held against)."""
  yield "undisturbed", [(examples, examples)]
  for name, noisy in denoising.disturbed(context, examples).items():
    yield name, [(noisy, examples)]
  if examples.ndim == 4:
    fill = context.dataset.span.low
    for kind, (strengths, _, moved) in MOVEMENTS.items():
      for strength in strengths:
        yield f"{kind}_{strength}", [(images, images) for images in moved(examples, strength, fill)]


def _pictured(context, numbers):
  """Returns some examples, moved in the ways of `_PICTURED`, and their reconstructions."""
  numbers = numbers[shown(reconstruction.SHOWN, len(numbers))]
  examples = context.test[numbers]
  rows, fill = {"test images": examples}, context.dataset.span.low
  for kind, strength in _PICTURED:
    images = MOVEMENTS[kind][2](examples, strength, fill)[0]
    rows |= {f"{kind} {strength}": images, f"{kind} {strength} reconstructed": context.reconstruct(images, numbers)}
  return figures.ExampleRows(
    "test images that were shifted (pixels) or rotated (degrees), and what becomes of them", rows
  )


def _error(reconstructed, wanted):
  return np.square(reconstructed - wanted, dtype=np.float64).sum() / len(wanted)


def shift(images, rows, columns, fill):
  """Images [N, H, W, C] moved down and to the right (up and left if negative); what comes in from outside is `fill`."""
  margins = (0, 0), (abs(rows),) * 2, (abs(columns),) * 2, (0, 0)
  padded = np.pad(images, margins, constant_values=fill)
  top, left = abs(rows) - rows, abs(columns) - columns
  return padded[:, top : top + images.shape[1], left : left + images.shape[2]]


def rotate(images, degrees, fill):
  """Images [N, H, W, C] turned anticlockwise around their centre, bilinearly; what comes in from outside is `fill`."""
  sides, angle = np.reshape(images.shape[1:3], (2, 1, 1)), np.deg2rad(degrees)
  i, j = np.indices(images.shape[1:3]) - (sides - 1) / 2
  source = np.stack([np.cos(angle) * i + np.sin(angle) * j, np.cos(angle) * j - np.sin(angle) * i]) + (sides - 1) / 2
  source = np.round(source, 9)  # a quarter of a turn lands on pixels
  low = np.floor(source).astype(int)
  share = (source - low).astype(images.dtype)[..., None]  # of the pixel below or to the right: [2, H, W, 1]
  padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=fill)
  turned = np.zeros_like(images)
  for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
    weights = np.where(np.reshape(corner, (2, 1, 1, 1)), share, 1 - share).prod(0)
    rows, columns = np.clip(low + np.reshape(corner, (2, 1, 1)) + 1, 0, sides + 1)
    turned += weights * padded[:, rows, columns]
  return turned


def _shifts(images, pixels, fill):
  directions = ((0, pixels), (0, -pixels), (pixels, 0), (-pixels, 0))
  return [shift(images, *direction, fill) for direction in directions]


def _rotations(images, degrees, fill):
  return [rotate(images, angle, fill) for angle in (degrees, -degrees)]


# name -> strengths, their unit, and what it makes of images at a strength: a list of images
MOVEMENTS = {"shift": (SHIFTS, "pixels", _shifts), "rotation": (ROTATIONS, "degrees", _rotations)}


EVALUATOR = base.Evaluator(name="robustness", analyses=(base.Analysis(analyze),))
