"""Rules that read a learning rate from the losses of a range test, and how good their rates are.

  python -m experiments.learning_rate.rules

prints the table of README.md from results.json.
"""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from ae_jax.training import range_test

Losses = Float[np.ndarray, " steps"]
RATES = range_test.rates()
RESULTS = pathlib.Path(__file__).parent / "results.json"
_UNSTABLE = 5.0  # ratio of a rate above all rates with a finite loss


def smallest(losses: Losses) -> float:
  """Returns the rate with the smallest smoothed loss."""
  return float(RATES[np.argmin(range_test.smooth(losses))])


def steepest(losses: Losses) -> float:
  """Returns the rate at which the smoothed loss falls fastest, relative to the logarithm of the rate."""
  stable = range_test.smooth(losses)[range_test.before_doubling(losses) >= RATES]
  return float(RATES[np.argmin(np.gradient(stable))])


RULES: dict[str, Callable[[Losses], float]] = {
  "steepest descent": steepest,
  "smallest loss / 5": lambda losses: smallest(losses) / 5,
  "smallest loss / 10": lambda losses: smallest(losses) / 10,
  "smallest loss / 20": lambda losses: smallest(losses) / 20,
  "smallest loss / 40": lambda losses: smallest(losses) / 40,
  "before doubling / 10": lambda losses: range_test.before_doubling(losses) / 10,
  "before doubling / 30": lambda losses: range_test.before_doubling(losses) / 30,
  "before doubling / 100": lambda losses: range_test.before_doubling(losses) / 100,
  "used: smallest loss / 5, at least before doubling / 100": range_test.pick,
}


def ratio(case: Mapping[str, Any], rate: float) -> float:
  """Returns the loss of a training with a rate, interpolated, divided by the smallest loss of all rates."""
  rates, losses = (np.array(list(values), float) for values in zip(*case["losses"].items(), strict=True))
  rates, losses = rates[np.isfinite(losses)], losses[np.isfinite(losses)]
  if rate > rates[-1]:
    return _UNSTABLE
  return float(np.exp(np.interp(np.log(rate), np.log(rates), np.log(losses))) / losses.min())


def row(name: str, chosen: Mapping[str, list[float]], results: Mapping[str, Any]) -> str:
  """Returns a row of the table: the rates of a rule in each case, and the mean and the largest ratio."""
  ratios = [ratio(results[case], rate) for case, rates in chosen.items() for rate in rates]
  cells = [", ".join(f"{rate:.2g}" for rate in rates) for rates in chosen.values()]
  return f"| {' | '.join([name, *cells, f'{np.exp(np.log(ratios).mean()):.3f}', f'{max(ratios):.3f}'])} |"


def main() -> None:
  """Prints the table."""
  results = json.loads(RESULTS.read_text(encoding="utf-8"))
  print(f"| rule | {' | '.join(results)} | mean ratio | largest |\n|{'---|' * (len(results) + 3)}")
  tests = {case: [np.array(losses, float) for losses in result["range tests"]] for case, result in results.items()}
  cleaned = {case: [np.where(np.isfinite(test), test, 1e30) for test in each] for case, each in tests.items()}
  for name, rule in RULES.items():
    print(row(name, {case: [rule(losses) for losses in each] for case, each in cleaned.items()}, results))
  finite = {case: {k: v for k, v in result["losses"].items() if v is not None} for case, result in results.items()}
  best = {case: [float(min(losses, key=losses.__getitem__))] for case, losses in finite.items()}
  print(row("config", {case: [result["rate"]] for case, result in results.items()}, results))
  print(row("best of the trainings", best, results))


if __name__ == "__main__":
  main()
