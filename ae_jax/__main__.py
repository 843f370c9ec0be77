"""Trains, sweeps, evaluates, compares and describes autoencoders.

  ae_jax train --config=cnn --workdir=runs/cnn
  ae_jax sweep --config=dense:digits --latents=2,4,8,16 --workdir=runs/sweep
  ae_jax evaluate --workdir=runs/cnn

Each command also runs as a module: `python -m ae_jax.main` is `ae_jax train`.
"""

import difflib
import importlib
import sys

COMMANDS = {
  "train": ("ae_jax.main", "Train an autoencoder."),
  "sweep": ("ae_jax.sweep.__main__", "Train one autoencoder per latent size, seed and hyperparameter."),
  "evaluate": ("ae_jax.evaluate", "Evaluate a trained run again and update its report."),
  "apply": ("ae_jax.apply", "Apply a trained run to new files: scores, flags, latents, reconstructions."),
  "embed": ("ae_jax.embed", "Write the latents of the data set of a run."),
  "export": ("ae_jax.export", "Write a trained model as ONNX, StableHLO and safetensors files."),
  "compare": ("ae_jax.compare", "Compare several runs in a table and an HTML page."),
  "data": ("ae_jax.inspect_data", "Print what a file or folder of data contains, and how to train on it."),
  "describe": ("ae_jax.describe", "Print the keys of a config, and the size and cost of its model."),
  "configs": ("ae_jax.config.__main__", "List the shipped configs."),
}


def main(argv: list[str] | None = None) -> None:
  """Runs the command whose name is the first argument."""
  program, *arguments = sys.argv if argv is None else argv
  if not arguments or arguments[0] in ("--help", "-h", "help"):
    print(_usage())
    return
  name, *rest = arguments
  if name not in COMMANDS:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(COMMANDS)}"
    print(f"ae_jax: unknown command {name!r}; {hint}", file=sys.stderr)
    sys.exit(2)
  from ae_jax.system import signals

  signals.watch()  # before slow imports, so Ctrl-C always ends the command with one line
  sys.argv = [f"{program} {name}", *rest]
  importlib.import_module(COMMANDS[name][0]).run()


def _usage():
  width = max(map(len, COMMANDS))
  lines = [f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items()]
  return "\n".join([__doc__.strip(), "", "Commands (each has --help):", *lines])


if __name__ == "__main__":
  main()
