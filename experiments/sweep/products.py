"""Measures the time of the matrix products of a sweep, a lower bound for any sweep of these steps on these cores."""

import functools
import itertools
import json
import os
import subprocess
import sys
import time


def lower_bound(members):
  """Returns {"products": seconds} for training `members` dense autoencoders on mnist_5k, split over the cores."""
  command = [sys.executable, "-m", "experiments.sweep.products", str(members)]
  return json.loads(
    subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout.splitlines()[-1]
  )


def measure(members):
  """Prints the time of the matrix products of all steps, forward and backward, computed in this process."""
  from ae_jax.sweep import engines

  engines.use_cores(os.cpu_count())
  import jax
  import jax.numpy as jnp
  from jax import lax

  from ae_jax.system import distributed
  from ae_jax.training import setup
  from configs import dense

  experiment = setup.build_experiment(dense.get_config().lock(), 1)
  schedule, shape = experiment.batch_schedule, experiment.dataset.train.shape
  sizes = [shape[1] * shape[2], *experiment.config.model.widths, experiment.config.model.latent]
  sizes += sizes[-2::-1]
  mesh = distributed.mesh()
  sharding = distributed.replicated(mesh)
  key = jax.random.key(0)
  examples = distributed.put(jax.random.uniform(key, (schedule.steps, schedule.padded_batch_size, sizes[0])), sharding)
  weights = [distributed.put(0.05 * jax.random.normal(key, pair), sharding) for pair in itertools.pairwise(sizes)]
  steps = members * experiment.config.epochs * schedule.steps // mesh.size

  def train(weights, examples):
    def step(number, _):
      network = lambda weights: functools.reduce(jnp.matmul, weights, examples[number % schedule.steps])
      output, backward = jax.vjp(network, weights)
      return backward(output)[0]

    return lax.fori_loop(0, steps, step, weights)

  compiled = distributed.jit(train, (weights, examples), sharding)
  start = time.perf_counter()
  jax.block_until_ready(compiled(weights, examples))
  print(json.dumps({"products": round(time.perf_counter() - start, 1)}))


if __name__ == "__main__":
  measure(int(sys.argv[1]))
