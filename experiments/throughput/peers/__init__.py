"""The contestants: name -> how to start one."""

import dataclasses
import importlib
import importlib.util

from experiments.throughput import problem


@dataclasses.dataclass(frozen=True)
class Entry:
  """A contestant before its process starts."""

  module: str  # of this package
  needs: tuple[str, ...] = ()  # packages
  options: dict = dataclasses.field(default_factory=dict)  # of the module's `build`
  environment: dict = dataclasses.field(default_factory=dict)
  models: tuple[str, ...] = problem.MODELS

  def missing(self):
    """The packages that are not installed."""
    return [package for package in self.needs if importlib.util.find_spec(package) is None]

  def build(self, *args):
    """The `Contestant` of a model, in the process that is to run it; see `ours.build` for the arguments."""
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

OURS = [name for name, entry in ENTRIES.items() if entry.module == "ours"]  # none of them is a peer
