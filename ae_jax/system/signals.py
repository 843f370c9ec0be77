"""SIGINT (Ctrl-C) and SIGTERM: the first signal is acknowledged with a line, the second one ends the process.

Python runs signal handlers in the main thread between two bytecodes, and a compilation by XLA blocks that thread for up
to a minute. But Python's C handler writes the signal number to a file descriptor immediately (`signal.set_wakeup_fd`).
In a command, a second thread reads it there, which works because XLA releases the GIL while it compiles.
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
_SAME_SIGNAL = 0.2  # seconds within which two signals count as one: GNU timeout and `uv run` send each signal twice


class Interrupted(Exception):
  """A signal stopped the work; the message says what is saved and how to continue."""


@dataclasses.dataclass
class _State:
  """Signal state of the process."""

  wake: socket.socket | None = None  # the C handler writes to it; None outside a command
  promise: str = ""  # what happens after the first signal, for the user; "" if it ends the process
  received: str = ""  # name of the first signal since the promise
  since: float = 0.0  # monotonic time of that signal


_state = _State()


def watch() -> None:
  """Starts the thread that acknowledges signals, unless it runs already; for the main thread of a command."""
  if _state.wake is not None:
    return
  reading, _state.wake = socket.socketpair()
  _state.wake.setblocking(False)
  for number in SIGNALS:
    signal.signal(number, _leave_to_the_thread)
  signal.set_wakeup_fd(_state.wake.fileno(), warn_on_full_buffer=False)
  if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget)
  threading.Thread(target=_listen, args=(reading,), daemon=True, name="ae_jax-signals").start()


@contextlib.contextmanager
def catching(words: str) -> Iterator[Callable[[], str]]:
  """Lets the first signal set a flag instead of ending the process; only in the main thread.

  Yields a function that returns the name of the first signal received since then, or "". In a command, a second signal
  ends the process. Elsewhere, for example in a notebook, a second signal is handled as before.

  Args:
    words: What happens after the first signal, for the line that acknowledges it.
  """
  previous = {number: signal.getsignal(number) for number in SIGNALS}

  def restore() -> None:
    for number, handler in previous.items():
      signal.signal(number, handler)

  def receive(number: int, _: object) -> None:
    restore()
    _take(number)

  for number in SIGNALS:  # also in a command, because jax.distributed replaces the handler of SIGTERM
    signal.signal(number, _leave_to_the_thread if _state.wake else receive)
  _state.promise, _state.received = words, ""
  try:
    yield lambda: _state.received
  finally:
    _state.promise = ""
    restore()


def promise(words: str) -> None:
  """Changes the words of the surrounding `catching`."""
  if _state.promise:
    _state.promise = words


def _leave_to_the_thread(*_: object) -> None:
  """Does nothing: a handler that replaces the default action, because the thread acts on the signal."""


def _listen(reading: socket.socket) -> None:
  while numbers := reading.recv(64):
    for number in numbers:
      if number in SIGNALS:
        _take(number)


def _take(number: int) -> None:
  """Acknowledges the first signal; ends the process at the second one."""
  name, now = signal.Signals(number).name, time.monotonic()
  if _state.received and now - _state.since < _SAME_SIGNAL:
    return
  if _state.received or not _state.promise:
    _say(f"{name}: stopped at once; saved files are kept")
    os._exit(128 + number)  # sys.exit would wait for the main thread
  _state.received, _state.since = name, now
  _say(f"{name}: {_state.promise}; press Ctrl-C again to stop at once")


def _say(line: str) -> None:
  with contextlib.suppress(OSError, ValueError):  # the reader of a pipe has ended
    print(f"\r\033[K{line}" if sys.stdout.isatty() else line, flush=True)  # replaces a progress bar


def _forget() -> None:
  """Restores the default handlers in a forked process, which has no listening thread and shares its parent's socket."""
  signal.set_wakeup_fd(-1)
  signal.signal(signal.SIGINT, signal.default_int_handler)
  signal.signal(signal.SIGTERM, signal.SIG_DFL)
