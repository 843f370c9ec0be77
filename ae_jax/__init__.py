"""Autoencoders in JAX and Flax: train with `ae_jax.fit` or `ae_jax train`, load a trained model with `ae_jax.load`."""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from ae_jax import configs
from ae_jax.system import late_modules

if TYPE_CHECKING:
  from ae_jax.api import from_torch, load
  from ae_jax.estimators import AutoencoderDetector, AutoencoderTransformer
  from ae_jax.fitting import fit
  from ae_jax.sweep.fitting import fit_sweep
  from ae_jax.trained_run import Run

__all__ = ["AutoencoderDetector", "AutoencoderTransformer", "Run", "configs", "fit", "fit_sweep", "from_torch", "load"]
__version__ = "0.1.0"

# public name -> its module, which is imported on first use, so that `import ae_jax` does not wait for JAX
_LATE = {"load": "api", "from_torch": "api", "fit": "fitting", "fit_sweep": "sweep.fitting", "Run": "trained_run"}
_LATE |= {"AutoencoderDetector": "estimators", "AutoencoderTransformer": "estimators"}

# documented modules, which are imported on first use, too
_MODULES = ("api", "config", "data", "decisions", "errors", "estimators", "evaluators", "fitting", "models")
_MODULES += ("objectives", "ops", "sweep", "trained_run", "training")

if sys.argv[:1] == ["-m"]:  # for `python -m ae_jax.main` and similar commands: handle Ctrl-C before their slow imports
  from ae_jax.system import signals

  signals.watch()


_module = late_modules.importer(__name__, _MODULES)


def __getattr__(name: str) -> Any:
  if name in _LATE:
    return getattr(importlib.import_module(f"ae_jax.{_LATE[name]}"), name)
  return _module(name)


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__, *_MODULES})
