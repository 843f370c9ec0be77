"""Properties of figures of examples that PNG files and pages share: limits of the values, and attention weights."""

from collections.abc import Iterator

import numpy as np

from ae_jax.data import ranges
from ae_jax.evaluators import figures


def limits(examples: np.ndarray, value_range: str) -> tuple[float, float]:
  """Returns the bounds of a value range; for an unbounded range, the extrema of the finite values in `examples`."""
  low, high = ranges.INTERVALS[value_range]
  if not np.isfinite(low):
    finite = examples[np.isfinite(examples)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
  return low, high if high > low else low + 1.0


def reconstructed(item: figures.ExampleRows) -> bool:
  """Returns whether the figure has exactly two rows: examples and their reconstructions."""
  return len(item.rows) == 2 and [*item.rows][1] == "reconstructions"


def difference(item: figures.ExampleRows) -> tuple[np.ndarray, str] | None:
  """Returns the differences between reconstructions and images [N, H, W, 1], and a note that explains their colours.

  If the figure has targets, they are subtracted instead of the images. Returns None if the figure has other rows than
  images, targets and reconstructions.
  """
  of_pairs = [*item.rows][1:] == ["targets", "reconstructions"]
  if not of_pairs and not reconstructed(item):
    return None
  original, reconstruction = [*item.rows.values()][-2:]
  mean = ", averaged over the channels" if original.shape[-1] > 1 else ""
  note = (
    f"difference: reconstruction minus {'target' if of_pairs else 'original'}{mean}; red: too bright, blue: too dark"
  )
  return (reconstruction - original).mean(-1, keepdims=True), note


def heads(item: figures.Attention) -> Iterator[tuple[str, np.ndarray]]:
  """Yields (name, attention weights averaged over the queries) for each head of each layer.

  The weights have shape [N, H, W, 1] for images, whose tokens are patches in row-major order, and [N, T, 1] for series,
  where the number of tokens T may be smaller than the number of steps.
  """
  height, width = item.examples.shape[1:3]
  for layer, weights in item.weights.items():
    for head in range(weights.shape[1]):
      mean = weights[:, head].mean(1)
      if item.examples.ndim == 4:
        patch = figures.side_of_patch(height, width, mean.shape[-1])
        tiles = mean.reshape(len(mean), -(-height // patch), -1)
        mean = np.kron(tiles, np.ones((1, patch, patch), np.float32))[:, :height, :width]
      yield f"{layer} {head + 1}", mean[..., None]
