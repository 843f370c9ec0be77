"""Figures of chosen test examples with their reconstructions."""

import numpy as np
from jaxtyping import Bool, Float, Int

from ae_jax.evaluators import display, figures
from ae_jax.evaluators.context import EvalContext

SHOWN = 16  # maximum number of examples in a figure
NAMES = {"table": "test rows", "series": "series", "images": "test images", "volumes": "test volumes"}  # in figures
_HATCHED = "; hatched: missing in the data"


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
  has_targets = context.targets is not context.test
  first = "inputs" if has_targets else NAMES[dataset.kind]
  rows = {first: context.test[chosen]}
  if has_targets:
    rows["targets"] = context.targets[chosen]
  rows["reconstructions"] = context.reconstructions[chosen]
  if context.mask is not None:
    rows["completed"] = np.where(context.mask[chosen], context.targets[chosen], context.reconstructions[chosen])
    title += "; completed: the observed values, and reconstructions of the missing ones"
  if observed is not None and display.is_hatched(dataset.kind):
    rows[first], observed = display.marked(rows[first], observed, dataset.kind, dataset.span), None
    title += _HATCHED
  captions = dataset.test_captions(chosen) if captions is None else captions
  return figures.ExampleRows(title, rows, observed, captions=captions)


def marked(
  context: EvalContext, chosen: Int[np.ndarray, " chosen"], split: str = "test"
) -> tuple[Float[np.ndarray, "chosen ..."], str]:
  """Returns examples in which values that are missing in the data are marked, and an explanation for the title.

  See `display.marked` for the marks. The explanation is "" if no value is missing.

  Args:
    context: The trained model and its data.
    chosen: Indices of the examples in `context.test` or `context.train`.
    split: "test" or "train".
  """
  examples, dataset = (context.test if split == "test" else context.train)[chosen], context.dataset
  observed = _observed(context, chosen, split)
  if observed is None:
    return examples, ""
  explanation = _HATCHED if display.is_hatched(dataset.kind) else "; values that are missing in the data are left out"
  return display.marked(examples, observed, dataset.kind, dataset.span), explanation


def _observed(
  context: EvalContext, chosen: Int[np.ndarray, " chosen"], split: str = "test"
) -> Bool[np.ndarray, "chosen ..."] | None:
  """Returns the mask of the elements that are not missing in the data; None if no element is missing."""
  examples = (context.test if split == "test" else context.train)[chosen]
  return display.observed(context.dataset.schema, examples, context.mask_of(split, chosen))
