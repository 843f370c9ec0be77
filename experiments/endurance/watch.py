"""Runs cases with a time limit, classifies and counts their outcomes."""

import collections
import contextlib
import faulthandler
import re
import signal
import sys
import time
import traceback

import hypothesis

from ae_jax import errors

LONGEST_LINE = 600  # characters
_NAMES_CAUSE = re.compile(r"config\b|--\w+|/")  # a key, a flag or a file
VIOLATIONS = ("traceback", "unclear line", "partial workdir", "hang", "unpickled", "too much memory")


class Hang(BaseException):
  """A case exceeded its time limit. Not an Exception, so that no error handler catches it."""


@contextlib.contextmanager
def time_limit(seconds):
  """Raises Hang after a time limit.

  If the exception has no effect, the process prints all stacks and ends after about twice the time.
  """

  def raise_hang(*_):
    raise Hang(f"more than {seconds:g} s")

  before = signal.signal(signal.SIGALRM, raise_hang)
  signal.setitimer(signal.ITIMER_REAL, seconds)
  faulthandler.dump_traceback_later(2 * seconds + 60, exit=True)
  try:
    yield
  finally:
    faulthandler.cancel_dump_traceback_later()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def judge(function, seconds):
  """Calls a function and returns (outcome, line).

  The outcome is the returned value, "refused" after a clear UserError, or one of VIOLATIONS.
  """
  try:
    with time_limit(seconds):
      return function(), ""
  except errors.UserError as error:
    line = str(error)
    clear = len(line.splitlines()) == 1 and len(line) <= LONGEST_LINE and _NAMES_CAUSE.search(line)
    return "refused" if clear else "unclear line", line
  except Hang as error:
    return "hang", str(error)
  except Exception as error:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/ae_jax/" in frame.filename]
    where = f"{frames[-1].filename.rpartition('/ae_jax/')[2]}:{frames[-1].lineno}" if frames else "outside ae_jax"
    return "traceback", f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:300]}"


class Tally:
  """Counts the outcomes of cases and collects violations."""

  def __init__(self):
    self._started = time.perf_counter()
    self._outcomes, self._lines, self._violations = collections.Counter(), collections.Counter(), []

  def add(self, outcome, line, case):
    """Adds a case; `case` describes it and must be JSON serialisable."""
    self._outcomes[outcome] += 1
    if outcome in VIOLATIONS:
      self._violations.append({"outcome": outcome, "line": line, "case": case})
      print(f"{outcome}: {line}: {case}", file=sys.stderr, flush=True)
    elif line:
      self._lines[_kind(line)] += 1

  def results(self):
    """Returns the counts and violations in a form that JSON can store."""
    return {
      "cases": self._outcomes.total(),
      "outcomes": dict(self._outcomes.most_common()),
      "seconds": round(time.perf_counter() - self._started, 1),
      "kinds_of_refusal": len(self._lines),
      "most_frequent": [{"times": times, "line": line} for line, times in self._lines.most_common(25)],
      "violations": self._violations,
    }


def explore(strategy, count, seed, function):
  """Calls a function with `count` draws from a Hypothesis strategy, determined by the seed."""
  if not count:
    return  # Hypothesis needs at least one example

  @hypothesis.seed(seed)
  @hypothesis.settings(
    max_examples=count,
    database=None,
    deadline=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  @hypothesis.given(strategy)
  def test(case):
    function(case)

  test()


def _kind(line):
  """Returns the line without values and folders, which differ between cases of the same kind."""
  line = re.sub(r"=.*?(: must| is unknown)", r"=...\1", line)
  line = re.sub(r"/\S*/", "", line)
  return re.sub(r"\d[\d.,e+]*", "0", line)[:200]
