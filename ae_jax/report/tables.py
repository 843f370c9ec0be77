"""The numbers of a run as tables of texts."""

import math

import numpy as np

_SHORT = "auprc auroc ari dci elbo kl mig mle mse nll nmi pca psnr sap ssim"
_SPELT = {"frechet": "Fréchet", "kmeans": "k-means", "knn": "kNN", "lipschitz": "Lipschitz", "twonn": "TwoNN"}
_WORDS = {name: name.upper() for name in _SHORT.split()} | _SPELT
_LOWER = ("loss", "error", "nats", "mse")  # in the name of what is good when it is small
_HIGHER = ("psnr", "auroc", "auprc")
_RULERS = ("test/pca_", "test/chance_", "test/nats_floor", "test/mean_predictor_")  # the same in every evaluation
NOT_FINITE = "not finite"
_ENDS = ("_low", "_high", "_standard_error")  # of the names of what tells how sure a value is
_ONCE = ("step", "epoch", "stage", "images_per_second", "compile_seconds")


def number(value, digits=4):
  """Returns a number with `digits` significant digits, or more where that avoids an exponent."""
  if value is None or math.isnan(value):
    return NOT_FINITE
  if math.isinf(value):
    return "∞" if value > 0 else "-∞"
  if abs(value) >= 1e15:
    return f"{value:.{digits}g}"
  if float(value).is_integer():
    return f"{int(value):,}"
  if abs(value) >= 1e4:
    return f"{value:,.1f}"
  return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def readable(name):
  """The name of a metric in words: "pca_squared_error" -> "PCA squared error"."""
  return " ".join(_WORDS.get(word, word) for word in name.replace("/", " / ").replace("_", " ").split(" "))


def over_epochs(measured):
  """Returns lines [name, last value, best value, its epoch] of what `logs.curves` gives; and `pivots`."""
  lines, many, begun = [], {}, _last_stage(measured)
  for name, (epochs, values) in measured.items():
    if name.count("/") > 1:
      many[name.removeprefix("test/")] = number(values[-1])
    elif name not in _ONCE:
      said = readable(name.replace("train/", "training ").replace("/", " "))
      comparable = epochs > begun if name.endswith("loss") else np.ones(len(epochs), bool)
      lines.append([said, number(values[-1]), *_best(name, epochs[comparable], values[comparable])])
  return lines, pivots(many)


def _last_stage(measured):
  """The epoch after which the last stage was trained: losses of earlier stages are of other objectives."""
  epochs, stages = measured.get("stage", (np.zeros(0), np.zeros(0)))
  return epochs[stages < stages[-1:]].max(initial=-np.inf)


def _best(name, epochs, values):
  """The best value, as a text, and its first epoch; two empty texts where the name does not tell what is good."""
  sign = 1 if any(part in name for part in _LOWER) else -1 if any(part in name for part in _HIGHER) else 0
  finite = np.isfinite(values)
  if not sign or not finite.any() or name.startswith(_RULERS):
    return "", ""
  best = np.argmin(np.where(finite, sign * values, np.inf))
  return number(values[best]), f"{epochs[best]:.3g}"


def of_values(values):
  """Values {name: number} as lines of texts, with their intervals; and `pivots` of those with a "/" in the name."""
  said = {name: _with_interval(name, values) for name in values if not ends_an_interval(name, values)}
  return [[readable(name), text] for name, text in said.items() if "/" not in name], pivots(said)


def ends_an_interval(name, values):
  """Whether a name is that of another one among the values and _low, _high or _standard_error, perhaps before a "/"."""
  bases = {end: name.replace(end, "") for end in _ENDS if end in name}
  return any(base in values and _end(base, end) == name for end, base in bases.items())


def _with_interval(name, values):
  low, high, error = (values.get(_end(name, end)) for end in _ENDS)
  known = lambda *ends: all(end is not None and math.isfinite(end) for end in ends)
  interval = f" ({number(low, 3)} to {number(high, 3)})" if known(low, high) else ""
  return number(values[name]) + interval + (f" ± {error:.2g}" if known(error) else "")


def _end(name, end):
  what, slash, which = name.partition("/")
  return f"{what}{end}{slash}{which}"


def pivots(said):
  """Texts {"WHAT/WHICH": text} as tables [(head, lines)]: those of the same WHICH side by side, a column a WHAT.

  With few of WHICH and many of WHAT it is the other way round.
  """
  columns = {}
  for name, text in said.items():
    what, slash, which = name.rpartition("/")
    if slash:
      columns.setdefault(what, {})[which] = text
  same = {}
  for what, column in columns.items():
    same.setdefault(tuple(column), []).append(what)
  return [_pivot(columns, whats, whiches) for whiches, whats in same.items()]


def _pivot(columns, whats, whiches):
  grid = [[columns[what][which] for what in whats] for which in whiches]
  across, down = whats, whiches
  if len(whats) > len(whiches):
    grid, across, down = list(map(list, zip(*grid, strict=True))), whiches, whats
  lines = [[readable(name), *texts] for name, texts in zip(down, grid, strict=True)]
  return ["", *map(readable, across)], lines


def text(value):
  """A value of a config as a page shows it."""
  return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def interval(values):
  """The half width of the 95 % t-interval of the mean of some values, of three or more; None of fewer."""
  if len(values) < 3:
    return None
  from scipy import stats  # a second of imports

  return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
