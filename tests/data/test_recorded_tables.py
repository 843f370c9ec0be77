"""Tests of recordings in tables: channels, times, labels, missing values and several files."""

import dataclasses
import json
import re

import jax
import numpy as np
import pandas as pd
import pytest
from conftest import run_command

import ae_jax
from ae_jax import data, errors
from ae_jax.data import detection, in_memory, inspection, recorded_tables
from ae_jax.decisions import rows

STEPS = 200
TIMES = pd.date_range("2026-03-01", periods=STEPS, freq="15min")
FRAME = pd.DataFrame(
  {
    "time": TIMES,
    "heat": np.sin(np.arange(STEPS) / 9),
    "speed": np.arange(STEPS) % 7,
    "pump": np.where(np.arange(STEPS) % 50 < 25, "on", "off"),
    "state": ["fault" if 170 <= step < 175 else "normal" for step in range(STEPS)],
  }
).replace({"pump": {"on": "yes", "off": "no"}})


def load(tmp_path, frame=FRAME, **options):
  frame.to_csv(tmp_path / "a.csv", index=False)
  return data.load("csv", str(tmp_path / "a.csv"), "real", window=10, **options)


def test_columns_are_channels_and_dates_are_times(tmp_path):
  found = load(tmp_path, label="state", one_class="normal")
  assert found.shape == (10, 3)
  assert found.channel_names == ("heat", "speed", "pump")
  np.testing.assert_allclose(found.train[1, :, 0], FRAME.heat[10:20], rtol=1e-6)
  np.testing.assert_array_equal(found.test[-1, :, 2], FRAME.pump[190:] == "yes")
  assert found.class_names == ("fault", "normal")
  np.testing.assert_array_equal(found.test_labels, [1, 0, 1, 1])  # a window with one step of a fault is a fault
  np.testing.assert_array_equal(found.test_times[0] * 86_400, TIMES[160:170].astype("datetime64[s]").astype(int))
  assert found.test_captions(np.array([0, 3])) == ("from 2026-03-02 16:00", "from 2026-03-02 23:30")
  notes = "\n".join(found.remarks)
  assert "channels of the recording: heat, speed, pump" in notes
  assert "column 'time', from 2026-03-01 00:00 to 2026-03-03 01:45, a step every 15 min" in notes
  assert "longer" not in notes


def test_gaps_in_time_are_named(tmp_path):
  found = load(tmp_path, FRAME.drop(index=range(30, 40)).drop(columns="state"))
  assert "a step every 15 min; 1 longer step, at most 2.75 h: windows span them" in "\n".join(found.remarks)


@pytest.mark.parametrize(
  ("changes", "options", "fault"),
  [
    ({}, {}, r"1 column of words cannot be channels of a recording: state; .*columns=\"'state=ignore',\""),
    ({"state": TIMES}, {}, r"time, state contain dates, but only one .*'state=ignore'"),
    ({"heat": FRAME.heat.where(FRAME.index != 7)}, {"label": "state"}, r"1 values are missing.*row 7.*missing=mask"),
    ({"time": TIMES.where(FRAME.index != 3)}, {"label": "state"}, "column of times 'time' has no value in row 3"),
    ({"time": TIMES[::-1]}, {"label": "state"}, r"row 1 \(counted from 0\) has an earlier time .*sort"),
    ({}, {"label": "state", "missing": "mean"}, "missing='mean': is for rows of a table; .*missing=mask"),
    ({}, {"label": "state", "group": "pump"}, "split by time"),
    ({}, {"columns": ("heat=ignore", "speed=ignore", "pump=ignore", "state=ignore")}, "no column of numbers besides"),
  ],
)
def test_faults_are_named(tmp_path, changes, options, fault):
  with pytest.raises(errors.UserError, match=fault):
    load(tmp_path, FRAME.assign(**changes), **options)


def test_missing_values_are_masked(tmp_path):
  gaps = FRAME.assign(heat=FRAME.heat.where(FRAME.index % 20 != 3))
  found = load(tmp_path, gaps, label="state", missing="mask", scale="standard")
  assert any(remark.endswith("10 missing values left out of the loss and the scores") for remark in found.remarks)
  for split, first, stop in (("train", 0, 160), ("test", 160, 200)):
    mask = found.columns[split]["mask"].reshape(-1, 3)
    np.testing.assert_array_equal(mask[:, 0], gaps.heat[first:stop].notna())
    assert mask[:, 1:].all()
  observed = found.columns["train"]["mask"]
  np.testing.assert_allclose(found.train[..., 0][observed[..., 0]].std(), 1, rtol=1e-5)


