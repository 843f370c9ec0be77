"""Trains a grid of autoencoders: every latent size, seed and number of a config, many of them by one compiled program.

  python -m ae_jax.sweep --config=configs/cnn.py --latents=2,4,8,16,32,64 --seeds=3 --workdir=runs/sweep
  python -m ae_jax.sweep --config=configs/vae.py --seeds=3 --grid objective.beta=0.5,1,2 --workdir=runs/beta

Each member leaves the folder of a run, as python -m ae_jax.main does. The same command again continues a sweep that was
interrupted; with more values it adds members to one.
"""

import os

from absl import flags

from ae_jax import cli

WAYS = {"auto": "auto", "in_turn": "in turn", "together": "side by side"}

flags.adopt_module_key_flags(cli)
_LATENTS = flags.DEFINE_string("latents", None, "Sizes of the code, NUMBER,NUMBER,...; default: that of the config.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "How many seeds, from that of the config on.", lower_bound=1)
_GRID = flags.DEFINE_multi_string("grid", [], "KEY=NUMBER,NUMBER,... for a key of the config; any number of times.")
_HALVING = flags.DEFINE_integer("halving", 0, "Successive halving: one in so many settings goes on after each rung.")
_WAY = flags.DEFINE_enum(
  "way", "auto", list(WAYS), "How the members of a device are computed; auto measures it where that can pay."
)
_BUDGET = flags.DEFINE_float("budget_gib", 0.0, "Of a device's memory, for a pack of members; 0: what is there.", 0.0)
_ENGINE = flags.DEFINE_enum("engine", "local", ["local", "ray", "slurm"], "Where members are trained.")
_ADDRESS = flags.DEFINE_string("address", "", "Of a Ray cluster; default: one on this machine.")
_SHARES = flags.DEFINE_integer("shares", 0, "Tasks or jobs, with --engine; default: one for each GPU, or machine.")
_SLURM = flags.DEFINE_multi_string("slurm", [], "KEY=VALUE for submitit, such as slurm_partition=gpu; any number.")


def main(config, workdir):
  """The flags, one call."""
  from ae_jax import config as configs
  from ae_jax.sweep import engines, grid, trainer
  from ae_jax.sweep import run as sweep_run

  with cli.in_a_line():
    configs.check(config)
    place = workdir(config)
    _choose_devices(engines)
    latents = [] if _LATENTS.value is None else [grid.axis("latents", f"model.latent={_LATENTS.value}")]
    seeds = [("seed", [config.seed + number for number in range(_SEEDS.value)])]
    axes = latents + seeds + [grid.axis("grid", text) for text in _GRID.value]
    options = trainer.SweepOptions(WAYS[_WAY.value], _BUDGET.value)
    sweep_run.run(config, axes, place, options, _HALVING.value, _engine(engines, place))


def _choose_devices(engines):
  """The devices of this process: all there are, or none but cores where others do the work."""
  import jax

  engines.use_cores(os.cpu_count())
  if _ENGINE.value != "local":
    jax.config.update("jax_platforms", "cpu")


def _engine(engines, place):
  """The engine that the flags name, a function (received, report)."""
  if _ENGINE.value == "ray":
    return lambda received, _: engines.ray(received, _ADDRESS.value, _SHARES.value)
  if _ENGINE.value == "slurm":
    options = engines.options(_SLURM.value)
    return lambda received, _: engines.slurm(received, place, _SHARES.value, options)
  return engines.local


if __name__ == "__main__":
  cli.run(main)
