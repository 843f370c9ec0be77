"""Trains one autoencoder per latent size, seed and hyperparameter value, many of them in one compiled program.

  ae_jax sweep --config=cnn --latents=2,4,8,16,32,64 --seeds=3 --workdir=runs/sweep
  ae_jax sweep --config=vae --seeds=3 --grid objective.beta=0.5,1,2 --workdir=runs/beta
  python -m ae_jax.sweep --config=configs/dense.py:digits --latents=2,4,8 --halving=2

Each member of the sweep has a run folder, like those of `ae_jax train`. The same command continues an interrupted
sweep; with more values it adds members.
"""

import os
import pathlib
from collections.abc import Callable

from absl import flags
from ml_collections import ConfigDict

from ae_jax import cli

WAYS = {"auto": "auto", "in_turn": "in turn", "together": "side by side"}

flags.adopt_module_key_flags(cli)
_LATENTS = flags.DEFINE_string("latents", None, "Latent sizes, NUMBER,NUMBER,...; default: that of the config.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "Number of seeds, counted up from that of the config.", lower_bound=1)
_GRID = flags.DEFINE_multi_string("grid", [], "KEY=NUMBER,NUMBER,... for a key of the config; may be repeated.")
_HALVING = flags.DEFINE_integer(
  "halving", 0, "Successive halving: one in this many settings continues after each rung."
)
_WAY = flags.DEFINE_enum(
  "way", "auto", list(WAYS), "How a device computes its members; auto measures which is faster where that can pay."
)
_BUDGET = flags.DEFINE_float(
  "budget_gib", 0.0, "Memory of a device for one pack of members, in GiB; 0: all that is free.", 0.0
)
_ENGINE = flags.DEFINE_enum("engine", "local", ["local", "ray", "slurm"], "Where members are trained.")
_ADDRESS = flags.DEFINE_string("address", "", "Address of a Ray cluster; default: start one on this machine.")
_SHARES = flags.DEFINE_integer("shares", 0, "Number of tasks or jobs, with --engine; default: one per GPU or machine.")
_SLURM = flags.DEFINE_multi_string("slurm", [], "KEY=VALUE for submitit, such as slurm_partition=gpu; may be repeated.")


def main(config: ConfigDict, workdir: Callable[[ConfigDict], pathlib.Path]) -> None:
  """Trains the sweep as the flags say."""
  from ae_jax import config as configs
  from ae_jax.sweep import engines, grid, trainer
  from ae_jax.sweep import run as sweep_run

  with cli.user_errors():
    configs.check(config)
    place = workdir(config)
    _choose_devices(engines)
    latents = [] if _LATENTS.value is None else [grid.parse_axis("latents", f"model.latent={_LATENTS.value}")]
    seeds = [("seed", [config.seed + number for number in range(_SEEDS.value)])]
    axes = latents + seeds + [grid.parse_axis("grid", text) for text in _GRID.value]
    options = trainer.SweepOptions(WAYS[_WAY.value], _BUDGET.value)
    sweep_run.run(config, axes, place, options, _HALVING.value, _engine(engines, place))


def _choose_devices(engines):
  """Chooses the devices of this process: all, or only CPU cores if other processes do the work."""
  import jax

  engines.use_cores(os.cpu_count())
  if _ENGINE.value != "local":
    jax.config.update("jax_platforms", "cpu")


def _engine(engines, place):
  """Returns the engine that the flags name, a function (received, report)."""
  if _ENGINE.value == "ray":
    return lambda received, _: engines.ray(received, _ADDRESS.value, _SHARES.value)
  if _ENGINE.value == "slurm":
    options = engines.parse_options(_SLURM.value)
    return lambda received, _: engines.slurm(received, place, _SHARES.value, options)
  return engines.local


def run() -> None:
  """Runs the command."""
  cli.run(main)


if __name__ == "__main__":
  run()
