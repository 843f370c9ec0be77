"""Sizes of the measurements on a GPU."""

import dataclasses

from experiments.sweep.run import LATENTS, SEEDS


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes of all measurements."""

  models: tuple[str, ...] = ("cnn", "dense")
  batches: tuple[int, ...] = (256, 4096)
  examples: int = 60_000  # images of an epoch: mnist_5k, repeated
  rounds: int = 5
  seconds: float = 0.5  # approximate length of a turn
  sides: tuple[int, ...] | None = None  # of the matrices of the products; None: those of `measure.PRODUCTS`
  data: str = "mnist_5k"  # of the sweep and of the killed run
  latents: tuple[int, ...] = LATENTS
  seeds: tuple[int, ...] = SEEDS
  sweep_epochs: int = 20
  resumed_model: str = "cnn"
  resumed_epochs: int = 20


# For a CPU: all parts in a minute.
TINY = Sizes(
  models=("dense",),
  batches=(8,),
  examples=64,
  rounds=2,
  seconds=0.01,
  sides=(64,),
  data="digits",
  latents=(2,),
  seeds=(0, 1),
  sweep_epochs=2,
  resumed_model="dense",
  resumed_epochs=20,
)
