"""Handles SIGINT (Ctrl-C) and SIGTERM: the first signal prints a line, and a second signal ends the process.

Python runs signal handlers in the main thread between two bytecodes, and a compilation by XLA blocks the main thread
for up to a minute. But Python's C handler writes the signal number to a file descriptor immediately
(`signal.set_wakeup_fd`). In a command-line program, a second thread reads the number from this file descriptor. This
works during a compilation, because XLA releases the GIL.
"""

import contextlib
import dataclasses
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SAME_SIGNAL = 0.2  # a repeated signal within this many seconds is ignored: GNU timeout and `uv run` send signals twice


class Interrupted(Exception):
  """Raised after a signal; the message says what is saved and how to continue."""


@dataclasses.dataclass
class _State:
  """Signal state of the process."""

  wake: socket.socket | None = None  # receives signal numbers from the C handler; None without `watch`
  promise: str = ""  # text that says what happens after the first signal; "" if the first signal ends the process
  received: str = ""  # name of the first signal since `promise` was set; "" if there was none
  since: float = 0.0  # time.monotonic() of this signal


_state = _State()


def watch() -> None:
  """Starts the thread that handles signals, unless it runs already. Call this in the main thread of a command."""
  if _state.wake is not None:
    return
  reading, _state.wake = socket.socketpair()
  _state.wake.setblocking(False)
  for number in SIGNALS:
    signal.signal(number, _ignore)
  signal.set_wakeup_fd(_state.wake.fileno(), warn_on_full_buffer=False)
  if sys.platform != "win32":
    os.register_at_fork(after_in_child=_reset_after_fork)
  threading.Thread(target=_listen, args=(reading,), daemon=True, name="ae_jax-signals").start()


@contextlib.contextmanager
def catching(words: str) -> Iterator[Callable[[], str]]:
  """Context manager in which the first signal does not end the process; for the main thread only.

  Yields a function that returns the name of the first signal since the context was entered, or "" if there was none. In
  a command, a second signal ends the process. Elsewhere, e.g. in a notebook, the first signal restores the previous
  handlers, which then handle a second signal.

  Args:
    words: Text that says what happens after the first signal; printed when this signal arrives.
  """
  previous = {number: signal.getsignal(number) for number in SIGNALS}

  def restore() -> None:
    for number, handler in previous.items():
      signal.signal(number, handler)

  def receive(number: int, _: object) -> None:
    restore()
    _handle(number)

  for number in SIGNALS:  # also in a command, because jax.distributed replaces the handler of SIGTERM
    signal.signal(number, _ignore if _state.wake else receive)
  _state.promise, _state.received = words, ""
  try:
    yield lambda: _state.received
  finally:
    _state.promise = ""
    restore()


def promise(words: str) -> None:
  """Replaces the text that the surrounding `catching` context prints on a signal; no effect outside such a context."""
  if _state.promise:
    _state.promise = words


def _ignore(*_: object) -> None:
  """Replaces the default action of a signal by no action, because the thread of `watch` handles the signal."""


def _listen(reading: socket.socket) -> None:
  while numbers := reading.recv(64):
    for number in numbers:
      if number in SIGNALS:
        _handle(number)


def _handle(number: int) -> None:
  """Prints a line for the first signal, and ends the process at the second signal."""
  name, now = signal.Signals(number).name, time.monotonic()
  if _state.received and now - _state.since < _SAME_SIGNAL:
    return
  if _state.received or not _state.promise:
    _print_line(f"{name}: stopped at once; saved files are kept")
    os._exit(128 + number)  # sys.exit would wait for the main thread
  _state.received, _state.since = name, now
  _print_line(f"{name}: {_state.promise}; press Ctrl-C again to stop at once")


def _print_line(line: str) -> None:
  with contextlib.suppress(OSError, ValueError):  # stdout is closed, e.g. a pipe whose reader has ended
    print(f"\r\033[K{line}" if sys.stdout.isatty() else line, flush=True)  # overwrites a progress bar


def _reset_after_fork() -> None:
  """Restores the default signal handlers in a forked process.

  A forked process does not have the thread that `watch` starts, but it shares the socket of its parent process.
  """
  signal.set_wakeup_fd(-1)
  signal.signal(signal.SIGINT, signal.default_int_handler)
  signal.signal(signal.SIGTERM, signal.SIG_DFL)
