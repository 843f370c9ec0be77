"""Formats the results as Markdown tables."""

import math
import statistics

from experiments.throughput import peers, problem

OURS = "ae_jax"
TARGETS = (5.0, 4.0)  # test errors of the race


def markdown(results):
  """Returns the tables of all parts that have results."""
  parts = (
    speed(results),
    other_contestants(results["speed"]),
    start(results["start"]),
    race(results["race"]),
    costs(results["costs"]),
  )
  return "\n\n".join(table for table in parts if table)


def speed(results):
  """Returns the table of ae_jax and the fastest peer for each model and batch size."""
  headings = ["model", "batch", "ae_jax, images/s", "fastest peer", "its images/s", "ratio"]
  rows = []
  for cell in ordered(results["speed"]):
    rates, best = cell["images_per_second"], fastest_peer(cell)
    row = [cell["model"], cell["batch_size"], spread(rates[OURS])]
    row += [best, spread(rates[best]), f"**{round_down(ratio(cell, best))}**"] if best else ["-", "-", "-"]
    multiply_adds = {record["model"]: record["textbook"] for record in results["costs"]}
    rates_of_products = results["runs"][cell["run"]]["matrix_product_flops"]
    rows.append([*row, *(percentage(cell, multiply_adds, flops) for flops in rates_of_products.values())])
    headings[6:] = [f"of the {kind} matrix product" for kind in rates_of_products]
  processors = dict.fromkeys(processor(results["runs"][cell["run"]]) for cell in ordered(results["speed"]))
  return "\n\n".join(part for part in (markdown_table(headings, rows, left=(0, 3)), "; ".join(processors)) if part)


def processor(run):
  """Returns a line with the processor and its matrix-product rate; speeds are valid for this processor only."""
  rates = ", ".join(f"{flops / 1e9:.0f} GFLOP/s of {kind}" for kind, flops in run["matrix_product_flops"].items())
  name = " with ".join(part for part in (run["processor"], run["vectors"]) if part)
  return f"Measured on {run['cores']} cores of {name}: matrix product at {rates}"


def other_contestants(cells):
  """Returns the table of medians of all contestants except ae_jax, with ae_jax's speed relative to them."""
  others = list(
    dict.fromkeys(contestant for cell in cells for contestant in cell["images_per_second"] if contestant != OURS)
  )
  rows = []
  for cell in ordered(cells):
    rates = cell["images_per_second"]
    entries = [
      f"{statistics.median(rates[contestant]):,.0f} ({round_down(ratio(cell, contestant))})"
      if contestant in rates
      else ""
      for contestant in others
    ]
    rows.append([cell["model"], cell["batch_size"], *entries])
  return markdown_table(["model", "batch", *others], rows)


def start(records):
  """Returns the table of startup times, memory and duration of an epoch."""
  headings = ["model", "contestant", "first call, cold", "warm", "peak memory", "an epoch"]
  rows = []
  for record in ordered(records):
    seconds = [f"{record[key]:.1f} s" for key in ("cold_seconds", "warm_seconds")]
    memory, epoch = f"{record['peak_bytes'] / 2**20:,.0f} MiB", f"{record['epoch_seconds']:.1f} s"
    rows.append([record["model"], record["contestant"], *seconds, memory, epoch])
  return markdown_table(headings, rows, left=(0, 1))


def costs(records):
  """Returns the table of predicted and counted costs: millions of multiply-adds per image, MiB per step."""
  headings = [
    "model",
    "parameters",
    "multiply-adds, textbook",
    "executed",
    "by XLA",
    "activations, MiB",
    "temporaries by XLA",
  ]
  headings += ["traffic of products, MiB", "traffic by XLA"]
  rows = []
  for record in ordered(records):
    millions = [f"{record[key] / 1e6:.2f} M" for key in ("textbook", "products", "xla")]
    keys = ("activation_bytes", "xla_temporary_bytes", "traffic_bytes", "xla_bytes")
    mebibytes = [f"{record[key] / 2**20:,.1f}" for key in keys]
    rows.append([record["model"], f"{record['parameters']:,}", *millions, *mebibytes])
  return markdown_table(headings, rows)


def race(records):
  """Returns the table of the race: seconds from the start of the process, seconds of training, and epoch."""
  headings = ["contestant", *(f"to {target:.1f}: seconds (training), epoch" for target in TARGETS), "final error"]
  rows = []
  for record in records:
    entries = []
    for target in TARGETS:
      reached = [number for number, epoch in enumerate(record["epochs"]) if epoch["error"] <= target]
      epoch = record["epochs"][reached[0]] if reached else None
      entries.append(
        f"{epoch['seconds']:.1f} ({epoch['training_seconds']:.1f}), {reached[0] + 1}" if reached else "not reached"
      )
    rows.append([record["contestant"], *entries, f"{record['epochs'][-1]['error']:.2f}"])
  return markdown_table(headings, rows)


def summary_line(part, record):
  """Returns a record as one line, printed when it has been measured."""
  if part == "speed":
    medians = ", ".join(
      f"{contestant} {statistics.median(rates):,.0f}" for contestant, rates in record["images_per_second"].items()
    )
    return f"{record['model']} at batch {record['batch_size']}, images/s: {medians}"
  if part == "costs":
    return (
      f"{record['model']}: {record['products'] / 1e6:.2f} M multiply-adds per image, XLA {record['xla'] / 1e6:.2f} M"
    )
  if part == "start":
    seconds = f"first call after {record['cold_seconds']:.1f} s cold, {record['warm_seconds']:.1f} s warm"
    return f"{record['model']}, {record['contestant']}: {seconds}, {record['peak_bytes'] / 2**20:,.0f} MiB"
  last = record["epochs"][-1]
  return f"{record['contestant']}: test error {last['error']:.2f} after {last['seconds']:.0f} s"


def fastest_peer(cell):
  """Returns the peer with the greatest median, None if there is no peer."""
  medians = {
    contestant: statistics.median(rates)
    for contestant, rates in cell["images_per_second"].items()
    if contestant not in peers.OURS
  }
  return max(medians, key=medians.get, default=None)


def ratio(cell, peer):
  """Returns ae_jax's speed relative to a peer, the median over the rounds."""
  rates = cell["images_per_second"]
  return statistics.median(a / b for a, b in zip(rates[OURS], rates[peer], strict=True))


def percentage(cell, multiply_adds, flops):
  """Returns ae_jax's arithmetic rate in percent of `flops`."""
  if cell["model"] not in multiply_adds:
    return "-"
  return f"{2 * statistics.median(cell['images_per_second'][OURS]) * multiply_adds[cell['model']] / flops:.0%}"


def ordered(records):
  """Returns the records sorted by model and batch size."""
  return sorted(records, key=lambda record: (problem.MODELS.index(record["model"]), record["batch_size"]))


def spread(rates):
  """Returns a cell "median (minimum to maximum)"."""
  return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


def round_down(number):
  """Returns a number rounded down to two decimals."""
  return f"{math.floor(100 * number) / 100:.2f}"


def markdown_table(headings, rows, left=(0,)):
  """Returns a Markdown table, "" without rows; all columns except `left` are right-aligned."""
  if not rows:
    return ""
  rule = ["---" if column in left else "---:" for column in range(len(headings))]
  return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (headings, rule, *rows))
