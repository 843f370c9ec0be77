"""Repairs of older versions of JAX. `ae_jax.models` calls `install` once, when it is imported."""

from jax import lax
from jax.interpreters import batching


def install() -> None:
  """Mends JAX 0.7.2, which refuses `vmap` of the derivatives of convolutions whose arrays lie on a mesh.

  Newer versions keep this rule elsewhere, and nothing is changed there.
  """
  rules, primitive = batching.primitive_batchers, lax.conv_general_dilated_p
  if isinstance(rules, dict) and primitive in rules:
    rules[primitive] = _on_any_mesh(rules[primitive])


def _on_any_mesh(rule):
  """Returns a batching rule of a convolution that leaves the sharding of the result to the compiler."""
  return lambda arrays, axes, *, out_sharding, **options: rule(arrays, axes, out_sharding=None, **options)
