"""Times a sweep in one program, and single runs of some of its members one after the other, in a process of its own.

Prints the record as the last line. Argument: the keyword arguments of `measure` as JSON.
"""

import importlib
import json
import pathlib
import statistics
import sys
import tempfile
import time


def measure(model, data, epochs, latents, seeds):
  """Returns the seconds and the training speed of the sweep and of single runs.

  For the smallest and the largest latent size, two single runs are timed: the first seed, which compiles, and the
  second seed, which finds the compiled programs in the cache. The seconds of a loop over all members are extrapolated
  from the means of both kinds.
  """
  from ae_jax.sweep import run as sweep_run
  from ae_jax.training import train

  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    start = time.perf_counter()
    axes = [("model.latent", latents), ("seed", seeds)]
    rows = sweep_run.run(_config(model, data, epochs), axes, folder / "sweep")
    seconds = time.perf_counter() - start
    speed = _speed(folder / "sweep" / rows[0]["name"])
    singles, speeds = {"first": [], "second": []}, []
    for latent in sorted({min(latents), max(latents)}):
      for kind, seed in zip(singles, seeds, strict=False):
        run = folder / f"{latent},{seed}"
        start = time.perf_counter()
        train.train_and_evaluate(_config(model, data, epochs, latent, seed), run)
        singles[kind].append(time.perf_counter() - start)
        speeds.append(_speed(run))
  first, second = (statistics.mean(times) for times in singles.values())
  return {
    **{"model": model, "data": data, "epochs": epochs, "members": len(rows), "way": rows[0]["way"]},
    **{"sweep_seconds": seconds, "sweep_images_per_second": speed},
    **{"single_seconds": singles, "single_images_per_second": speeds},
    "loop_seconds": len(latents) * (first + (len(seeds) - 1) * second),
  }


def _config(model, data, epochs, latent=None, seed=0):
  """Returns the config of a run without evaluators, because a sweep runs none for its members."""
  from ae_jax import config as configs

  config = importlib.import_module(f"configs.{model}").get_config(data)
  config.epochs = config.checkpoint_every_epochs = epochs
  config.evaluators, config.seed = (), seed
  config.model.latent = latent or config.model.latent
  configs.check(config.lock())
  return config


def _speed(workdir):
  """Returns the images per second of a run, the median of the epochs after the first; for a sweep, of all members."""
  from ae_jax.runs import logs

  speeds = [record["images_per_second"] for record in logs.read(workdir) if "images_per_second" in record]
  return statistics.median(speeds[1:])


if __name__ == "__main__":
  print(json.dumps(measure(**json.loads(sys.argv[1]))))
