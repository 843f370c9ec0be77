"""SIGINT (Ctrl-C) and SIGTERM: the first one is acknowledged with a line, a second one ends the process.

Python runs a signal handler between two bytecodes of the main thread, and a compilation of XLA keeps that thread busy
for up to a minute. The C handler writes the signal's number to a file descriptor at once (`signal.set_wakeup_fd`), and
in a command a thread reads it there: XLA releases the interpreter's lock while it compiles.
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
_AS_ONE = 0.2  # seconds in which two signals count as one: GNU timeout and `uv run` send each of theirs twice


class Interrupted(Exception):
  """A signal has stopped the work; the message says what is saved and how to go on."""


@dataclasses.dataclass
class _State:
  """Signal state of the process."""

  wake: socket.socket | None = None  # that the C handler writes to; None outside a command
  promise: str = ""  # what the first signal leads to; "": the end of the process
  received: str = ""  # name of the first signal since the promise
  since: float = 0.0  # when it came in


_state = _State()


def watch() -> None:
  """Acknowledges every signal of this process at once, from now on; for commands, from their main thread."""
  if _state.wake is not None:
    return
  reading, _state.wake = socket.socketpair()
  _state.wake.setblocking(False)
  for each in SIGNALS:
    signal.signal(each, _leave_to_the_thread)
  signal.set_wakeup_fd(_state.wake.fileno(), warn_on_full_buffer=False)
  if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget)
  threading.Thread(target=_listen, args=(reading,), daemon=True, name="ae_jax-signals").start()


@contextlib.contextmanager
def promising(words: str) -> Iterator[Callable[[], str]]:
  """Yields a function that returns the name of the first signal since, "" for none; only in the main thread.

  In a command a second signal ends the process. Elsewhere, in a notebook for one, it does what it did before.

  Args:
    words: What the first signal leads to, for the line that acknowledges it.
  """
  before = {each: signal.getsignal(each) for each in SIGNALS}

  def receive(number, _):
    for each in SIGNALS:
      signal.signal(each, before[each])
    _take(number)

  for each in SIGNALS:  # in a command too: jax.distributed takes SIGTERM for itself
    signal.signal(each, _leave_to_the_thread if _state.wake else receive)
  _state.promise, _state.received = words, ""
  try:
    yield lambda: _state.received
  finally:
    _state.promise = ""
    for each in SIGNALS:
      signal.signal(each, before[each])


def promise(words: str) -> None:
  """Changes the words of `promising`, inside it."""
  if _state.promise:
    _state.promise = words


def _leave_to_the_thread(*_):
  """Handler in the main thread; that there is one keeps the default action away."""


def _listen(reading):
  while numbers := reading.recv(64):
    for number in numbers:
      if number in SIGNALS:
        _take(number)


def _take(number):
  """Acknowledges a first signal, and ends the process at a second one."""
  name, now = signal.Signals(number).name, time.monotonic()
  if _state.received and now - _state.since < _AS_ONE:
    return
  if _state.received or not _state.promise:
    _say(f"{name}: stopped at once; what was saved stays")
    os._exit(128 + number)  # sys.exit would wait for the main thread
  _state.received, _state.since = name, now
  _say(f"{name}: {_state.promise}; press Ctrl-C again to stop at once")


def _say(line):
  with contextlib.suppress(OSError, ValueError):  # the reader of a pipe is gone
    print(f"\r\033[K{line}" if sys.stdout.isatty() else line, flush=True)  # over the line that moves


def _forget():
  """In a forked process, which has no thread that listens and must not write to its parent's."""
  signal.set_wakeup_fd(-1)
  signal.signal(signal.SIGINT, signal.default_int_handler)
  signal.signal(signal.SIGTERM, signal.SIG_DFL)
