"""Autoencoders in JAX and Flax: train with `ae_jax train`, load a trained model with `ae_jax.load`."""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  import ae_jax.api

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # for `python -m ae_jax.main` and similar commands: handle Ctrl-C before their slow imports
  from ae_jax.system import signals

  signals.watch()


def load(workdir: str | os.PathLike[str], which: str = "last", weights: str = "auto") -> "ae_jax.api.Run":
  """Returns the trained model in a run folder; see `ae_jax.api.load`."""
  from ae_jax import api  # imported late, because `import ae_jax` must not wait for JAX

  return api.load(workdir, which, weights)
