"""The contestants by name."""

import dataclasses
import importlib
import importlib.util

from experiments.throughput import problem


@dataclasses.dataclass(frozen=True)
class Entry:
  """Description of a contestant."""

  module: str  # module of this package
  packages: tuple[str, ...] = ()  # required packages
  options: dict = dataclasses.field(default_factory=dict)  # keyword arguments of the module's `build`
  environment: dict = dataclasses.field(default_factory=dict)
  models: tuple[str, ...] = problem.MODELS

  def missing(self):
    """Returns the required packages that are not installed."""
    return [package for package in self.packages if importlib.util.find_spec(package) is None]

  def build(self, *args):
    """Builds the `Contestant` of a model in this process; see `ours.build` for the arguments."""
    return importlib.import_module(f"{__name__}.{self.module}").build(*args, **self.options)


ENTRIES = {
  "ae_jax": Entry("ours"),
  "ae_jax, bfloat16": Entry("ours", options={"compute_dtype": "bfloat16"}),
  "PyTorch eager": Entry("pytorch", ("torch",)),
  "PyTorch compile": Entry("pytorch", ("torch",), {"compiled": True}),
  "Keras on JAX": Entry("keras_models", ("keras",), environment={"KERAS_BACKEND": "jax"}),
  "Keras on TensorFlow": Entry("keras_models", ("keras", "tensorflow"), environment={"KERAS_BACKEND": "tensorflow"}),
  "Keras on torch": Entry("keras_models", ("keras", "torch"), environment={"KERAS_BACKEND": "torch"}),
  "pythae": Entry("pythae_models", ("torch", "pythae")),
  "Flax VAE example": Entry("flax_vae", models=("vae",)),
}

OURS = [name for name, entry in ENTRIES.items() if entry.module == "ours"]  # variants of ae_jax, not peers
