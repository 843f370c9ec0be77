"""Trains one autoencoder for each combination of latent size, seed and hyperparameter values.

  ae_jax sweep --config=cnn --latents=2,4,8,16,32,64 --seeds=3 --workdir=runs/sweep
  ae_jax sweep --config=vae --seeds=3 --grid objective.beta=0.5,1,2 --workdir=runs/beta
  python -m ae_jax.sweep --config=configs/dense.py:digits --latents=2,4,8 --halving=2

Each autoencoder is a member of the sweep and has its own run folder, in the format of `ae_jax train`. Members that
differ only in latent size, seed and numeric hyperparameters train together in one compiled program. Run the same
command again to resume an interrupted sweep, or add values to the command to add members.
"""

import os
import pathlib
from collections.abc import Callable

from absl import flags
from ml_collections import ConfigDict

from ae_jax import cli

WAYS = {"auto": "auto", "in_turn": "in turn", "together": "side by side"}

flags.adopt_module_key_flags(cli)
_LATENTS = flags.DEFINE_string(
  "latents", None, "Latent sizes: NUMBER,NUMBER,...; default: the latent size of the config."
)
_SEEDS = flags.DEFINE_integer(
  "seeds", 1, "Number of seeds: the seed of the config and the integers that follow it.", lower_bound=1
)
_GRID = flags.DEFINE_multi_string(
  "grid", [], "Values of a numeric config key: KEY=NUMBER,NUMBER,...; may be repeated for other keys."
)
_HALVING = flags.DEFINE_integer(
  "halving",
  0,
  "Factor N of successive halving: after each comparison, the best 1/N of the --grid settings continue; 0: no halving.",
)
_WAY = flags.DEFINE_enum(
  "way",
  "auto",
  list(WAYS),
  "How a device computes its members: in_turn (one after the other), together (vectorised by jax.vmap), or auto (in "
  "long training, measures both and uses the faster one).",
)
_BUDGET = flags.DEFINE_float(
  "budget_gib", 0.0, "Memory limit per device, in GiB, for the members that train together; 0: all free memory.", 0.0
)
_ENGINE = flags.DEFINE_enum(
  "engine",
  "local",
  ["local", "ray", "slurm"],
  "Where members train: in this process (local), in Ray tasks or in Slurm jobs.",
)
_ADDRESS = flags.DEFINE_string("address", "", "Address of a Ray cluster; default: start a cluster on this machine.")
_SHARES = flags.DEFINE_integer(
  "shares",
  0,
  "Number of Ray tasks or Slurm jobs; 0: one Ray task per GPU (per machine if there are no GPUs), or one Slurm job.",
)
_SLURM = flags.DEFINE_multi_string(
  "slurm", [], "Option of submitit: KEY=VALUE, such as slurm_partition=gpu; may be repeated."
)


def main(config: ConfigDict, workdir: Callable[[ConfigDict], pathlib.Path]) -> None:
  """Trains the sweep that the flags describe."""
  from ae_jax import config as configs
  from ae_jax.sweep import engines, grid, trainer
  from ae_jax.sweep import run as sweep_run

  with cli.user_errors():
    configs.check(config)
    folder = workdir(config)
    _choose_devices(engines)
    latents = [] if _LATENTS.value is None else [grid.parse_axis("latents", f"model.latent={_LATENTS.value}")]
    seeds = [("seed", [config.seed + number for number in range(_SEEDS.value)])]
    axes = latents + seeds + [grid.parse_axis("grid", text) for text in _GRID.value]
    options = trainer.SweepOptions(WAYS[_WAY.value], _BUDGET.value)
    sweep_run.run(config, axes, folder, options, _HALVING.value, _engine(engines, folder))


def _choose_devices(engines):
  """Makes each CPU core a JAX device; restricts this process to CPUs if Ray or Slurm workers train the members."""
  import jax
  from jax.extend import backend

  backend.clear_backends()  # a config file may have started JAX, which fixes the devices
  engines.use_cores(os.cpu_count())
  if _ENGINE.value != "local":
    jax.config.update("jax_platforms", "cpu")


def _engine(engines, folder):
  """Returns a function that starts the backend named by the flag --engine; its type is `sweep.run.StartEngine`."""
  if _ENGINE.value == "ray":
    return lambda received, _: engines.ray(received, _ADDRESS.value, _SHARES.value)
  if _ENGINE.value == "slurm":
    options = engines.parse_options(_SLURM.value)
    return lambda received, _: engines.slurm(received, folder, _SHARES.value, options)
  return engines.local


def run() -> None:
  """Runs `ae_jax sweep`."""
  cli.run(main)


if __name__ == "__main__":
  run()
