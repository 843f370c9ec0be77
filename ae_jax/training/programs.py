"""Compiles functions, reuses compiled programs within a process, and counts compilations."""

import collections
import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import jax
from jaxtyping import PyTree

from ae_jax.system import distributed, malloc

_MOST_KEPT = 64  # maximum number of compiled programs that `reused` keeps
_kept: collections.OrderedDict[Hashable, Callable] = collections.OrderedDict()
# Settings in `jax.config` that affect traced or compiled programs, or random keys. Context managers such as
# `jax.default_matmul_precision` also change these settings.
_SETTINGS = (
  "jax_default_matmul_precision",
  "jax_enable_x64",
  "jax_numpy_dtype_promotion",
  "jax_numpy_rank_promotion",
  "jax_default_device",
  "jax_default_prng_impl",
  "jax_random_seed_offset",
  "jax_threefry_partitionable",
  "jax_softmax_custom_jvp",
  "jax_debug_nans",
  "jax_debug_infs",
  "jax_optimization_level",
)
_is_reusing = contextvars.ContextVar("is_reusing", default=False)  # whether this thread reuses programs; see `reused`


def compile_program(
  function: Callable,
  arguments: Sequence[Any],
  results: PyTree,
  *,
  mode: Callable = distributed.jit,
  donate: tuple[int, ...] = (),
  **static: Any,
) -> Callable:
  """Compiles a function.

  The compiled function accepts only arguments with the shapes, dtypes and shardings of `arguments`.

  Args:
    function: The function to compile.
    arguments: Arrays, or their shapes, dtypes and shardings.
    results: Shardings of the results, as a pytree or a prefix of it.
    mode: A value of `distributed.MODES`, or `distributed.auto`.
    donate: Positions of the arguments whose memory the results may reuse.
    **static: Keyword arguments that are fixed at compilation.
  """
  make = lambda: mode(functools.partial(function, **static), arguments, results, donate)
  if _is_reusing.get():
    key = _key((settings(), function, mode, tuple(donate), static, _signature(arguments), jax.tree.flatten(results)))
    if _has_hash(key):
      return _program(key, make)
  malloc.trim()  # the memory of a run peaks inside a compilation: 50 MiB less if memory freed earlier is returned first
  program = make()
  malloc.trim()
  return program


@contextlib.contextmanager
def reused() -> Iterator[None]:
  """Context manager in which this thread reuses programs that this process has compiled for equal arguments.

  The settings of JAX must be equal, too (see `settings`). Many short trainings with arrays of the same shapes then
  trace and compile only once. The last `_MOST_KEPT` programs stay in memory.
  """
  token = _is_reusing.set(True)
  try:
    yield
  finally:
    _is_reusing.reset(token)


def settings() -> tuple[Any, ...]:
  """Returns the settings of JAX on which programs and random keys depend."""
  return tuple(getattr(jax.config, name) for name in _SETTINGS)


def _has_hash(key: Any) -> bool:
  """Returns whether a key is hashable; it is not if a static argument has no hash, e.g. if it contains arrays."""
  try:
    hash(key)
  except TypeError:
    return False
  return True


def _program(key: Hashable, make: Callable[[], Callable]) -> Callable:
  """Returns the stored program of a key; if there is none, calls `make` and stores the result."""
  with _lock:
    program = _kept.get(key)
    if program is not None:
      _kept.move_to_end(key)
      return program
  program = make()
  with _lock:
    _kept[key] = program
    while len(_kept) > _MOST_KEPT:
      _kept.popitem(last=False)
  return program


_lock = threading.Lock()


def _signature(arguments: Sequence[Any]) -> Hashable:
  """Returns the tree, shapes, dtypes and shardings of arguments; a program accepts only arguments with equal ones."""
  leaves, tree = jax.tree.flatten(tuple(arguments))
  return tree, tuple((leaf.shape, str(leaf.dtype), leaf.sharding) for leaf in leaves)


def _key(value: Any) -> Any:
  """Returns a key that is equal for equal static arguments; Python compares `functools.partial` by identity."""
  if isinstance(value, functools.partial):
    return value.func, _key(value.args), _key(value.keywords)
  if isinstance(value, dict):
    return tuple((name, _key(each)) for name, each in sorted(value.items()))
  return tuple(map(_key, value)) if isinstance(value, tuple | list) else value


def compilations() -> int:
  """Returns the number of programs that this thread has compiled or read from the cache.

  Counting starts at the first call of this function.
  """
  return _compilations()[threading.get_ident()]


@functools.cache
def _compilations() -> collections.Counter:
  counter = collections.Counter()

  def listen(event, seconds, **_):
    counter[threading.get_ident()] += event == "/jax/core/compile/backend_compile_duration"

  jax.monitoring.register_event_duration_secs_listener(listen)
  return counter
