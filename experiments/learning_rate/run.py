"""Compares rules that read a learning rate from a range test with trainings at twelve learning rates.

  python -m experiments.learning_rate.run
  python -m experiments.learning_rate.run dense:digits

For each config and data set, the range test runs once per seed, and the trainings of 300 steps run with the seed 0 and
the schedule of the config. results.json keeps the losses; `rules.py` compares the rules.
"""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from ae_jax import configs, data
from ae_jax.training import device_arrays, range_test, setup, steps
from ae_jax.training.state import init_state
from experiments.learning_rate.rules import RESULTS

CASES = ("dense:digits", "vae:digits", "cnn:digits", "table:breast_cancer", "vqvae:digits")
RATES = (1e-4, 3e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3e-2, 6e-2, 0.1, 0.3, 1.0)
SEEDS = (0, 1, 2)
STEPS, LAST = 300, 30  # steps of a training, and the number of last steps whose mean loss is its result


def experiment_of(case: str, seed: int) -> setup.Experiment:
  """Returns the experiment of a shipped config on a data set."""
  config = configs.get(case)
  with config.unlocked():
    config.seed, config.evaluators = seed, ()
  experiment = setup.build_experiment(config, 1)
  epochs = -(-STEPS // experiment.batch_schedule.steps)
  with config.unlocked():
    config.epochs = epochs
  return setup.build_experiment(config.lock(), 1, experiment.dataset)


def train(experiment: setup.Experiment) -> list[float]:
  """Returns the mean loss of the last steps of a training with each of the rates."""
  schedule, stage, model = experiment.batch_schedule, experiment.stages[0], experiment.model
  epochs = [schedule.batches(epoch) for epoch in stage.epochs]
  rows, weights = (np.concatenate(part)[:STEPS] for part in zip(*epochs, strict=True))
  columns = jax.tree.map(jnp.asarray, data.flat_columns(experiment.dataset, "train", model))
  init_key, noise_key = device_arrays.keys(schedule.seed)

  def losses(rate):
    optimizer = stage.optimizer_factory(learning_rate=rate)
    chunk = functools.partial(steps.train_chunk, model=model, objective=stage.objective, optimizer=optimizer)
    chunk = functools.partial(chunk, value_range=experiment.dataset.value_range, microbatches=stage.microbatches)
    state = init_state(init_key, model=model, optimizer=optimizer)
    return chunk(state, columns, rows, weights, noise_key)[1]["loss"]

  every = np.asarray(jax.jit(lambda rates: jax.lax.map(losses, rates))(jnp.float32(RATES)))
  return numbers(every[:, -LAST:].mean(1))


def numbers(values: np.ndarray) -> list[float | None]:
  """Returns numbers for JSON with six digits, and None for those that are not finite."""
  return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def main(cases: list[str]) -> None:
  """Measures the cases and updates results.json."""
  results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
  for case in cases or CASES:
    tests = [numbers(range_test.losses(experiment_of(case, seed))) for seed in SEEDS]
    losses = dict(zip(map(str, RATES), train(experiment_of(case, 0)), strict=True))
    rate = configs.get(case).optimizer.learning_rate
    results[case] = {"range tests": tests, "losses": losses, "rate": rate}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(case, losses, flush=True)


if __name__ == "__main__":
  main(sys.argv[1:])
