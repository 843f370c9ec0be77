"""Random hyperparameter search with Ray Tune, an example of a search that is not a grid.

  pip install -e '.[ray]' && python -m experiments.sweep.search

Trains 16 dense autoencoders on digits (two minutes on 2 cores). To let Optuna propose the points, `pip install optuna`
and set `search_alg=tune.search.optuna.OptunaSearch()` in `TuneConfig`. To search on a cluster, call `ray.init("auto")`
first.
"""

import pathlib

from ray import tune

from ae_jax import config as configs
from ae_jax.training import train
from configs import dense

SPACE = {
  "optimizer.learning_rate": tune.loguniform(1e-4, 3e-2),
  "optimizer.weight_decay": tune.loguniform(1e-6, 1e-1),
  "model.latent": tune.choice([4, 8, 16]),
}


def trial(point):
  """Trains one run at a point of the search space, in the folder of its trial, and returns its test metrics."""
  config = dense.get_config("digits")
  config.update_from_flattened_dict({**point, "model.widths": (64,), "epochs": 20})
  configs.check(config.lock())
  metrics = train.train_and_evaluate(config, pathlib.Path(tune.get_context().get_trial_dir()) / "run")
  return {name.removeprefix("test/"): value for name, value in metrics.items()}


def main():
  """Runs the search and prints the best point."""
  tune_config = tune.TuneConfig(metric="squared_error", mode="min", num_samples=16)
  results = tune.Tuner(tune.with_resources(trial, {"cpu": 1}), param_space=SPACE, tune_config=tune_config).fit()
  best = results.get_best_result()
  print(f"{best.metrics['squared_error']:.3f} with {best.config}: {best.path}/run")


if __name__ == "__main__":
  main()
