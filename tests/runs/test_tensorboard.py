"""TensorBoard event files, read back record by record."""

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
  """Yields all events in a folder; the format of a record is length, checksum, event, checksum."""
  for file in sorted(folder.glob("events.*")):
    content = file.read_bytes()
    while content:
      length = int.from_bytes(content[:8], "little")
      yield event_pb2.Event.FromString(content[12 : 12 + length])
      content = content[12 + length + 4 :]


def summaries(folder):
  """Returns (step, value) of all summaries."""
  return [(event.step, value) for event in events(folder) for value in event.summary.value]


def sessions(folder):
  """Returns the data of the HParams plugin by tag."""
  data = {}
  for _, value in summaries(folder):
    if value.metadata.plugin_data.plugin_name == "hparams":
      data[value.tag] = plugin_hparams_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
  return data


def run(folder, config, finish=True, pictures=None):
  folder.mkdir()
  with logs.Log(folder, 0, {"config": config}) as log:
    log.write({"step": 5, "epoch": 1.0, "test/squared_error": 2.5, "test/psnr": math.inf})
    if finish:
      log.finish({"probe/accuracy": 0.75, "latent/dimension": math.nan}, pictures or {})


def test_flat_joins_nested_keys_with_dots():
  assert tensorboard.flat(CONFIG) == FLAT


@pytest.mark.parametrize("finish", [True, False])
def test_run_is_a_session_with_its_config(tmp_path, finish):
  run(tmp_path / "run", CONFIG, finish)
  data = sessions(tmp_path / "run")
  hparams = data["_hparams_/session_start_info"].session_start_info.hparams
  assert {name: getattr(value, value.WhichOneof("kind")) for name, value in hparams.items()} == FLAT
  end = data.get("_hparams_/session_end_info")
  assert (end is not None) == finish
  assert not finish or end.session_end_info.status == 1  # success


def test_sweep_members_share_one_hparams_table(tmp_path):
  """All have the same keys, and none writes an experiment summary, which TensorBoard would use for all runs."""
  keys = []
  for latent in (2, 4):
    run(tmp_path / f"latent={latent}", {**CONFIG, "model": {**CONFIG["model"], "latent": latent}})
    data = sessions(tmp_path / f"latent={latent}")
    assert data.keys() == {"_hparams_/session_start_info", "_hparams_/session_end_info"}
    hparams = data["_hparams_/session_start_info"].session_start_info.hparams
    assert hparams["model.latent"].number_value == latent
    keys.append(set(hparams))
  assert keys[0] == keys[1]


def test_scalars_equal_the_records(tmp_path):
  with logs.Log(tmp_path, 0) as log:
    for step in (1, 2, 3):
      log.write({"step": step, "epoch": step / 2, "train/loss": 1.5 * step})
  scalars = {(value.tag, step): value.simple_value for step, value in summaries(tmp_path)}
  assert scalars == {(tag, s): v for s in (1, 2, 3) for tag, v in {"epoch": s / 2, "train/loss": 1.5 * s}.items()}


def test_finite_metrics_are_scalars(tmp_path):
  run(tmp_path / "run", CONFIG)
  scalars = {(value.tag, step): value.simple_value for step, value in summaries(tmp_path / "run")}
  assert scalars["test/squared_error", 5] == 2.5
  assert scalars["probe/accuracy", 5] == 0.75
  assert not {"test/psnr", "latent/dimension", "step"} & {tag for tag, _ in scalars}


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4), ("P", 3), ("LA", 2)])
def test_pictures_are_stored_unchanged(tmp_path, mode, channels):
  file = tmp_path / "grid.png"
  Image.fromarray(np.arange(60, dtype=np.uint8).reshape(6, 10)).convert(mode).save(file)
  run(tmp_path / "run", CONFIG, pictures={"grid": file})
  ((step, value),) = [(step, value) for step, value in summaries(tmp_path / "run") if value.HasField("image")]
  assert (step, value.tag) == (5, "pictures/grid")
  assert (value.image.width, value.image.height, value.image.colorspace) == (10, 6, channels)
  assert value.image.encoded_image_string == file.read_bytes()


def test_continued_run_starts_a_session_after_its_step(tmp_path):
  run(tmp_path / "run", CONFIG, finish=False)
  with logs.Log(tmp_path / "run", 3, {"config": CONFIG}) as log:
    log.write({"step": 4, "epoch": 0.8, "test/squared_error": 3.0})
  assert len(list((tmp_path / "run").glob("events.*"))) == 2, "the second file replaced the first"
  starts = [event.step for event in events(tmp_path / "run") if event.session_log.status == event_pb2.SessionLog.START]
  assert sorted(starts) == [1, 4]


def test_events_are_flushed_every_30_seconds_and_at_the_end(tmp_path, monkeypatch):
  flushed = lambda: [step for step, value in summaries(tmp_path) if value.tag == "train/loss"]
  with contextlib.closing(tensorboard.Board(tmp_path, 0, CONFIG)) as board:
    now = [board._flushed]
    monkeypatch.setattr(tensorboard, "time", types.SimpleNamespace(time=time.time, monotonic=lambda: now[0]))
    for step, expected in ((1, []), (2, []), (3, [1, 2, 3]), (4, [1, 2, 3])):
      board.write({"step": step, "train/loss": 1.0})
      assert flushed() == expected
      now[0] += 20.0
    board.finish(4)
    assert flushed() == [1, 2, 3, 4]
