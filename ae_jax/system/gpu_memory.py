"""Memory of GPUs that a process reserves. JAX reads it from the environment when it starts."""

import os
import sys

from ae_jax import errors

_SHARE, _PREALLOCATE = "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_PREALLOCATE"
_OLD_SHARE = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # JAX still reads it, and refuses both names together
VARIABLES = (_SHARE, _OLD_SHARE, _PREALLOCATE)


def configure(share: float | None, preallocate: bool | None) -> None:
  """Sets the memory that this process may use of each GPU, and whether it is reserved at the start.

  Args:
    share: `--gpu_memory`, a fraction of GPU memory in (0, 1]; None for the default of JAX.
    preallocate: `--preallocate`; None for the default of JAX, which reserves the memory.

  Raises:
    UserError: The fraction is invalid, the environment has another value, or JAX has already started.
  """
  if share is not None:
    if not 0 < share <= 1:
      raise errors.UserError(f"--gpu_memory={share}: must be a fraction of GPU memory in (0, 1]")
    name = _OLD_SHARE if os.environ.get(_OLD_SHARE) else _SHARE
    _set(f"--gpu_memory={share}", name, str(share), lambda text: float(text) == share)
  if preallocate is not None:
    is_same = lambda text: (text not in ("false", "False", "0")) == preallocate  # as JAX reads it
    _set(f"--preallocate={preallocate}", _PREALLOCATE, str(preallocate).lower(), is_same)


def _set(flag, name, text, is_same):
  given = os.environ.get(name)
  if given:
    try:
      fits = is_same(given)
    except ValueError:
      fits = False
    if not fits:
      raise errors.UserError(f"{flag}: the environment variable {name} is {given!r}; remove the flag or the variable")
    return
  if (bridge := sys.modules.get("jax._src.xla_bridge")) and bridge.backends_are_initialized():
    raise errors.UserError(f"{flag}: has no effect, because the config file starts JAX; remove the use of JAX from it")
  os.environ[name] = text
