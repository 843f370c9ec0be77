"""The contestants by name."""

import dataclasses
import importlib
import importlib.util
import os

from experiments.throughput import problem

DETERMINISTIC = (
  f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"  # as `ae_jax train --deterministic`
)


@dataclasses.dataclass(frozen=True)
class Entry:
  """Description of a contestant."""

  module: str  # module of this package
  packages: tuple[str, ...] = ()  # required packages
  options: dict = dataclasses.field(default_factory=dict)  # keyword arguments of the module's `build`
  environment: dict = dataclasses.field(default_factory=dict)
  models: tuple[str, ...] = problem.MODELS
  only_gpu: bool = False  # equal to another contestant on a CPU

  def missing(self):
    """Returns the required packages that are not installed."""
    return [package for package in self.packages if importlib.util.find_spec(package) is None]

  def build(self, *args):
    """Builds the `Contestant` of a model in this process; see `ours.build` for the arguments."""
    return importlib.import_module(f"{__name__}.{self.module}").build(*args, **self.options)


def _keras(backend, packages):
  return Entry("keras_models", packages, environment={"KERAS_BACKEND": backend}, models=problem.ON_MNIST)


ENTRIES = {
  "ae_jax": Entry("ours"),
  "ae_jax, bfloat16": Entry("ours", options={"compute_dtype": "bfloat16"}),
  "ae_jax, deterministic": Entry("ours", environment={"XLA_FLAGS": DETERMINISTIC}, only_gpu=True),
  "PyTorch eager": Entry("pytorch", ("torch",)),
  "PyTorch compile": Entry("pytorch", ("torch",), {"compiled": True}),
  "PyTorch CUDA graphs": Entry("pytorch", ("torch",), {"compiled": True, "mode": "reduce-overhead"}, only_gpu=True),
  "Keras on JAX": _keras("jax", ("keras",)),
  "Keras on TensorFlow": _keras("tensorflow", ("keras", "tensorflow")),
  "Keras on torch": _keras("torch", ("keras", "torch")),
  "pythae": Entry("pythae_models", ("torch", "pythae")),
  "Flax VAE example": Entry("flax_vae", models=("vae",)),
}

OURS = [name for name, entry in ENTRIES.items() if entry.module == "ours"]  # variants of ae_jax, not peers
