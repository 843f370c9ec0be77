"""The notebooks of experiments/colab: they are stored without outputs and run in a clean kernel on the CPU."""

import re

import pytest
from conftest import ROOT

nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")

FOLDER = ROOT / "experiments" / "colab"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
# Kills the kernel, as a disconnect does, as soon as the first checkpoint of the first run is saved.
DISCONNECT = """
import os, pathlib, signal, threading, time

def disconnect():
  while not any(path.name.isdigit() for path in pathlib.Path("runs/cnn/checkpoints").glob("*")):
    time.sleep(0.01)
  os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=disconnect, daemon=True).start()
"""


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
  """Keeps the files of Jupyter out of the home folder."""
  for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
    monkeypatch.setenv(name, str(tmp_path / "jupyter"))


def read(name):
  return nbformat.read(FOLDER / name, as_version=4)


def execute(name, folder, parameters, leave_out=()):
  """Executes a notebook with other parameters, without the cells of some tags; returns {cell id: outputs}."""
  notebook = read(name)
  tagged = {tag: cell for cell in notebook.cells for tag in cell.metadata.get("tags", ())}
  tagged["parameters"].source = parameters
  notebook.cells = [cell for cell in notebook.cells if not {*leave_out} & {*cell.metadata.get("tags", ())}]
  nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
  return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def printed(outputs):
  """Returns the text that a cell printed; it must not have printed a warning."""
  assert not [output for output in outputs if output.get("name") == "stderr"]
  return "".join(output.text for output in outputs if output.output_type == "stream")


def pictures(outputs):
  """Returns the number of pictures that a cell displays."""
  html = "".join(output.data.get("text/html", "") for output in outputs if "data" in output)
  return sum("image/png" in output.get("data", {}) for output in outputs) + html.count("data:image/png")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_is_stored_without_outputs_and_paths(name):
  notebook = read(name)
  nbformat.validate(notebook)
  assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
  for cell in notebook.cells:
    assert set(re.findall(r"[\"' (](/\w+)", cell.source)) <= {"/content"}, cell.id  # where Colab mounts Google Drive
    if cell.cell_type == "code":
      assert cell.outputs == []
      assert cell.execution_count is None


def test_all_install_in_the_same_way():
  assert len(NOTEBOOKS) == 2
  for cell_id in ("storage", "install"):
    sources = [cell.source for name in NOTEBOOKS for cell in read(name).cells if cell.id == cell_id]
    assert len(sources) == len(NOTEBOOKS)
    assert len({*sources}) == 1


@pytest.mark.quick_compile
def test_train_and_sweep_continues_after_a_disconnect(tmp_path):
  parameters = "WORKDIR, DATA, EPOCHS, LATENTS, SOURCE = 'runs', 'digits', 6, (2, 4), ''"
  with pytest.raises(nbclient.exceptions.DeadKernelError):
    execute("train_and_sweep.ipynb", tmp_path, parameters + DISCONNECT)
  outputs = execute("train_and_sweep.ipynb", tmp_path, parameters)
  texts = {cell_id: printed(each) for cell_id, each in outputs.items()}
  assert re.search("resuming after epoch [24] of 6", texts["train"])
  assert "resuming after epoch 1 of 6" in texts["continue"]
  assert "Epochs: 1, then 6." in texts["continue"]
  assert "uninterrupted run: 0\n" in texts["continue"]  # bit for bit, on the CPU
  assert "4 members" in texts["sweep"]
  assert {cell_id: pictures(outputs[cell_id]) for cell_id in ("look", "use", "sweep-figure")} == {
    "look": 3,
    "use": 1,
    "sweep-figure": 1,
  }
  assert "<iframe" in outputs["report"][0].data["text/html"]


@pytest.mark.quick_compile
@pytest.mark.parametrize("leave_out", [("long",), pytest.param((), marks=pytest.mark.slow)], ids=["short", "all"])
def test_the_lecture_runs(leave_out, tmp_path):
  parameters = "DATA, EPOCHS, LATENTS, SOURCE = 'digits', 1, (2, 4), ''"
  outputs = execute("lecture.ipynb", tmp_path, parameters, leave_out)
  texts = {cell_id: printed(each) for cell_id, each in outputs.items()}
  assert "(99.945 %, 0.055 %)" in texts["softmax"]
  assert "[1. 1. 1.]" in texts["attention"]
  assert texts["sizes"].splitlines()[0] == "lecture: 5 -> 9, and 11 -> 31"
  assert texts["sizes"].endswith("5 -> 11 -> 28\n")
  assert "62,481 against 419,120" in texts["cost"]
  assert "0.6931 = ln 2" in texts["losses"]
  drawn = {cell_id for cell_id, each in outputs.items() if pictures(each)}
  assert drawn == {"attending", "dense-figure", "manifold-figure", "skips", "upsampling"} & {*outputs}
