"""Measures requests per second and latencies of app.py, beside direct calls of onnxruntime in one process.

  python -m experiments.serve.load --exported=deployed
  python -m experiments.serve.load --exported=deployed --seconds=2 --rounds=1

Starts the server as a process, sends random examples to /score from threads with one connection each, and writes
results.json and figure.png to this folder. Rounds alternate between all cases, because other programs may use the
machine. Without --exported, it draws the figure and prints the table of the stored results.
"""

import contextlib
import datetime
import http.client
import io
import itertools
import json
import os
import pathlib
import platform
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from importlib import metadata

import numpy as np

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results.json"
CONCURRENCIES, BATCHES, FORMATS = (1, 8, 32), (1, 64), ("json", "npy")
NPY = "application/x-npy"


@contextlib.contextmanager
def server(exported):
  """Yields the port of a server process."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  arguments = ["--factory", "experiments.serve.app:create", f"--port={port}", "--log-level=warning"]
  with subprocess.Popen(
    [sys.executable, "-m", "uvicorn", *arguments], env=os.environ | {"EXPORTED": exported}
  ) as process:
    try:
      for _ in range(300):
        with contextlib.suppress(OSError):
          socket.create_connection(("127.0.0.1", port)).close()
          break
        time.sleep(0.1)
      yield port
    finally:
      process.terminate()


def body_of(x, form):
  """Returns the body and the headers of a request."""
  if form == "json":
    return json.dumps({"x": x.tolist()}).encode(), {"Content-Type": "application/json"}
  stream = io.BytesIO()
  np.save(stream, x.astype(np.float32))
  return stream.getvalue(), {"Content-Type": NPY, "Accept": NPY}


def served(port, x, form, concurrency, seconds):
  """Returns the requests per second and the latencies in seconds of `concurrency` threads."""
  body, headers = body_of(x, form)
  latencies, start = [], threading.Barrier(concurrency + 1)

  def send():
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    start.wait()
    end = time.perf_counter() + seconds
    while (before := time.perf_counter()) < end:
      connection.request("POST", "/score", body, headers)
      response = connection.getresponse()
      text = response.read()
      if response.status != 200:
        raise RuntimeError(text)
      latencies.append(time.perf_counter() - before)
    connection.close()

  threads = [threading.Thread(target=send) for _ in range(concurrency)]
  for thread in threads:
    thread.start()
  start.wait()
  began = time.perf_counter()
  for thread in threads:
    thread.join()
  return len(latencies) / (time.perf_counter() - began), latencies


def processor_seconds(port):
  """Returns the processor seconds that the server has used."""
  with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as response:
    return json.load(response)["processor_seconds"]


def direct(session, x, seconds):
  """Returns the calls per second of onnxruntime in this process, and the processor milliseconds per call."""
  calls, began, used = 0, time.perf_counter(), time.process_time()
  while (elapsed := time.perf_counter() - began) < seconds:
    session.run(None, {"x": x})
    calls += 1
  return calls / elapsed, 1000 * (time.process_time() - used) / calls


def measure(exported, seconds, rounds):
  """Returns the results of all cases; each case has one number per round."""
  import onnxruntime

  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = 1  # as in app.py
  session = onnxruntime.InferenceSession(pathlib.Path(exported, "scorer.onnx"), options)
  shape = session.get_inputs()[0].shape[1:]
  draw = lambda batch: np.random.default_rng(0).uniform(size=(batch, *shape)).round(4)  # short numbers in JSON
  examples = {batch: draw(batch) for batch in BATCHES}
  cases = [
    {"format": form, "batch": batch, "concurrency": concurrency}
    for form, batch, concurrency in itertools.product(FORMATS, BATCHES, CONCURRENCIES)
  ]
  for case in cases:
    case |= {key: [] for key in ("requests_per_second", "of_direct", "p50_ms", "p95_ms", "processor_ms")}
  calls = {batch: {"per_second": [], "processor_ms": []} for batch in BATCHES}
  with server(exported) as port:
    for number in range(-1, rounds):  # the first round warms up
      fastest = {batch: direct(session, x.astype(np.float32), seconds) for batch, x in examples.items()}
      for case in cases:
        used = processor_seconds(port)
        rate, latencies = served(port, examples[case["batch"]], case["format"], case["concurrency"], seconds)
        used = processor_seconds(port) - used
        if number < 0:
          continue
        cuts = statistics.quantiles(latencies, n=20)
        case["requests_per_second"].append(round(rate, 1))
        case["of_direct"].append(round(rate / fastest[case["batch"]][0], 4))
        case["processor_ms"].append(round(1000 * used / len(latencies), 3))
        case["p50_ms"].append(round(1000 * statistics.median(latencies), 2))
        case["p95_ms"].append(round(1000 * cuts[18], 2))
      for batch, (rate, used) in fastest.items() if number >= 0 else ():
        calls[batch]["per_second"].append(round(rate, 1))
        calls[batch]["processor_ms"].append(round(used, 3))
      print(f"round {number + 1} of {rounds}", flush=True)
  return {"shape": shape, "direct_calls": calls, "cases": cases}


def machine():
  """Returns what the results depend on."""
  file = pathlib.Path("/proc/cpuinfo")
  lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
  names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
  packages = ("fastapi", "uvicorn", "onnxruntime", "numpy")
  return {
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "processor": names[0] if names else platform.processor(),
    "cores": os.cpu_count(),
    "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan"),  # before the measurement
    "python": platform.python_version(),
    "packages": {name: metadata.version(name) for name in packages},
  }


def measured_on(results):
  """Returns a sentence about the measurement."""
  versions = ", ".join(f"{name} {version}" for name, version in results["packages"].items())
  return (
    f"Measured with {results['model']} on {results['cores']} cores of {results['processor']}, which the server and the "
    f"client shared with other programs (load average {results['load_average']:.1f}); {versions}."
  )


def table(results):
  """Returns the medians of the rounds as a table in Markdown."""
  lines = [
    "| body | batch | concurrency | requests/s | examples/s | of direct calls | processor ms | p50 (ms) | p95 (ms) |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
  ]
  for batch, calls in results["direct_calls"].items():
    rate, used = (statistics.median(calls[key]) for key in ("per_second", "processor_ms"))
    lines.append(f"| direct call | {batch} | | {rate:,.0f} | {rate * int(batch):,.0f} | 1 | {used:.2f} | | |")
  for case in results["cases"]:
    keys = ("requests_per_second", "of_direct", "processor_ms", "p50_ms", "p95_ms")
    rate, share, used, p50, p95 = (statistics.median(case[key]) for key in keys)
    cells = [f"{rate:,.0f}", f"{rate * case['batch']:,.0f}", f"{share:.2f}", f"{used:.2f}", f"{p50:.1f}", f"{p95:.1f}"]
    lines.append(f"| {case['format']} | {case['batch']} | {case['concurrency']} | {' | '.join(cells)} |")
  return "\n".join(lines)


def draw(results):
  """Writes figure.png: examples per second and 95th percentile of the latency by concurrency."""
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot

  figure, (rates, latencies) = pyplot.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
  for (form, batch), color in zip(itertools.product(FORMATS, BATCHES), ("C0", "C1", "C2", "C3"), strict=True):
    cases = [case for case in results["cases"] if (case["format"], case["batch"]) == (form, batch)]
    x, style = [case["concurrency"] for case in cases], {"marker": "o", "color": color}
    label = f"{form}, batch {batch}"
    rates.plot(x, [batch * statistics.median(c["requests_per_second"]) for c in cases], label=label, **style)
    latencies.plot(x, [statistics.median(c["p95_ms"]) for c in cases], label=label, **style)
  for batch, line in zip(BATCHES, (":", "--"), strict=True):
    calls = statistics.median(results["direct_calls"][str(batch)]["per_second"])
    rates.axhline(batch * calls, color="grey", linestyle=line, label=f"direct calls, batch {batch}")
  for axes, label in ((rates, "examples per second"), (latencies, "95th percentile of the latency (ms)")):
    axes.set(xscale="log", yscale="log", xlabel="concurrent requests", ylabel=label)
    axes.set_xticks(CONCURRENCIES, [str(each) for each in CONCURRENCIES], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
  rates.set_ylim(100, 10_000)
  figure.legend(*rates.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
  place = f"{results['cores']} cores of {results['processor']} with a load average of {results['load_average']:.0f}"
  figure.suptitle(f"{results['model']}, one server process; {place}", fontsize=10)
  figure.savefig(HERE / "figure.png", dpi=120)


def main(arguments):
  """Measures if a folder is given, then draws the figure and prints the table."""
  options = {"exported": "", "seconds": "3", "rounds": "3"}
  options |= dict(each.removeprefix("--").split("=", 1) for each in arguments)
  if options["exported"]:
    report = json.loads(pathlib.Path(options["exported"], "scorer.onnx.json").read_text(encoding="utf-8"))
    found = machine() | {"model": f"{report['model']} on {report['data']}", "seconds": float(options["seconds"])}
    found |= measure(options["exported"], float(options["seconds"]), int(options["rounds"]))
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
  results = json.loads(RESULTS.read_text(encoding="utf-8"))
  draw(results)
  print(f"{measured_on(results)}\n\n{table(results)}")


if __name__ == "__main__":
  main(sys.argv[1:])
