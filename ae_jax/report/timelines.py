"""Draws scores of recordings over time, with marked stretches and a threshold."""

import numpy as np

from ae_jax.evaluators import figures
from ae_jax.report import canvas


def figure(item: figures.Timelines) -> canvas.Figure:
  """Returns a picture with one panel for each recording."""
  picture = canvas.figure(9, 1.7 * len(item.steps) + 0.7, item.title)
  panels = picture.subplots(len(item.steps), 1, squeeze=False)[:, 0]
  before = 0 if item.time else 0.5  # a stretch of counted steps is drawn around them
  for axes, (name, (steps, scores)) in zip(panels, item.steps.items(), strict=True):
    axes.plot(steps, scores, color="tab:blue", linewidth=0.7, label="squared error of a step")
    axes.plot(*item.windows[name], color="black", linewidth=1, label="score of a window / its length")
    if np.isfinite(item.threshold):
      axes.axhline(
        item.threshold, color="tab:red", linestyle="--", linewidth=1, label="threshold of windows / their length"
      )
    for number, (first, end) in enumerate(item.marked[name]):
      label = "" if number else "labelled as anomalous"
      axes.axvspan(first - before, end - before, color="tab:orange", alpha=0.3, linewidth=0, label=label)
    axes.set_title(canvas.plain(name), fontsize=8)
    axes.set_ylabel("squared error", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.margins(x=0.01)
    if item.is_date:
      canvas.show_dates(axes)
    elif not item.time:
      axes.xaxis.set_major_formatter(canvas.thousands())
  panels[-1].set_xlabel(canvas.plain(item.time) or "time step of the recording", fontsize=8)
  handles = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
  picture.legend(handles.values(), [*handles], fontsize=7, loc="outside lower center", ncols=4)
  return picture
