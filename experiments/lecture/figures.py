"""Figures of the results, one for each claim in `FIGURES`."""

import statistics

import numpy as np
from matplotlib.figure import Figure


def draw(results, folder):
  """Draws the figure of each claim in `results` that has one."""
  for name, function in FIGURES.items():
    if name in results:
      rows = results[name]["rows"]
      if name != "manifolds" or "picture" in rows[0]:
        figure = Figure(figsize=(8, 3.4) if name != "manifolds" else (9, 6), layout="constrained", dpi=130)
        function(figure, rows)
        figure.savefig(folder / f"{name}.png")


def latent_sizes(figure, rows):
  """Plots squared error against latent size for the autoencoder (mean and range of the seeds) and PCA."""
  (row,) = rows
  axes = figure.subplots()
  axes.plot(row["latent"], row["pca"], "--", color="tab:gray", label="PCA")
  means = [statistics.mean(values) for values in row["dense"]]
  axes.plot(row["latent"], means, color="tab:orange", marker="o", markersize=3, label="dense autoencoder, 3 seeds")
  axes.fill_between(
    row["latent"], *zip(*[(min(v), max(v)) for v in row["dense"]], strict=True), alpha=0.3, color="tab:orange"
  )
  axes.set(xscale="log", yscale="log", xlabel="latent size", ylabel="squared error per test image")
  axes.set_xticks(row["latent"], row["latent"])
  axes.grid(alpha=0.2)
  axes.legend()


def manifolds(figure, rows):
  """Plots each sheet in space, its latent code and its PCA, coloured by a coordinate of the sheet."""
  for number, row in enumerate(rows):
    picture = row["picture"]
    colours = np.asarray(picture["sheet"])[:, 0]
    space = figure.add_subplot(len(rows), 3, 3 * number + 1, projection="3d")
    space.scatter(*np.asarray(picture["points"]).T, c=colours, s=4, cmap="turbo")
    space.set(xticks=[], yticks=[], zticks=[], title=picture["name"])
    for column, (key, title) in enumerate({"code": "latent code of the autoencoder", "pca": "PCA"}.items()):
      axes = figure.add_subplot(len(rows), 3, 3 * number + 2 + column)
      axes.scatter(*np.asarray(picture[key]).T, c=colours, s=4, cmap="turbo")
      axes.set(xticks=[], yticks=[], title=title)


def skips(figure, rows):
  """Plots errors with the right latent codes and with those of other digits, and the PSNR of denoised digits."""
  clean, noisy = rows
  left, right = figure.subplots(1, 2)
  kinds = {"additive": "with the skip", "none": "without"}
  for offset, (key, label) in enumerate(
    {"squared_error": "own latent code", "shuffled": "latent code of another digit"}.items()
  ):
    positions = np.arange(2) + 0.36 * offset
    _bars(left, positions, [clean[key][kind] for kind in kinds], label)
  left.set(ylabel="squared error per test image, clean input", yscale="log")
  left.set_xticks(np.arange(2) + 0.18, kinds.values())
  left.legend()
  _bars(right, np.arange(2), [noisy["psnr"][kind] for kind in kinds], None)
  right.set(ylabel="PSNR of denoised digits, dB", ylim=(0.9 * min(min(v) for v in noisy["psnr"].values()), None))
  right.set_xticks(np.arange(2), kinds.values())


def checkerboards(figure, rows):
  """Plots the spectra of each decoder's output before training and of its error after training."""
  (row,) = rows
  titles = {"untrained": "output before training", "trained": "error after 8 epochs"}
  for axes, (key, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
    for name, power in row[f"{key}_spectrum"].items():
      axes.plot(np.arange(1, 14) / 27, power[1:], marker="o", markersize=3, linewidth=1.2, label=name)
    axes.axvline(1 / 3, color="tab:gray", linestyle=":", label="a period of 3 pixels")
    axes.set(yscale="log", xlabel="cycles per pixel", ylabel="power", title=title)
    axes.set_ylim(max(1e-6, axes.get_ylim()[0]), None)
  axes.legend(fontsize=6)


def permuted_pixels(figure, rows):
  """Plots the errors of both models on images and on images with permuted pixels."""
  (row,) = rows
  axes = figure.subplots()
  for offset, (suffix, label) in enumerate({"": "images", ", permuted": "pixels permuted"}.items()):
    _bars(axes, np.arange(2) + 0.36 * offset, [row[name + suffix] for name in ("dense", "cnn")], label)
  axes.set_xticks(np.arange(2) + 0.18, ["dense", "cnn"])
  axes.set(ylabel="squared error per test image")
  axes.legend()


def tied_weights(figure, rows):
  """Plots the errors with tied and untied weights against the number of training images."""
  (row,) = rows
  axes = figure.subplots()
  for kind, colour in {"tied": "tab:blue", "untied": "tab:orange"}.items():
    sizes = [name.split(", ")[1] for name in row if name.startswith(f"{kind}, ")]
    values = [row[f"{kind}, {size}"] for size in sizes]
    image_counts = [int(size.replace(",", "")) for size in sizes]
    axes.plot(image_counts, [statistics.mean(v) for v in values], marker="o", markersize=3, color=colour, label=kind)
    axes.fill_between(image_counts, [min(v) for v in values], [max(v) for v in values], alpha=0.3, color=colour)
  axes.set(xscale="log", yscale="log", xlabel="training images", ylabel="squared error per test image")
  axes.set_xticks(image_counts, sizes)
  axes.minorticks_off()
  axes.legend()


def _bars(axes, positions, values, label):
  """Draws bars of means with whiskers from the minimum to the maximum."""
  means = [statistics.mean(v) for v in values]
  whiskers = [
    [m - min(v) for m, v in zip(means, values, strict=True)],
    [max(v) - m for m, v in zip(means, values, strict=True)],
  ]
  axes.bar(positions, means, 0.34, yerr=whiskers, capsize=3, label=label)


FIGURES = {
  "latent_sizes": latent_sizes,
  "manifolds": manifolds,
  "skips": skips,
  "checkerboards": checkerboards,
  "permuted_pixels": permuted_pixels,
  "tied_weights": tied_weights,
}
