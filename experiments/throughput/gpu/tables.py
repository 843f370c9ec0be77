"""Formats the results of a GPU as a Markdown page."""

import statistics

from experiments.throughput.tables import OURS, markdown_table, ratio, round_down, spread

HEADING = """# Training on {device}

Written by `python -m experiments.throughput.gpu`; experiments/throughput/README.md describes the measurements."""

SPEED = """## Speed of the training step

Images per second are medians of {rounds} turns (minimum to maximum); an epoch has {examples:,} images. The ratio is the
time of the contestant divided by the time of ae_jax in the same turns, so for `ae_jax, deterministic` it is the cost of
`--deterministic`. The last columns are the arithmetic rate of the step (multiply-adds of `ae_jax.models.cost`), as a
part of the rate of the matrix product above."""

SWEEP = """## A sweep in one program

The sweep trains {members} members on {data}. Two seeds of the smallest and of the largest latent size are measured as
single runs, and the loop over all members is extrapolated from them. Times contain compilation, evaluation and
checkpoints, but not the start of the process. The last three columns are training alone after the first epoch; the
speed of the sweep is the sum over its members."""

RESUME = """## A killed run

The run is killed by SIGKILL after a third and resumed. It is compared with an uninterrupted run: all variables
and all records."""

MISSING = """## Not measured
"""


def markdown(results):
  """Returns the page of all results."""
  device = results["device"][0] if results["device"] else None
  name = device["device"] if device else "a GPU"
  sizes = results["sizes"]
  members = len(sizes["latents"]) * len(sizes["seeds"])
  parts = [
    HEADING.format(device=name),
    machine(device),
    section(SPEED.format(**sizes), speed(results["speed"], device)),
    section(SWEEP.format(members=members, data=sizes["data"]), sweep(results["sweep"])),
    section(RESUME, resume(results["resume"])),
    section(MISSING, "\n".join(f"- {name}: {reason}" for name, reason in results["missing"].items())),
  ]
  return "\n\n".join(part for part in parts if part) + "\n"


def section(text, table):
  """Returns the text and its table, "" without a table."""
  return f"{text}\n\n{table}".replace("\n\n\n", "\n\n") if table else ""


def machine(device):
  """Returns the table of the device, its software and the rates of its matrix products."""
  if device is None:
    return ""
  packages = ", ".join(f"{name} {version}" for name, version in device["packages"].items() if version)
  entries = {
    "date": device["date"],
    "device": device["device"],
    "driver": device["driver"],
    "runtime of JAX": device["runtime"],
    "CUDA of PyTorch": device["cuda_of_torch"],
    "processor": f"{device['processor']}, {device['cores']} cores",
    "software": f"Python {device['python']}, {packages}",
    "XLA_FLAGS": device["flags"],
  }
  rates = {
    f"matrix product, {kind}": f"{flops / 1e12:,.3g} TFLOP/s" for kind, flops in device["matrix_product_flops"].items()
  }
  rows = [[name, value or "-"] for name, value in (entries | rates).items()]
  return markdown_table(["", ""], rows, left=(0, 1))


def speed(records, device):
  """Returns the table of images per second; ae_jax itself is taken from the record of its variants."""
  rates = device["matrix_product_flops"] if device else {}
  headings = ["model", "batch", "contestant", "images/s", "an epoch", "ratio", *(f"of {kind}" for kind in rates)]
  rows, known = [], set()
  for record in sorted(records, key=lambda record: (record["model"], record["batch_size"])):
    for contestant, speeds in record["images_per_second"].items():
      identity = record["model"], record["batch_size"], contestant
      if identity not in known:
        known.add(identity)
        flops = 2 * record["multiply_adds"] * statistics.median(speeds)
        epoch = f"{record['examples'] / statistics.median(speeds):.3g} s"
        relative = "" if contestant == OURS else round_down(ratio(record, contestant))
        parts = [f"{flops / rate:.1%}" for rate in rates.values()]
        rows.append([*identity, spread(speeds), epoch, relative, *parts])
  return markdown_table(headings, rows, left=(0, 2))


def sweep(records):
  """Returns the table of sweeps and loops."""
  headings = ["model", "epochs", "members", "sweep", "loop, extrapolated", "ratio", "members are computed"]
  headings += ["sweep, images/s", "single run, images/s", "ratio"]
  rows = []
  for record in records:
    seconds, loop = record["sweep_seconds"], record["loop_seconds"]
    together, single = record["sweep_images_per_second"], statistics.median(record["single_images_per_second"])
    row = [record["model"], record["epochs"], record["members"], f"{seconds:.1f} s", f"{loop:.1f} s"]
    row += [round_down(loop / seconds), record["way"], f"{together:,.0f}", f"{single:,.0f}"]
    rows.append([*row, round_down(together / single)])
  return markdown_table(headings, rows)


def resume(records):
  """Returns the table of killed runs."""
  headings = ["model", "flags", "steps", "resumed at step", "equal bit for bit", "largest difference"]
  rows = []
  for record in records:
    row = [record["model"], " ".join(record["flags"]) or "-", record["steps"], record["continued_at"]]
    rows.append([*row, "yes" if record["bitwise"] else "no", f"{record['largest_difference']:.2g}"])
  return markdown_table(headings, rows, left=(0, 1))
