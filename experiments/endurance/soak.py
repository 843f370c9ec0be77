"""An hour of training with evaluations and saves: is the memory flat?

An evaluation comes every few seconds, a save about twice a minute, as in a run on full MNIST. Orbax 0.12.8 keeps some
0.05 MiB of every save for ever (what TensorStore hands it for a line of its log), so that ten saves a second are not
flat.
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
EVERY = 5.0  # seconds between two looks at the memory
MOST = 20.0  # MiB of growth an hour


def soak(seconds=3600):
  """The resident memory of a process that trains for so long, and its growth after the first tenth."""
  with tempfile.TemporaryDirectory() as folder:
    workdir = pathlib.Path(folder) / "run"
    flags = [f"--config{key}={value}" for key, value in KEYS.items()]
    process = crashes.launch([sys.executable, "-m", "ae_jax.main", f"--workdir={workdir}", *flags])
    watched, begun, minutes, mebibytes = psutil.Process(process.pid), time.monotonic(), [], []
    while time.monotonic() < begun + seconds and process.poll() is None:
      time.sleep(EVERY)
      minutes.append(round((time.monotonic() - begun) / 60, 3))
      mebibytes.append(round(watched.memory_info().rss / 2**20, 1))
    process.terminate()
    output, complaints = process.communicate(timeout=crashes.PATIENCE)
    records = logs.read(workdir)
  settled = slice(len(minutes) // 10, None)
  slope = np.polyfit(minutes[settled], mebibytes[settled], 1)[0]
  slope = round(60 * float(slope), 2)
  return {
    "cases": 1,
    "outcomes": {"mebibytes_per_hour": slope},
    "violations": [f"{slope} MiB an hour"] if abs(slope) > MOST else [],
    "seconds": round(time.monotonic() - begun),
    "exit_status": process.returncode,
    "said": (output.splitlines() or [""])[-1] if process.returncode == 0 else complaints[-2000:],
    "evaluations_and_saves": sum("test/squared_error" in record for record in records),
    "steps": records[-1]["step"],
    "minutes": minutes,
    "mebibytes": mebibytes,
  }


def draw(result, path):
  """The figure of the memory over time."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(7, 2.8), layout="constrained", dpi=150)
  axes = figure.subplots()
  axes.plot(result["minutes"], result["mebibytes"], color="#08519c", linewidth=1)
  axes.set_xlabel("minutes of training, evaluating and saving")
  axes.set_ylabel("resident memory, MiB")
  axes.set_ylim(bottom=0)
  axes.spines[["top", "right"]].set_visible(False)
  slope = result["outcomes"]["mebibytes_per_hour"]
  axes.set_title(f"{result['evaluations_and_saves']:,} evaluations and saves: {slope:+} MiB an hour", fontsize=10)
  figure.savefig(path)