def test_increasing_numbers_are_times(tmp_path):
  seconds = FRAME[["heat", "speed"]].assign(energy=np.arange(STEPS) ** 2.0, seconds=np.arange(STEPS) / 4)
  found = load(tmp_path, seconds)
  assert found.channel_names == ("heat", "speed", "energy")
  assert found.test_captions(np.array([0])) == ("from seconds=40",)
  (note,) = [remark for remark in found.remarks if "increases at every step" in remark]
  assert "'energy=ignore'" in note
  found = load(tmp_path, seconds, columns=("seconds=numeric",))
  assert found.channel_names == ("heat", "speed", "energy", "seconds")
  found = load(tmp_path, FRAME[["heat", "speed"]])
  assert found.time_axis is None
  assert found.test_captions(np.array([0])) == ("from step 160",)


def test_each_file_is_a_recording(tmp_path):
  for number in range(2):  # the files overlap in time
    FRAME.drop(columns="state").iloc[number * 60 : number * 60 + 105].to_csv(tmp_path / f"b{number}.csv", index=False)
  found = data.load("csv", str(tmp_path / "b*.csv"), "real", window=10)
  assert [len(found.train), len(found.test)] == [16, 4]
  np.testing.assert_array_equal(found.test_recording, ["b0", "b0", "b1", "b1"])
  np.testing.assert_array_equal(found.test_start, [84, 94, 84, 94])
  assert found.test_captions(np.array([2])) == ("b1, from 2026-03-02 12:00",)


def test_streaming_reads_the_same_windows(tmp_path):
  kept = load(tmp_path, label="state", placement="memory")
  streamed = load(tmp_path, label="state", placement="stream", budget_gib=1e-6)
  np.testing.assert_array_equal(streamed.train[np.arange(len(kept.train))], kept.train)
  np.testing.assert_array_equal(streamed.test_times, kept.test_times)
  assert streamed.fingerprints == kept.fingerprints


@pytest.mark.parametrize("days", [0.0, 20_000.5])
def test_times_as_text(days):
  axis = recorded_tables.TimeAxis("t", True)
  assert pd.Timestamp(axis.text(days)) == pd.Timestamp(0) + pd.Timedelta(days=days)
  assert axis.length(1 / 86_400) == "1 s"
  assert axis.length(2.5) == "2.5 days"
  assert axis.length(1.0 + 1e-3 / 86_400 - 1.0) == "1 ms"
  assert axis.text(0.001 / 86_400) == "1970-01-01 00:00:00.001"
  assert recorded_tables.TimeAxis("t", False).text(12.5) == "t=12.5"


def test_descriptions_name_the_command_for_windows(tmp_path):
  frame = pd.concat([FRAME] * 3, ignore_index=True).assign(site="A", heat=lambda rows: np.sin(rows.index / 30))
  frame = frame.assign(time=pd.date_range("2026", periods=len(frame), freq="min"))[
    [*frame.columns.drop("state"), "state"]
  ]
  frame = frame.assign(site=np.where(frame.index % 2, "A", "B"), speed=frame.heat.where(frame.index != 3))
  frame.to_csv(tmp_path / "a.csv", index=False)
  result = inspection.inspect(detection.detect(str(tmp_path / "a.csv")), "a.csv")
  assert result.recorded is not None
  chosen = {key: result.recorded[key] for key in ("label", "one_class", "columns", "missing")}
  assert chosen == {"label": "state", "one_class": "normal", "columns": ("site=ignore",), "missing": "mask"}
  command = inspection.record_command("csv", "a.csv", result.recorded)
  assert re.search(r" \"--config.data.columns='site=ignore',\" ", command)
  data.load("csv", str(tmp_path / "a.csv"), **result.recorded)


