"""Figures of chosen test examples with their reconstructions."""

import numpy as np
from jaxtyping import Bool, Float, Int

from ae_jax.evaluators import display, figures
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
  dataset, observed = context.dataset, _observed(context, chosen)
  rows = {NAMES[dataset.kind]: context.test[chosen]}
  if context.targets is not context.test:
    rows["targets"] = context.targets[chosen]
  rows["reconstructions"] = context.reconstructions[chosen]
  if context.mask is not None:
    rows["completed"] = np.where(context.mask[chosen], context.targets[chosen], context.reconstructions[chosen])
    title += "; completed: the observed values, and reconstructions of the missing ones"
  if observed is not None and dataset.kind in ("images", "volumes"):
    first = NAMES[dataset.kind]
    rows[first], observed = display.hatched(rows[first], observed, dataset.span), None
    title += "; hatched: missing in the data"
  captions = dataset.test_captions(chosen) if captions is None else captions
  return figures.ExampleRows(title, rows, observed, captions=captions)


def with_gaps(context: EvalContext, chosen: Int[np.ndarray, " chosen"]) -> Float[np.ndarray, "chosen ..."]:
  """Returns test examples for thumbnails; values of series and tables that are missing in the data are NaN."""
  observed = _observed(context, chosen)
  if observed is None or context.dataset.kind in ("images", "volumes"):
    return context.test[chosen]
  return np.where(observed, context.test[chosen], np.float32(np.nan))


def _observed(context: EvalContext, chosen: Int[np.ndarray, " chosen"]) -> Bool[np.ndarray, "chosen ..."] | None:
  """Returns the mask of the elements that are not missing in the data; None if no element is missing."""
  mask = None if context.mask is None else context.mask[chosen]
  return display.observed(context.dataset.schema, context.test[chosen], mask)
