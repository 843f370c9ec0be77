"""Workarounds for older versions of JAX; `ae_jax.models` calls `install` when it is imported."""

from collections.abc import Callable
from typing import Any

from jax import lax
from jax.interpreters import batching


def install() -> None:
  """Patches JAX 0.7.2, which rejects `vmap` of the derivatives of convolutions if the arrays are on a device mesh.

  Newer JAX versions register the batching rule of convolutions elsewhere; there, `install` does nothing.
  """
  rules, primitive = batching.primitive_batchers, lax.conv_general_dilated_p
  if isinstance(rules, dict) and primitive in rules:
    rules[primitive] = _on_any_mesh(rules[primitive])


def _on_any_mesh(rule: Callable[..., Any]) -> Callable[..., Any]:
  """Returns the batching rule of a convolution, changed to let the compiler choose the sharding of the result."""
  return lambda arrays, axes, *, out_sharding, **options: rule(arrays, axes, out_sharding=None, **options)
