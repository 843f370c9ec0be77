"""Curves as pictures: those of a run over its epochs, and those of a sweep."""

import textwrap

import numpy as np

from ae_jax.report import canvas
from ae_jax.runs import metric_names

_LETTERS = 76  # of a title that fit above axes some six inches wide


def curves(path, measured, baselines):
  """Saves the loss and the test error against the epoch, on log axes, PCA's error as a line.

  `measured` is what `logs.curves` has, `baselines` maps names to the values that do not depend on the model.
  """
  figure = canvas.figure(8, 3.2)
  left, right = figure.subplots(1, 2)
  _curve(left, measured, "train/loss", "training", "tab:blue", "")
  _curve(left, measured, "test/loss", "test", "tab:orange", "o")
  left.set(ylabel="loss per example")
  _curve(right, measured, "test/squared_error", "autoencoder", "tab:orange", "o")
  key = metric_names.pca_key(baselines)
  size = "as many bits" if key == metric_names.QUANTISED_PCA else "the same size"
  right.axhline(baselines[key], color="tab:gray", linestyle="--", label=f"PCA of {size}, {baselines[key]:.2f}")
  right.set(ylabel="squared error per test example")
  for axes in (left, right):
    axes.set(xlabel="epoch")
    if all(np.min(line.get_ydata()) > 0 for line in axes.lines):  # a perfect reconstruction has no logarithm
      canvas.logarithmic(axes)
    axes.grid(alpha=0.2)
    if axes.lines:
      axes.legend(fontsize=8)
  figure.savefig(path)


def error_over_latent(path, curves, pca, knee, dimensions, title):
  """Saves the mean error over latent size, the seeds' range around it, on log axes, beside PCA's.

  `curves` are {name: {latent: [error of each seed]}}, `pca` {latent: error}. `knee` {"latent", "low", "high"} or None,
  and `dimensions` of the data, {name: {"estimate", "low", "high"}}, are marked on the same axis with their intervals.
  """
  figure = canvas.figure(7, 4.4)
  axes = figure.subplots()
  for number, (name, curve) in enumerate(curves.items()):
    sizes, colour = list(curve), canvas.shade("viridis", 0.25 + 0.6 * number / len(curves))
    axes.plot(sizes, [np.mean(each) for each in curve.values()], "o-", color=colour, label=name, markersize=4, zorder=3)
    axes.fill_between(sizes, *zip(*((min(e), max(e)) for e in curve.values()), strict=True), color=colour, alpha=0.2)
  axes.plot(list(pca), list(pca.values()), "s--", color="tab:gray", label="PCA of the same size", markersize=3.5)
  if knee:
    axes.axvspan(knee["low"], knee["high"], color="tab:orange", alpha=0.15, linewidth=0)
    axes.axvline(knee["latent"], color="tab:orange", linewidth=1.2, label=f"{knee['latent']} is enough")
  for style, (name, found) in zip((":", "-."), dimensions.items(), strict=False):
    label = f"dimension of the data, {name}: {found['estimate']:.1f} ({found['low']:.1f} to {found['high']:.1f})"
    axes.axvspan(found["low"], found["high"], color="tab:green", alpha=0.15, linewidth=0)
    axes.axvline(found["estimate"], color="tab:green", linewidth=1.2, linestyle=style, label=label)
  if curves:  # nothing has no logarithm
    canvas.logarithmic(axes)
    axes.set_xscale("log", base=2)
  axes.set_xticks(list(pca), list(map(str, pca)), minor=False)
  axes.set(xlabel="latent size", ylabel="squared error per test example")
  _title(axes, title)
  axes.grid(alpha=0.2)
  axes.legend(fontsize=8, framealpha=0.9)
  figure.savefig(path)


def rate_distortion(path, curves, distortion, title):
  """Saves {latent: {beta: (rate, distortion)}} as a curve for each latent size, a point for each beta."""
  figure = canvas.figure(7, 4.4)
  axes = figure.subplots()
  for number, (latent, points) in enumerate(curves.items()):
    colour = canvas.shade("viridis", 0.1 + 0.8 * number / len(curves))
    axes.plot(*zip(*points.values(), strict=True), "o-", color=colour, label=f"latent {latent}", markersize=4)
    for beta, point in points.items():
      axes.annotate(f"{beta:g}", point, textcoords="offset points", xytext=(4, 4), fontsize=7, color=colour)
  words = {"nats": "distortion: nats of the reconstruction", "squared_error": "distortion: squared error"}
  axes.set(xlabel="rate: KL to the prior, nats", ylabel=f"{words[distortion]} per test example")
  _title(axes, f"{title}: what a nat of code buys, by beta")
  axes.grid(alpha=0.2)
  axes.legend(fontsize=8, framealpha=0.9)
  figure.savefig(path)


def _title(axes, text):
  axes.set_title(textwrap.fill(text, _LETTERS), fontsize=10, loc="left")


def _curve(axes, measured, name, label, colour, marker):
  if name in measured:
    axes.plot(*measured[name], color=colour, marker=marker, markersize=3, linewidth=1.2, label=label)
