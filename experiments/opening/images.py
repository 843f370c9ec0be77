"""Opening a folder of JPEG files of mixed size as images of 64x64 pixels, beside a thread pool over Pillow."""

import concurrent.futures
import os

import numpy as np
from PIL import Image

from ae_jax import data

RESULT = "images"  # key of results.json
COUNT = 10_000
SIDE = 64


def write(folder, count):
  """Writes JPEG files of 200 to 800 pixels per side, cut from photographs of scikit-learn; returns their folder."""
  from sklearn.datasets import load_sample_images

  photographs = [np.tile(image, (2, 2, 1)) for image in load_sample_images().images]
  generator = np.random.default_rng(0)
  folder = folder / "photographs"
  folder.mkdir()
  for number in range(count):
    height, width = generator.integers(200, 801, 2)
    photograph = photographs[number % 2]
    top, left = (generator.integers(0, limit) for limit in (854 - height, 1280 - width))
    Image.fromarray(photograph[top : top + height, left : left + width]).save(folder / f"{number:05}.jpg", quality=90)
  return folder


def with_pillow(folder, reduced):
  """Returns the images, decoded by a thread pool."""

  def decode(file):
    with Image.open(file) as image:
      if reduced:
        image.draft("RGB", (2 * SIDE, 2 * SIDE))
      return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    return np.stack(list(pool.map(decode, sorted(folder.iterdir()))))


def with_ae_jax(folder):
  """Returns the data set, after checking all files and storing the decoded images in the cache."""
  return data.load("folder", str(folder), "unit", size=(SIDE, SIDE))


PEERS = {
  "pillow": lambda folder: with_pillow(folder, reduced=False),
  "pillow, reduced": lambda folder: with_pillow(folder, reduced=True),
}
