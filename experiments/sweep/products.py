"""What the matrix products of a sweep take by themselves: no sweep of the same steps on these cores can be faster."""

import functools
import itertools
import json
import os
import subprocess
import sys
import time


def floor(members):
  """{"products": seconds} of so many dense autoencoders' training on mnist_5k, a core to each half of the members."""
  command = [sys.executable, "-m", "experiments.sweep.products", str(members)]
  return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def measure(members):
  """The same in this process: the products of each step, forwards and backwards, and nothing else of it."""
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
  whole = distributed.replicated(mesh)
  generator = jax.random.key(0)
  examples = distributed.put(
    jax.random.uniform(generator, (schedule.steps, schedule.padded_batch_size, sizes[0])), whole
  )
  weights = [distributed.put(0.05 * jax.random.normal(generator, pair), whole) for pair in itertools.pairwise(sizes)]
  steps = members * experiment.config.epochs * schedule.steps // mesh.size

  def train(weights, examples):
    def step(number, _):
      network = lambda weights: functools.reduce(jnp.matmul, weights, examples[number % schedule.steps])
      made, backwards = jax.vjp(network, weights)
      return backwards(made)[0]

    return lax.fori_loop(0, steps, step, weights)

  compiled = distributed.jit(train, (weights, examples), whole)
  begun = time.perf_counter()
  jax.block_until_ready(compiled(weights, examples))
  print(json.dumps({"products": round(time.perf_counter() - begun, 1)}))


if __name__ == "__main__":
  measure(int(sys.argv[1]))
