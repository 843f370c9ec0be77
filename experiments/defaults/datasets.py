"""Small data sets of six kinds that need no network, each with a training and a test set.

`DATASETS` maps each name to a function that returns (training examples, test examples, latent size). Patches of
photographs for training and for testing come from different parts of the pictures.
"""

from collections.abc import Callable

import numpy as np

Splits = tuple[np.ndarray, np.ndarray, int]


def _bundled(name: str, latent: int) -> Callable[[], Splits]:
  """Returns a function that loads a data set of ae_jax."""

  def load() -> Splits:
    from ae_jax.data import sources

    arrays = sources.read(name, "", {})
    if "test" in arrays:
      return arrays["train"], arrays["test"], latent
    return *_divided(arrays["train"]), latent

  return load


def _divided(x: np.ndarray, share: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
  """Returns a random division into training and test examples."""
  order = np.random.default_rng(0).permutation(len(x))
  count = round(len(x) * share)
  return x[order[count:]], x[order[:count]]


def _table(name: str, latent: int) -> Callable[[], Splits]:
  """Returns a function that loads a table of scikit-learn, standardised by its training set."""

  def load() -> Splits:
    import sklearn.datasets

    train, test = _divided(getattr(sklearn.datasets, f"load_{name}")().data)
    return *_standardised(train, test), latent

  return load


def _standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  mean, deviation = train.mean(0), train.std(0)
  deviation = np.where(deviation > 0, deviation, 1.0)
  return tuple(((x - mean) / deviation).astype(np.float32) for x in (train, test))


def _photographs(side: int, train: int, test: int) -> Callable[[], Splits]:
  """Returns a function that cuts patches from scikit-learn's two photographs; tests come from their right quarter."""

  def load() -> Splits:
    from sklearn.datasets import load_sample_images

    rng, pictures = np.random.default_rng(0), load_sample_images().images
    split = pictures[0].shape[1] * 3 // 4
    return (
      _patches(rng, [p[:, :split] for p in pictures], side, train),
      _patches(rng, [p[:, split:] for p in pictures], side, test),
      32,
    )

  return load


def _patches(rng: np.random.Generator, pictures: list[np.ndarray], side: int, count: int) -> np.ndarray:
  """Returns `count` random patches [count, side, side, C]."""
  patches = []
  for number in range(count):
    picture = pictures[number % len(pictures)]
    row, column = (rng.integers(0, size - side + 1) for size in picture.shape[:2])
    patches.append(picture[row : row + side, column : column + side])
  return np.stack(patches)


def _grey_patches(*names: str) -> Callable[[], Splits]:
  """Returns a function that cuts patches [16, 16, 1] from scikit-image's grey pictures of 512x512 pixels."""

  def load() -> Splits:
    from skimage import data

    rng, pictures = np.random.default_rng(0), [getattr(data, name)() for name in names]
    sets = [[p[:, :384, None] for p in pictures], [p[:, 384:, None] for p in pictures]]
    return _patches(rng, sets[0], 16, 3000), _patches(rng, sets[1], 16, 600), 16

  return load


def faces() -> Splits:
  """Returns made faces [32, 32, 1]: ellipses with eyes and a mouth that move, turn and change in brightness."""
  rng = np.random.default_rng(0)
  v, u = np.mgrid[-1:1:32j, -1:1:32j]

  def blob(x, y, wide, high):
    return 1 / (1 + np.exp(8 * (np.hypot((u - x) / wide, (v - y) / high) - 1)))

  images = []
  for _ in range(1500):
    x, y, size, smile, gaze = rng.uniform((-0.2, -0.2, 0.6, -0.2, -0.1), (0.2, 0.2, 0.85, 0.2, 0.1))
    light = rng.uniform(0.5, 1.0)
    face = light * blob(x, y, 0.75 * size, size)
    for eye in (-0.25, 0.25):
      face -= 0.4 * light * blob(x + eye * size + gaze, y - 0.2 * size, 0.1, 0.07)
    mouth = y + 0.4 * size + smile * (u - x) ** 2 * 4
    face -= 0.3 * light * np.exp(-(((v - mouth) / 0.06) ** 2)) * (np.abs(u - x) < 0.3 * size)
    images.append(face.clip(0, 1))
  x = np.round(np.array(images) * 255).astype(np.uint8)[..., None]
  return x[:1200], x[1200:], 8


def categories() -> Splits:
  """Returns a made table: 6 numbers that depend on two hidden variables, and three one-hot categories."""
  rng = np.random.default_rng(0)
  hidden = rng.normal(size=(2000, 2))
  numbers = np.stack(
    [hidden[:, 0], hidden[:, 0] ** 2, hidden.prod(1), np.sin(2 * hidden[:, 1]), hidden.sum(1), np.tanh(hidden[:, 1])], 1
  )
  groups = [np.digitize(hidden @ direction, (-0.7, 0.7)) for direction in ((1, 0), (0, 1), (1, -1))]
  x = np.concatenate([numbers + 0.1 * rng.normal(size=numbers.shape), *(np.eye(3)[group] for group in groups)], 1)
  return *_standardised(x[:1600], x[1600:]), 3


def multivariate_series() -> Splits:
  """Returns made series [60, 3]: a chirp, its delayed copy, and a bump, with noise."""
  rng, t = np.random.default_rng(0), np.linspace(0, 1, 60)
  start, rate, phase, at, height = (rng.uniform(low, high, (1500, 1)) for low, high in _SERIES_RANGES)
  chirp = np.sin(2 * np.pi * (start * t + rate * t**2) + phase)
  delayed = np.sin(2 * np.pi * (start * (t - 0.1) + rate * (t - 0.1) ** 2) + phase)
  bump = height * np.exp(-(((t - at) / 0.08) ** 2))
  x = np.stack([chirp, delayed, bump], -1) + 0.05 * rng.normal(size=(1500, 60, 3))
  return x[:1200].astype(np.float32), x[1200:].astype(np.float32), 8


_SERIES_RANGES = ((1, 3), (0, 2), (0, 6.28), (0.2, 0.8), (0.5, 2))


def spectra() -> Splits:
  """Returns made spectra [200]: a sloped baseline and four peaks of changing height, place and width, with noise."""
  rng, t = np.random.default_rng(0), np.linspace(0, 1, 200)
  x = rng.uniform(0, 1, (1200, 1)) + rng.normal(size=(1200, 1)) * t
  for centre in (0.15, 0.35, 0.6, 0.85):
    place = centre + 0.02 * rng.normal(size=(1200, 1))
    width = rng.uniform(0.01, 0.03, (1200, 1))
    x = x + rng.gamma(2, 1, (1200, 1)) * np.exp(-(((t - place) / width) ** 2))
  x = x + 0.02 * rng.normal(size=x.shape)
  return x[:1000].astype(np.float32), x[1000:].astype(np.float32), 8


def ecg5000() -> Splits:
  """Returns the training heartbeats [140, 1] of ECG5000, if they are in ../shared/ucr."""
  import pathlib

  path = next(pathlib.Path(__file__).parents[3].glob("shared/ucr/ECG5000/*TRAIN*"))
  return *_divided(np.loadtxt(path, ndmin=2)[:, 1:, None].astype(np.float32)), 16


def linear() -> Splits:
  """Returns gaussian data from a linear model with 5 hidden variables, on which no model is better than PCA."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2500, 5)) @ rng.normal(size=(5, 40)) + 0.3 * rng.normal(size=(2500, 40))
  return x[:2000].astype(np.float32), x[2000:].astype(np.float32), 5


DATASETS: dict[str, Callable[[], Splits]] = {
  "mnist_5k": _bundled("mnist_5k", 32),
  "digits": _bundled("digits", 16),
  "factors": _bundled("factors", 8),
  "photographs_32": _photographs(32, 2000, 400),
  "photographs_64": _photographs(64, 480, 120),
  "photographs_128": _photographs(128, 240, 60),
  "faces": faces,
  "textures": _grey_patches("brick", "grass", "gravel"),
  "cameraman": _grey_patches("camera"),
  "breast_cancer": _table("breast_cancer", 8),
  "wine": _table("wine", 2),
  "diabetes": _table("diabetes", 4),
  "categories": categories,
  "heartbeats": _bundled("heartbeats", 16),
  "ecg5000": ecg5000,
  "multivariate_series": multivariate_series,
  "spectra": spectra,
  "linear": linear,
}
HELD_OUT = ("cameraman", "spectra")  # not used to choose the defaults
