"""Measures the test error of each shipped config and compares it with PCA at the same latent size.

  TFDS_DATA_DIR=... python -m experiments.shipped_configs.run [CONFIG ...]

Trains each file in configs/ with three seeds on mnist_5k and on the full MNIST, each run by the command in its own
process. The sequence config is trained on heartbeats, and on ECG5000 if its training file is in ../shared/ucr. Existing
runs in runs/shipped_configs are not repeated. Prints the rows of the README's table and writes results.json, figure.png
(reconstructions of the convolutional autoencoder, full MNIST, seed 0) and the folder curves (config and evaluations of
the runs on mnist_5k, seed 0) to this folder. With names of configs as arguments, only these are trained and the other
results are kept.
"""

import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import ae_jax
from ae_jax.runs import logs, metric_names

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
RUNS = ROOT / "runs" / "shipped_configs"
ECG = pathlib.Path("..") / "shared" / "ucr" / "ECG5000"
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
DATA = {
  "sequence": ("heartbeats", "ucr"),
  "table": ("breast_cancer", "wine", "diabetes"),
}  # the other configs use mnist_5k and mnist
SEEDS = (0, 1, 2)
FIGURE_RUN = ("cnn", "mnist", 0)
CURVES = ("mnist_5k", 0)  # data and seed
OTHER_METRICS = {  # templates of the column "other metrics"
  "vae": "negative ELBO {test/loss} nats, KL {test/kl}, active units {test/active_units}",
  "cvae": "negative ELBO {test/loss} nats, KL {test/kl}, active units {test/active_units}",
  "vqvae": "perplexity of the codebook {test/codebook_perplexity} of 512",
  "sparse": "density of the latent code {test/density}, dead units {test/dead_units}",
  "contractive": "squared norm of the Jacobian {train/jacobian}",
  "denoising": "masking 0.25: {test/psnr_in/masking_0.25} -> {test/psnr_out/masking_0.25} dB",
  "unet": "gaussian 0.5: {test/psnr_in/gaussian_0.5} -> {test/psnr_out/gaussian_0.5} dB",
  "sequence": "AUROC {test/auroc}, PCA's {test/pca_auroc}",
}


def train(name, data, seed):
  """Trains one run by the command.

  Returns:
    The run folder, and the wall time of the command in seconds (None if the run existed already).
  """
  workdir = RUNS / f"{name}-{data}-{seed}"
  if (workdir / "pictures" / "reconstructions.png").exists():
    return workdir, None
  flags = [f"--config=configs/{name}.py:{data}", f"--config.seed={seed}", f"--workdir={workdir}"]
  flags += [f"--config.data.path={ECG}"] if data == "ucr" else []
  started = time.perf_counter()
  subprocess.run([sys.executable, "-m", "ae_jax.main", *flags], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
  return workdir, time.perf_counter() - started


def store_curve(workdir, folder):
  """Writes the config and the evaluations of a run to a folder that `ae_jax compare` reads."""
  folder.mkdir(parents=True, exist_ok=True)
  shutil.copy(workdir / "config.json", folder)
  evaluated = (record for record in logs.stream(workdir) if "test/loss" in record)
  lines = (json.dumps(record) + "\n" for record in evaluated)
  (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")


def spread(values, digits=2):
  """Returns a table cell "mean (minimum to maximum)"."""
  if len(values) == 1:
    return f"{values[0]:.{digits}f} (one seed)"
  return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def other_metrics(name, members):
  """Returns the cell of a config's other metrics, averaged over the seeds."""
  text = OTHER_METRICS.get(name, "")
  for metric in members[0]:
    values = [member[metric] for member in members]
    if f"{{{metric}}}" in text:
      text = text.replace(f"{{{metric}}}", f"{statistics.mean(values):.{3 if max(values) < 1 else 1}f}")
  return text


def row(result):
  """Returns a row of the README's table."""
  members = result["members"]
  nats = [member["test/nats"] for member in members if "test/nats" in member]
  durations = [member["seconds"] for member in members if member["seconds"]]
  cells = [
    f"`configs/{result['config']}.py:{result['data']}`",
    f"{members[0]['epoch']:.0f}",
    spread([member["test/squared_error"] for member in members]),
    f"{members[0][metric_names.pca_key(members[0])]:.2f}",
    spread(nats) if nats else "",
    other_metrics(result["config"], members),
    f"{statistics.median(durations):.0f} s" if durations else "",
  ]
  return f"| {' | '.join(cells)} |"


def measure(name, data, stored):
  """Returns the result of a config on a data set, with one member per seed.

  Runs that existed already keep the time in `stored`.
  """
  seconds = {member["seed"]: member["seconds"] for member in stored.get((name, data), {"members": []})["members"]}
  members = []
  for seed in SEEDS:
    workdir, duration = train(name, data, seed)
    if (data, seed) == CURVES:
      store_curve(workdir, HERE / "curves" / f"{name}-{data}")
    members.append({"seed": seed, "seconds": duration or seconds.get(seed), **ae_jax.load(workdir).metrics})
  return {"config": name, "data": data, "members": members}


def main(names):
  """Trains the missing runs, prints the table, and writes the results."""
  file = HERE / "results.json"
  stored = {(result["config"], result["data"]): result for result in json.loads(file.read_text(encoding="utf-8"))}
  for name in names or CONFIGS:
    for data in DATA.get(name, ("mnist_5k", "mnist")):
      if data != "ucr" or (ROOT / ECG).exists():
        stored[name, data] = measure(name, data, stored)
        print(row(stored[name, data]), flush=True)
        file.write_text(json.dumps([stored[key] for key in sorted(stored)], indent=1) + "\n", encoding="utf-8")
  name, data, seed = FIGURE_RUN
  picture = RUNS / f"{name}-{data}-{seed}" / "pictures" / "reconstructions.png"
  if picture.exists():
    shutil.copy(picture, HERE / "figure.png")


if __name__ == "__main__":
  main(sys.argv[1:])
