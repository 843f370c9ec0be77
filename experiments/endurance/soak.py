"""Measures the memory growth during an hour of training with evaluations and saves.

Evaluations take place every few seconds and saves about twice a minute, as in a run on full MNIST. Orbax 0.12.8 never
frees about 0.05 MiB per save (data of TensorStore for a log line), so memory would grow with ten saves per second.
"""

import pathlib
import sys
import tempfile
import time

import numpy as np
import psutil

from ae_jax.runs import logs
from experiments.endurance import crashes

KEYS = {"": "configs/cnn.py", ".epochs": 10**6, ".optimizer.schedule": "constant"}
KEYS |= {".eval_every_epochs": 10, ".checkpoint_every_epochs": 100}
INTERVAL = 5.0  # seconds between measurements of the memory
LIMIT = 20.0  # MiB of growth per hour


def soak(seconds=3600):
  """Trains for some seconds in another process and returns its resident memory and the growth after the first tenth."""
  with tempfile.TemporaryDirectory() as folder:
    workdir = pathlib.Path(folder) / "run"
    flags = [f"--config{key}={value}" for key, value in KEYS.items()]
    process = crashes.launch([sys.executable, "-m", "ae_jax.main", f"--workdir={workdir}", *flags])
    monitor, start, minutes, mebibytes = psutil.Process(process.pid), time.monotonic(), [], []
    while time.monotonic() < start + seconds and process.poll() is None:
      time.sleep(INTERVAL)
      minutes.append(round((time.monotonic() - start) / 60, 3))
      mebibytes.append(round(monitor.memory_info().rss / 2**20, 1))
    process.terminate()
    output, stderr = process.communicate(timeout=crashes.TIMEOUT)
    records = logs.read(workdir)
  settled = slice(len(minutes) // 10, None)
  slope = np.polyfit(minutes[settled], mebibytes[settled], 1)[0]
  slope = round(60 * float(slope), 2)
  return {
    "cases": 1,
    "outcomes": {"mebibytes_per_hour": slope},
    "violations": [f"{slope} MiB per hour"] if abs(slope) > LIMIT else [],
    "seconds": round(time.monotonic() - start),
    "exit_status": process.returncode,
    "said": (output.splitlines() or [""])[-1] if process.returncode == 0 else stderr[-2000:],
    "evaluations_and_saves": sum("test/squared_error" in record for record in records),
    "steps": records[-1]["step"],
    "minutes": minutes,
    "mebibytes": mebibytes,
  }


def draw(result, path):
  """Plots the memory over time."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(7, 2.8), layout="constrained", dpi=150)
  axes = figure.subplots()
  axes.plot(result["minutes"], result["mebibytes"], color="#08519c", linewidth=1)
  axes.set_xlabel("minutes of training, evaluating and saving")
  axes.set_ylabel("resident memory, MiB")
  axes.set_ylim(bottom=0)
  axes.spines[["top", "right"]].set_visible(False)
  slope = result["outcomes"]["mebibytes_per_hour"]
  axes.set_title(f"{result['evaluations_and_saves']:,} evaluations and saves: {slope:+} MiB per hour", fontsize=10)
  figure.savefig(path)
