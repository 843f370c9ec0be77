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
  return data.load("csv", str(tmp_path / "a.csv"), "real", **{"window": 10} | options)


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
  notes = "\n".join(found.remarks)
  assert "a step every 15 min; 1 longer step, at most 2.75 h: windows span them; " in notes
  assert "to begin a new recording after each: --config.data.max_gap=1.5" in notes


def test_windows_do_not_span_gaps_and_the_test_part_is_the_end_of_the_recording(tmp_path):
  hours = np.arange(STEPS) + 5 * (np.arange(STEPS) >= 45) + 9 * (np.arange(STEPS) >= 49) + 3 * (np.arange(STEPS) >= 172)
  frame = FRAME.assign(time=TIMES[0] + pd.to_timedelta(15 * hours, "min"), speed=np.arange(STEPS) % 191)
  found = load(tmp_path, frame, label="state", one_class="normal", stride=5, max_gap=1.5, validation=0.1)
  firsts = [0, 5, 10, 15, 20, 25, 30, 35, *range(49, 135, 5)]  # steps 45 to 48 are shorter than a window
  np.testing.assert_array_equal(found.train[:, 0, 1], firsts)
  np.testing.assert_array_equal(found.validation[:, :, 1].astype(int), [np.arange(144, 154), np.arange(149, 159)])
  np.testing.assert_array_equal(found.test_start, [160, *range(172, 191, 5)])  # step 170 and 171 end a piece
  assert found.test_labels.tolist() == [1, 0, 1, 1, 1]
  np.testing.assert_array_equal(np.ptp(found.test_times, 1), np.ptp(found.test_times[0]))
  assert found.test_captions(np.array([1])) == (f"from {frame.time[172]:%Y-%m-%d %H:%M}",)
  notes = "\n".join(found.remarks)
  assert (
    "3 longer steps, at most 2.5 h: longer than 22.5 min (config.data.max_gap), so windows do not span them" in notes
  )
  assert "training recording: 144 steps in 3 pieces, 26 windows" in notes
  assert "4 in 1 piece shorter than a window" in notes
  with pytest.raises(errors.UserError, match="has 4 parts of at most 123 steps"):
    load(tmp_path, frame, label="state", max_gap=1.5, window=130, test=0.1)


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
    ({}, {"label": "state", "columns": ("time=ignore",), "max_gap": 2.0}, r"max_gap=2: .* has no column of times"),
    ({}, {"max_gap": 1.0}, r"max_gap=1.0: must be 0, or more than 1"),
    ({}, {"window": 0, "max_gap": 2.0}, r"max_gap=2: needs config.data.window"),
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


@pytest.mark.parametrize("kinds", [(), ("time=date",)])
def test_times_with_a_time_zone_are_named_utc(tmp_path, kinds):
  frame = FRAME.assign(time=TIMES.tz_localize("Etc/GMT-2").map(pd.Timestamp.isoformat)).drop(columns="state")
  for placement in ("memory", "stream"):
    found = load(tmp_path, frame, columns=kinds, placement=placement, budget_gib=1e-6 * (placement == "stream"))
    assert found.test_captions(np.array([0])) == ("from 2026-03-02 14:00 UTC",)
    assert found.time_axis.label == "time (UTC)"
    assert any("from 2026-02-28 22:00 UTC to 2026-03-02 23:45 UTC" in note for note in found.remarks)
  found = load(tmp_path, FRAME, label="state", columns=kinds)
  assert (found.time_axis.label, found.time_axis.is_utc) == ("time", False)


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
  _check_gaps_in_new_tables(run, tmp_path)
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


def _check_gaps_in_new_tables(run, tmp_path):
  time = run.record_columns.time
  longest = time._replace(longest=1.5 * 15 / 1440)
  run = dataclasses.replace(run, record_columns=run.record_columns._replace(time=longest))
  frame = FRAME.assign(time=TIMES.where(FRAME.index < 105, TIMES + pd.Timedelta("1h")))
  parts = [FRAME[:105], FRAME[105:]]
  expected = np.concatenate([run.score_record(part) for part in parts])
  np.testing.assert_allclose(run.score_record(frame), expected, rtol=1e-5)
  assert np.flatnonzero(np.isnan(expected)).tolist() == [*range(100, 105), *range(195, 200)]
  frame.to_csv(tmp_path / "new.csv", index=False)
  found = rows.read(run, str(tmp_path / "new.csv"))
  (part,) = found.parts
  assert part.names[9:11] == ["new.csv[90:100]", "new.csv[105:115]"]
  assert found.remarks[0].endswith("longer than 22.5 min (config.data.max_gap), so windows do not span them")
  assert part.labels.tolist().index("fault") == 16  # the windows begin 5 steps later
  (part,) = rows.read(run, str(tmp_path / "new.csv"), names="time").parts
  assert part.names[10] == str(frame.time[105])
  frame.drop(columns="time").to_csv(tmp_path / "new.csv", index=False)
  assert "has no column of times 'time', so windows can" in rows.read(run, str(tmp_path / "new.csv")).remarks[0]
  stored = json.loads(json.dumps(run.record_columns.as_json()))
  assert recorded_tables.from_json(stored) == run.record_columns
  stored["time"] = {"name": "time", "is_date": True}  # of an earlier version
  assert recorded_tables.from_json(stored).time == time


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


def test_the_command_for_windows_is_first_if_the_times_are_regular(tmp_path):
  frame = pd.concat([FRAME] * 3, ignore_index=True)
  frame["time"] = pd.date_range("2026", periods=len(frame), freq="min")
  frame.assign(heat=np.sin(frame.index / 30), speed=np.cos(frame.index / 30)).to_csv(tmp_path / "a.csv", index=False)
  status, printed, _ = run_command("inspect_data", tmp_path / "a.csv")
  assert status == 0
  of_windows, of_rows = printed.splitlines()[-2:]
  assert of_windows.startswith("to train, as a recording, in windows: ae_jax train --config=dense:csv")
  assert "--config.data.window=50 --config.data.stride=12" in of_windows
  assert "--config.data.one_class=normal" in of_windows
  assert "--config.evaluators='reconstruction','anomaly'," in of_windows
  assert of_rows.startswith("if each row is an example: ae_jax train --config=table:csv")
