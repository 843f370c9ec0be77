"""Flags of `ae_jax apply` and `ae_jax evaluate` that name arrays, or the column of labels, of new examples."""

from collections.abc import Mapping

from absl import flags

flags.disclaim_key_flags()  # the flags belong to the module that calls `define`: its --help lists them

_HELP = {
  "array": "Array of --data with the examples; default: the only one that is compatible with the run.",
  "target": "Array of --data with the targets of the examples; default: target, or target_test for x_test.",
  "mask": "Array of --data of 1 for observed elements; default: mask, or mask_test for x_test.",
}


def define(label: str) -> dict[str, flags.FlagHolder]:
  """Declares --array, --label, --target and --mask, and returns them by name; `label` is the help of --label."""
  return {name: flags.DEFINE_string(name, "", text) for name, text in ({"label": label} | _HELP).items()}


def values(defined: Mapping[str, flags.FlagHolder]) -> dict[str, str]:
  """Returns {name: value} of the flags that `define` returned."""
  return {name: flag.value for name, flag in defined.items()}
