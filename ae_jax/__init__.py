"""An autoencoder laboratory in JAX and Flax: train with `python -m ae_jax.main`, use with `ae_jax.load`."""

import sys

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # `python -m ae_jax.main` and its like, before they are imported: Ctrl-C is a line at once
  from ae_jax.system import signals

  signals.watch()


def load(workdir, which="last", weights="auto"):
  """Returns the trained model in `workdir` as pure functions; see `ae_jax.api.load`."""
  from ae_jax import api  # here, so that `import ae_jax` does not wait for JAX

  return api.load(workdir, which, weights)
