"""StableHLO files, which run with JAX alone on CPUs, GPUs and TPUs."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Shaped

from ae_jax.exporting.parts import Part

PLATFORMS = ("cpu", "cuda", "tpu")


def convert(part: Part) -> bytes:
  """Returns the serialized `jax.export.Exported` of a part for all `PLATFORMS`; it accepts any batch size."""
  from jax import export

  (batch,) = export.symbolic_shape("batch")
  function = jax.jit(part.function)
  return bytes(export.export(function, platforms=PLATFORMS)(*part.abstract_inputs(batch)).serialize())


def call(contents: bytes, inputs: Sequence[Shaped[np.ndarray, "examples ..."]]) -> Shaped[np.ndarray, "examples ..."]:
  """Runs a StableHLO file; `inputs` are in the order of `Part.inputs`."""
  from jax import export

  return np.asarray(export.deserialize(bytearray(contents)).call(*inputs))
