"""An autoencoder laboratory in JAX and Flax: train with `python -m ae_jax.main`, use with `ae_jax.load`."""

__version__ = "0.1.0"


def load(workdir, which="last"):
  """The trained model in `workdir` as pure functions; see `ae_jax.runs.load`."""
  from ae_jax import runs  # here, so that `import ae_jax` does not wait for JAX

  return runs.load(workdir, which)
