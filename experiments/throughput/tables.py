"""The results as Markdown."""

import math
import statistics

from experiments.throughput import peers, problem

OURS = "ae_jax"
TARGETS = (5.0, 4.0)  # test errors of the race


def markdown(results):
  """All tables that there are results for."""
  tables = (
    speed(results),
    against(results["speed"]),
    start(results["start"]),
    race(results["race"]),
    costs(results["costs"]),
  )
  return "\n\n".join(table for table in tables if table)


def speed(results):
  """ae_jax and the peer that is fastest, cell by cell."""
  heads = ["model", "batch", "ae_jax, images/s", "fastest peer", "its images/s", "ratio"]
  rows = []
  for cell in ordered(results["speed"]):
    rates, best = cell["images_per_second"], fastest_peer(cell)
    row = [cell["model"], cell["batch_size"], spread(rates[OURS])]
    row += [best, spread(rates[best]), f"**{down(ratio(cell, best))}**"] if best else ["-", "-", "-"]
    multiply_adds = {record["model"]: record["textbook"] for record in results["costs"]}
    rates_of_products = results["runs"][cell["run"]]["matrix_product_flops"]
    rows.append([*row, *(percentage(cell, multiply_adds, flops) for flops in rates_of_products.values())])
    heads[6:] = [f"of the {kind} matrix product" for kind in rates_of_products]
  measured = dict.fromkeys(processor(results["runs"][cell["run"]]) for cell in ordered(results["speed"]))
  return "\n\n".join(part for part in (grid(heads, rows, left=(0, 3)), "; ".join(measured)) if part)


def processor(run):
  """Returns the processor and its matrix-product rate; speeds hold for this processor only."""
  rates = ", ".join(f"{flops / 1e9:.0f} GFLOP/s of {kind}" for kind, flops in run["matrix_product_flops"].items())
  name = " with ".join(part for part in (run["processor"], run["vectors"]) if part)
  return f"Measured on {run['cores']} cores of {name}: matrix product at {rates}"


def against(cells):
  """Median and ratio of every other contestant."""
  others = list(dict.fromkeys(who for cell in cells for who in cell["images_per_second"] if who != OURS))
  rows = []
  for cell in ordered(cells):
    rates = cell["images_per_second"]
    entries = [
      f"{statistics.median(rates[who]):,.0f} ({down(ratio(cell, who))})" if who in rates else "" for who in others
    ]
    rows.append([cell["model"], cell["batch_size"], *entries])
  return grid(["model", "batch", *others], rows)


def start(records):
  """Seconds to the first call and the memory of an epoch."""
  heads = ["model", "contestant", "first call, cold", "warm", "peak memory", "an epoch"]
  rows = []
  for record in ordered(records):
    seconds = [f"{record[key]:.1f} s" for key in ("cold_seconds", "warm_seconds")]
    memory, epoch = f"{record['peak_bytes'] / 2**20:,.0f} MiB", f"{record['epoch_seconds']:.1f} s"
    rows.append([record["model"], record["contestant"], *seconds, memory, epoch])
  return grid(heads, rows, left=(0, 1))


def costs(records):
  """Predicted beside counted: millions of multiply-adds per image, MiB per step."""
  heads = ["model", "parameters", "multiply-adds, textbook", "as run", "XLA counts", "kept, MiB", "XLA's temporaries"]
  heads += ["products read and write, MiB", "XLA's step"]
  rows = []
  for record in ordered(records):
    millions = [f"{record[key] / 1e6:.2f} M" for key in ("textbook", "products", "xla")]
    keys = ("activation_bytes", "xla_temporary_bytes", "traffic_bytes", "xla_bytes")
    mebibytes = [f"{record[key] / 2**20:,.1f}" for key in keys]
    rows.append([record["model"], f"{record['parameters']:,}", *millions, *mebibytes])
  return grid(heads, rows)


def race(records):
  """Seconds until the test error was reached: from the start of the process, of training, and after which epoch."""
  heads = ["contestant", *(f"to {target:.1f}: seconds (training), epoch" for target in TARGETS), "error at the end"]
  rows = []
  for record in records:
    entries = []
    for target in TARGETS:
      there = [number for number, epoch in enumerate(record["epochs"]) if epoch["error"] <= target]
      epoch = record["epochs"][there[0]] if there else None
      entries.append(
        f"{epoch['seconds']:.1f} ({epoch['training_seconds']:.1f}), {there[0] + 1}" if there else "not reached"
      )
    rows.append([record["contestant"], *entries, f"{record['epochs'][-1]['error']:.2f}"])
  return grid(heads, rows)


def line(part, record):
  """A record in one line, as it is measured."""
  if part == "speed":
    figures = ", ".join(f"{who} {statistics.median(rates):,.0f}" for who, rates in record["images_per_second"].items())
    return f"{record['model']} at batch {record['batch_size']}, images/s: {figures}"
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
  """The name of the peer with the greatest median; None if there is no peer."""
  medians = {who: statistics.median(rates) for who, rates in cell["images_per_second"].items() if who not in peers.OURS}
  return max(medians, key=medians.get, default=None)


def ratio(cell, peer):
  """The median over the rounds of how many times as fast as the peer ae_jax is."""
  rates = cell["images_per_second"]
  return statistics.median(a / b for a, b in zip(rates[OURS], rates[peer], strict=True))


def percentage(cell, multiply_adds, flops):
  """ae_jax's arithmetic in percent of a rate."""
  if cell["model"] not in multiply_adds:
    return "-"
  return f"{2 * statistics.median(cell['images_per_second'][OURS]) * multiply_adds[cell['model']] / flops:.0%}"


def ordered(records):
  """By model and batch size, else as measured."""
  return sorted(records, key=lambda record: (problem.MODELS.index(record["model"]), record["batch_size"]))


def spread(rates):
  """Median, least and greatest."""
  return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


def down(number):
  """Two digits behind the point, rounded down."""
  return f"{math.floor(100 * number) / 100:.2f}"


def grid(heads, rows, left=(0,)):
  """A Markdown table, "" without rows; the columns but `left` are aligned to the right."""
  if not rows:
    return ""
  rule = ["---" if column in left else "---:" for column in range(len(heads))]
  return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (heads, rule, *rows))