@pytest.mark.quick_compile
@pytest.mark.runs_optax
def test_runs_score_new_tables(tmp_path):
  options = {"data__window": 10, "data__one_class": "normal", "data__missing": "mask"}
  options |= {"model": "dense", "latent": 2, "epochs": 1, "evaluators": (), "verbose": False}
  with jax.numpy_rank_promotion("allow"):
    run = ae_jax.fit(FRAME.set_index("time"), "state", **options)
  assert run.record_columns.channels == ("heat", "speed", "pump")
  assert recorded_tables.from_json(json.loads(json.dumps(run.record_columns.as_json()))) == run.record_columns
  gaps = FRAME.assign(heat=FRAME.heat.where(FRAME.index != 5), unknown=1.0)[[*FRAME.columns[::-1], "unknown"]]
  gaps.loc[7, ["heat", "speed", "pump"]] = None
  scores = run.score_record(gaps)
  of_channels = run.score_record(gaps, per_channel=True)
  assert of_channels.shape == (STEPS, 3)
  np.testing.assert_array_equal(np.argwhere(np.isnan(of_channels)), [[5, 0], [7, 0], [7, 1], [7, 2]])
  np.testing.assert_allclose(np.nansum(of_channels, 1), np.where(FRAME.index == 7, 0, scores))
  assert np.isnan(scores[7])
  array = np.where(np.isnan(of_channels), np.nan, FRAME[["heat", "speed", "pump"]].replace({"yes": 1, "no": 0}))
  np.testing.assert_allclose(run.score_record(array.astype(float)), scores, rtol=1e-5)
  gaps.to_csv(tmp_path / "new.csv", index=False)
  found = rows.read(run, str(tmp_path / "new.csv"), names="time")
  (part,) = found.parts
  times, missing, unread = found.remarks
  assert "times: column 'time', from 2026-03-01 00:00" in times
  assert "4 missing values left out of the loss and the scores; 1 step without any value, the first in row 7" in missing
  assert unread.endswith("not read: unknown; these columns are no channels of the run")
  assert list(part.names[:2]) == ["2026-03-01 00:00:00", "2026-03-01 02:30:00"]
  assert list(part.labels[16:]) == ["normal", "fault", "normal", "normal"]
  np.testing.assert_allclose(run.score(part.x), np.nansum(scores.reshape(20, 10), 1), rtol=1e-5)
  (part,) = rows.read(run, str(tmp_path / "new.csv")).parts
  assert part.names[1] == "new.csv[10:20]"
  run.set_threshold(value=1.0)
  for call in (run.score, run.flag, run.explain, run.impute):
    with pytest.raises(errors.UserError, match=r"use run.score_record .* an array of windows \[N, 10, 3\]"):
      call(FRAME)
  with pytest.raises(errors.UserError, match="score_record scores a recording"):  # numbers, but too many columns
    run.score(FRAME[["heat", "speed"]].assign(a=1.0, b=2.0))
  for fault, frame in {
    "has no column 'heat'": FRAME.drop(columns="heat"),
    "'x' in row 0 .*; correct it$": FRAME.assign(heat="x"),
    "earlier time": FRAME.iloc[::-1],
    "'no' in row 25": FRAME.assign(heat=FRAME.pump.where(FRAME.index > 24, "1")),
  }.items():
    with pytest.raises(errors.UserError, match=fault):
      run.score_record(frame)
  gaps.assign(state=np.where(FRAME.index % 7 == 3, 10, 2)).to_csv(tmp_path / "new.csv", index=False)
  (part,) = rows.read(run, str(tmp_path / "new.csv")).parts
  assert set(part.labels.tolist()) == {10}  # compared as numbers
  unnamed = dataclasses.replace(run, record_columns=None)
  with pytest.raises(errors.UserError, match="trained on an array"):
    unnamed.score_record(FRAME)


def test_indices_of_frames_are_times():
  plain = FRAME.drop(columns="state")
  options = {"kind": "series", "window": 10}
  for frame in (
    plain,
    plain.set_index("time"),
    plain.set_index("time", drop=False),
    plain.drop(columns="time").set_index(pd.period_range("2026-03-01", periods=STEPS, freq="15min", name="time")),
  ):
    found = data.load("frame", "", "real", given={"train": in_memory.SplitData(frame)}, **options)
    assert found.channel_names == ("heat", "speed", "pump")
    assert found.test_captions(np.array([0])) == ("from 2026-03-02 16:00",)


def test_times_of_a_recording_can_be_equal(tmp_path):
  found = load(tmp_path, FRAME.assign(time=TIMES.floor("30min")).drop(columns="state"))
  assert any("a step every 30 min; 100 steps with the time of the step before" in note for note in found.remarks)
  found = load(tmp_path, FRAME.assign(time=TIMES[0]).drop(columns="state"))
  assert any("all times of a recording are equal" in note for note in found.remarks)


def test_windows_that_cannot_be_cut_do_not_end_the_description(tmp_path):
  frame = FRAME[["heat"]].assign(warmth=FRAME.heat, time=TIMES[::-1])
  pd.concat([frame] * 2).to_csv(tmp_path / "a.csv", index=False)
  status, printed, _ = run_command("inspect_data", tmp_path / "a.csv")
  assert status == 0
  assert "to train: ae_jax train --config=table:csv" in printed
  assert "as a recording, windows of 50 steps cannot be cut: " in printed
  assert "earlier time" in printed
