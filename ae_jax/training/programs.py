"""Compilation of functions, and the number of programs that were compiled."""

import collections
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jaxtyping import PyTree

from ae_jax.system import distributed, malloc


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
  program = mode(functools.partial(function, **static), arguments, results, donate)
  malloc.trim()
  return program


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
