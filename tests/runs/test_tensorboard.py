"""What TensorBoard finds in the folder of a run: read back by the protocol, a record at a time."""

import contextlib
import math
import time
import types

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2, plugin_hparams_pb2

from ae_jax.runs import logs, tensorboard

CONFIG = {
  "seed": 3,
  "remat": False,
  "model": {"name": "dense", "latent": 4, "widths": [16, 8]},
  "optimizer": {"learning_rate": 2e-3},
  "stages": [{"epochs": 2}],
}
FLAT = {
  "seed": 3,
  "remat": False,
  "model.name": "dense",
  "model.latent": 4,
  "model.widths": "[16, 8]",
  "optimizer.learning_rate": 2e-3,
  "stages": '[{"epochs": 2}]',
}


def events(folder):
  """All events of a folder: a record is a length, its checksum, the event, its checksum."""
  for file in sorted(folder.glob("events.*")):
    content = file.read_bytes()
    while content:
      length = int.from_bytes(content[:8], "little")
      yield event_pb2.Event.FromString(content[12 : 12 + length])
      content = content[12 + length + 4 :]


def summaries(folder):
  """(step, value) of all its summaries."""
  return [(event.step, value) for event in events(folder) for value in event.summary.value]


def sessions(folder):
  """What the plugin of the HParams tab finds: {tag: its data}."""
  found = {}
  for _, value in summaries(folder):
    if value.metadata.plugin_data.plugin_name == "hparams":
      found[value.tag] = plugin_hparams_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
  return found


def run(folder, config, finish=True, pictures=None):
  folder.mkdir()
  with logs.Log(folder, 0, {"config": config}) as log:
    log.write({"step": 5, "epoch": 1.0, "test/squared_error": 2.5, "test/psnr": math.inf})
    if finish:
      log.finish({"probe/accuracy": 0.75, "latent/dimension": math.nan}, pictures or {})


def test_a_nested_config_becomes_names_with_dots():
  assert tensorboard.flat(CONFIG) == FLAT


@pytest.mark.parametrize("finish", [True, False])
def test_a_run_is_a_session_with_its_config(tmp_path, finish):
  run(tmp_path / "run", CONFIG, finish)
  found = sessions(tmp_path / "run")
  hparams = found["_hparams_/session_start_info"].session_start_info.hparams
  assert {name: getattr(value, value.WhichOneof("kind")) for name, value in hparams.items()} == FLAT
  end = found.get("_hparams_/session_end_info")
  assert (end is not None) == finish
  assert not finish or end.session_end_info.status == 1  # a success


def test_the_runs_of_a_sweep_stand_in_one_table(tmp_path):
  """Each of them has the same keys, and none an experiment of its own, which TensorBoard would take for that of all."""
  keys = []
  for latent in (2, 4):
    run(tmp_path / f"latent={latent}", {**CONFIG, "model": {**CONFIG["model"], "latent": latent}})
    found = sessions(tmp_path / f"latent={latent}")
    assert found.keys() == {"_hparams_/session_start_info", "_hparams_/session_end_info"}
    hparams = found["_hparams_/session_start_info"].session_start_info.hparams
    assert hparams["model.latent"].number_value == latent
    keys.append(set(hparams))
  assert keys[0] == keys[1]


def test_it_has_the_same_numbers(tmp_path):
  with logs.Log(tmp_path, 0) as log:
    for step in (1, 2, 3):
      log.write({"step": step, "epoch": step / 2, "train/loss": 1.5 * step})
  found = {(value.tag, step): value.simple_value for step, value in summaries(tmp_path)}
  assert found == {(tag, s): v for s in (1, 2, 3) for tag, v in {"epoch": s / 2, "train/loss": 1.5 * s}.items()}


def test_the_metrics_of_the_table_are_scalars(tmp_path):
  run(tmp_path / "run", CONFIG)
  found = {(value.tag, step): value.simple_value for step, value in summaries(tmp_path / "run")}
  assert found["test/squared_error", 5] == 2.5
  assert found["probe/accuracy", 5] == 0.75
  assert not {"test/psnr", "latent/dimension", "step"} & {tag for tag, _ in found}


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4), ("P", 3), ("LA", 2)])
def test_pictures_are_the_files_themselves(tmp_path, mode, channels):
  file = tmp_path / "grid.png"
  Image.fromarray(np.arange(60, dtype=np.uint8).reshape(6, 10)).convert(mode).save(file)
  run(tmp_path / "run", CONFIG, pictures={"grid": file})
  ((step, value),) = [each for each in summaries(tmp_path / "run") if each[1].HasField("image")]
  assert (step, value.tag) == (5, "pictures/grid")
  assert (value.image.width, value.image.height, value.image.colorspace) == (10, 6, channels)
  assert value.image.encoded_image_string == file.read_bytes()


def test_a_run_that_goes_on_forgets_what_lies_beyond_its_step(tmp_path):
  run(tmp_path / "run", CONFIG, finish=False)
  with logs.Log(tmp_path / "run", 3, {"config": CONFIG}) as log:
    log.write({"step": 4, "epoch": 0.8, "test/squared_error": 3.0})
  assert len(list((tmp_path / "run").glob("events.*"))) == 2, "within a second it has written over the first"
  starts = [event.step for event in events(tmp_path / "run") if event.session_log.status == event_pb2.SessionLog.START]
  assert sorted(starts) == [1, 4]


def test_tensorboard_sees_records_while_the_run_goes_on(tmp_path, monkeypatch):
  """Every half minute, and at the end before the file is closed."""
  shown = lambda: [step for step, value in summaries(tmp_path) if value.tag == "train/loss"]
  with contextlib.closing(tensorboard.Board(tmp_path, 0, CONFIG)) as board:
    now = [board._flushed]
    monkeypatch.setattr(tensorboard, "time", types.SimpleNamespace(time=time.time, monotonic=lambda: now[0]))
    for step, wanted in ((1, []), (2, []), (3, [1, 2, 3]), (4, [1, 2, 3])):
      board.write({"step": step, "train/loss": 1.0})
      assert shown() == wanted
      now[0] += 20.0
    board.finish(4)
    assert shown() == [1, 2, 3, 4]
