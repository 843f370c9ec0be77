"""Line graphs as static images: the learning curves of a run, and the results of a sweep."""

import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ae_jax.report import axis_positions, canvas, tables
from ae_jax.report.canvas import Axes
from ae_jax.runs import metric_names

_LABEL_HEIGHT = 32  # number of characters that fit beside axes of about three inches
_MAX_MARKERS = 40  # curves with more points are drawn without markers


def curves(
  path: pathlib.Path,
  measured: Mapping[str, tuple[np.ndarray, np.ndarray]],
  baselines: Mapping[str, Any],
  tested: str = "test example",
  unit: str = "",
) -> None:
  """Plots the loss, and the squared test error with the PCA baseline, over the epochs on logarithmic axes.

  Args:
    path: PNG file to write.
    measured: Curves of the metrics, as `logs.curves` returns them.
    baselines: Baseline metrics {name: value}, which include the squared error of PCA.
    tested: Name of a test example over which errors are averaged.
    unit: Unit of the squared errors; "" for none.
  """
  figure = canvas.figure(9, 3.5)
  left, right = figure.subplots(1, 2)
  _curve(left, measured, "train/loss", "training", "tab:blue")
  _curve(left, measured, "test/loss", "test", "tab:orange")
  _curve(left, measured, "validation/loss", "validation", "tab:green")
  left.set(ylabel="loss per example")
  _curve(right, measured, "test/squared_error", "autoencoder", "tab:orange")
  key = metric_names.pca_key(baselines)
  size = "number of bits" if key == metric_names.QUANTISED_PCA else "latent size"
  label = f"baseline: PCA with the same {size}, {tables.number(baselines[key])}"
  right.axhline(baselines[key], color="tab:gray", linestyle="--", label=label)
  label = axis_positions.error_label(unit, tested)
  right.set(ylabel="\n".join(textwrap.fill(line, _LABEL_HEIGHT) for line in label.split("\n")))
  for axes in (left, right):
    axes.set(xlabel="epoch")
    axes.locator_params(axis="x", integer=True)
    if all(np.min(line.get_ydata()) > 0 for line in axes.lines):  # an error of 0 has no logarithm
      canvas.logarithmic(axes)
    axes.grid(alpha=0.2)
    if axes.lines:
      axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3 if axes is left else 1)
  figure.savefig(path)


def error_over_latent(
  curves: Mapping[str, Mapping[int, Sequence[float]]],
  pca: Mapping[int, float],
  knee: Mapping[str, Any] | None,
  dimensions: Mapping[str, Mapping[str, Any]],
  title: str,
  unit: str = "",
) -> canvas.Figure:
  """Returns a plot of the mean test error against the latent size, with the range across seeds, on logarithmic axes.

  Args:
    curves: {name of the curve: {latent size: [error of each seed]}}.
    pca: {latent size: error of PCA}.
    knee: {"latent", "low", "high"}: smallest sufficient latent size and the bounds of its confidence interval; None if
      no latent size is sufficient.
    dimensions: {estimator: {"estimate", "low", "high"}}: intrinsic dimension of the data and the bounds of its
      confidence interval.
    title: Title of the plot.
    unit: Unit of the squared errors; "" for none.
  """
  figure = canvas.figure(7, 4.4, title)
  axes = figure.subplots()
  for number, (name, curve) in enumerate(curves.items()):
    _mean_and_range(axes, curve, name, canvas.shade("viridis", 0.25 + 0.6 * number / len(curves)))
  label = "baseline: PCA with the same latent size"
  axes.plot(list(pca), list(pca.values()), "s--", color="tab:gray", label=label, markersize=3.5)
  if knee:
    label = f"smallest sufficient latent size: {knee['latent']}"
    _mark(axes, knee["latent"], knee, "tab:orange", label=label)
  for style, (name, found) in zip((":", "-."), dimensions.items(), strict=False):
    interval = tables.with_bounds(found["estimate"], found["low"], found["high"], is_dimension=True)
    label = f"intrinsic dimension of the data, {name}: {interval}"
    _mark(axes, found["estimate"], found, "tab:green", label=label, linestyle=style)
  if curves:  # without curves the axes may include 0, which has no logarithm
    canvas.logarithmic(axes)
    axes.set_xscale("log", base=2)
  axes.set_xticks(list(pca), list(map(str, pca)), minor=False)
  axes.set(xlabel="latent size", ylabel=axis_positions.error_label(unit))
  _finish(axes)
  return figure


def rate_distortion(
  path: pathlib.Path,
  curves: Mapping[int, Mapping[float, tuple[float, float]]],
  distortion: str,
  title: str,
) -> None:
  """Plots a rate-distortion curve for each latent size, with a point for each beta.

  Args:
    path: PNG file to write.
    curves: {latent size: {beta: (rate, distortion)}}.
    distortion: Measure of the distortion, "nats" or "squared_error".
    title: Beginning of the title of the plot.
  """
  figure = canvas.figure(7, 4.4, f"{title}: rate-distortion curves; the label of a point is its beta")
  axes = figure.subplots()
  for number, (latent, points) in enumerate(curves.items()):
    colour = canvas.shade("viridis", 0.1 + 0.8 * number / len(curves))
    label = f"latent size {latent}"
    axes.plot(*zip(*points.values(), strict=True), "o-", color=colour, label=label, markersize=4)
    for beta, point in points.items():
      axes.annotate(f"{beta:g}", point, textcoords="offset points", xytext=(4, 4), fontsize=7, color=colour)
  labels = {"nats": "distortion: reconstruction loss in nats", "squared_error": "distortion: squared error"}
  axes.set(xlabel="rate: KL divergence from the prior, nats", ylabel=f"{labels[distortion]} per test example")
  _finish(axes)
  figure.savefig(path)


def _mean_and_range(axes: Axes, curve: Mapping[int, Sequence[float]], name: str, colour: Any) -> None:
  """Draws the mean over the seeds as a line, and the range over the seeds as a band."""
  means, lows, highs = ([of(errors) for errors in curve.values()] for of in (np.mean, min, max))
  axes.plot(list(curve), means, "o-", color=colour, label=name, markersize=4, zorder=3)
  axes.fill_between(list(curve), lows, highs, color=colour, alpha=0.2)


def _mark(axes: Axes, value: float | int, interval: Mapping[str, Any], colour: str, **options: Any) -> None:
  """Marks an x value with a vertical line, and its confidence interval with a vertical band."""
  axes.axvspan(interval["low"], interval["high"], color=colour, alpha=0.15, linewidth=0)
  axes.axvline(value, color=colour, linewidth=1.2, **options)


def _finish(axes: Axes) -> None:
  """Adds a grid and the legend."""
  axes.grid(alpha=0.2)
  axes.legend(fontsize=8, framealpha=0.9)


def _curve(axes: Axes, measured: Mapping[str, Any], name: str, label: str, colour: str) -> None:
  """Draws a curve, with markers if it has few points; a single point has no line."""
  if name in measured:
    marker = "o" if len(measured[name][0]) <= _MAX_MARKERS else ""
    axes.plot(*measured[name], color=colour, marker=marker, markersize=3, linewidth=1.2, label=label)
