"""Runs measurements in the order of their importance until the time is over."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Iterable

from ae_jax import errors

SHARE = 0.5  # of the remaining time that a measurement may use, so that a slow one leaves time to the others
SHORTEST = 60  # seconds that it may always use if they remain


class OutOfTime(BaseException):
  """The time of a measurement is over. No `Exception`, so that only `run` handles it."""


@dataclasses.dataclass(frozen=True)
class Measurement:
  """A measurement that fails or runs out of time without consequences for the others."""

  part: str  # key of the results
  name: str
  measure: Callable[[], Iterable[dict]]  # yields records


def run(measurements, results, save, minutes):
  """Appends the records of all measurements to `results` and the reasons for missing ones to `results["missing"]`.

  `save` is called before each measurement and after each record, so a killed process loses the current record only.
  """
  end = time.monotonic() + 60 * minutes
  missing = results["missing"]
  missing |= {measurement.name: "the measurement had not started" for measurement in measurements}
  for number, measurement in enumerate(measurements):
    left = end - time.monotonic()
    if left <= 0:
      missing[measurement.name] = f"did not fit into {minutes:g} minutes"
      continue
    last = number == len(measurements) - 1
    missing[measurement.name] = "the measurement was interrupted"
    save()
    reason = _run_one(measurement, results, save, left if last else max(SHARE * left, min(SHORTEST, left)))
    if reason:
      missing[measurement.name] = reason
    else:
      del missing[measurement.name]
    print(f"{60 * minutes - end + time.monotonic():4.0f} s  {measurement.name}: {reason or 'measured'}", flush=True)
  save()


def _run_one(measurement, results, save, seconds):
  """Runs a measurement for at most `seconds`; returns the reason if it is not complete, else ""."""
  try:
    with limit(seconds):
      for record in measurement.measure():
        results[measurement.part].append(record)
        save()
  except OutOfTime:
    return f"did not end within {seconds:.0f} s"
  except Exception as error:
    lines = str(error).strip().splitlines()
    return errors.one_line(RuntimeError(f"{type(error).__name__}: {lines[-1] if lines else ''}"))
  return ""


@contextlib.contextmanager
def limit(seconds):
  """Raises `OutOfTime` in the block after `seconds`."""

  def stop(number, frame):
    raise OutOfTime

  previous = signal.signal(signal.SIGALRM, stop)
  signal.setitimer(signal.ITIMER_REAL, seconds)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)
