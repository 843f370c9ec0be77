"""Figures of chosen test examples with their reconstructions."""

import numpy as np
from jaxtyping import Int

from ae_jax.evaluators import figures
from ae_jax.evaluators.context import EvalContext

SHOWN = 16  # maximum number of examples in a figure
NAMES = {"table": "test rows", "series": "series", "images": "test images", "volumes": "test volumes"}  # in figures


def example_rows(
  context: EvalContext, title: str, chosen: Int[np.ndarray, " chosen"], captions: tuple[str, ...] | None = None
) -> figures.ExampleRows:
  """Returns a figure of test examples, their targets, reconstructions, and examples that the model completed.

  Args:
    context: The trained model and its data.
    title: Title of the figure; an explanation of the completed examples is added.
    chosen: Indices of the test examples.
    captions: Texts above the examples; by default, where windows begin in their recordings.
  """
  rows = {NAMES[context.dataset.kind]: context.test[chosen]}
  if context.targets is not context.test:
    rows["targets"] = context.targets[chosen]
  rows["reconstructions"] = context.reconstructions[chosen]
  if context.mask is not None:
    rows["completed"] = np.where(context.mask[chosen], context.targets[chosen], context.reconstructions[chosen])
    title += "; completed: the observed values, and reconstructions of the missing ones"
  captions = context.dataset.test_captions(chosen) if captions is None else captions
  return figures.ExampleRows(title, rows, captions=captions)
