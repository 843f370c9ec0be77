"""Kinds of examples in arrays, windows of recordings, and standardisation."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

import ae_jax
from ae_jax import data, errors
from ae_jax.data import windows
from ae_jax.training import train

pytestmark = pytest.mark.quick_compile

RANDOM = np.random.default_rng(0)


def saved(path, **arrays):
  np.savez(path, **arrays)
  return str(path)


@pytest.mark.parametrize(
  ("shape", "kind", "example", "name"),
  [
    ((9, 4), "auto", (4,), "table"),
    ((9, 4), "table", (4,), "table"),
    ((9, 4), "series", (4, 1), "series"),
    ((9, 4, 5), "series", (4, 5), "series"),
    ((9, 4, 5), "auto", (4, 5, 1), "images"),
    ((9, 4, 5, 3), "images", (4, 5, 3), "images"),
    ((9, 4, 5, 3), "volumes", (4, 5, 3, 1), "volumes"),
    ((9, 4, 5, 3, 2), "auto", (4, 5, 3, 2), "volumes"),
  ],
)
def test_kind_decides_the_axes_of_an_example(tmp_path, shape, kind, example, name):
  x = RANDOM.normal(size=shape)
  path = saved(tmp_path / "x.npz", x_train=x, x_test=x[:2])
  memory, stream = (data.load("npz", path, "real", kind=kind, placement=place) for place in ("memory", "stream"))
  assert memory.shape == stream.shape == example
  assert memory.kind == name
  np.testing.assert_array_equal(memory.train, x.astype(np.float32).reshape(9, *example))
  np.testing.assert_array_equal(stream.train[:], memory.train)


@pytest.mark.parametrize(
  ("shape", "kind", "message"),
  [
    ((9,), "auto", "have 1 axes; expected one of .N, columns. .table.; .N, T. or"),
    ((9, 4), "images", r"config\.data\.kind='images': .* have 2 axes; expected \[N, H, W\] or"),
    ((9, 4, 3), "table", r"config\.data\.kind='table': .* have 3 axes; expected \[N, columns\]"),
    ((9, 4), "pictures", r"config\.data\.kind='pictures' is unknown"),
  ],
)
def test_arrays_of_another_kind_are_refused(tmp_path, shape, kind, message):
  with pytest.raises(errors.UserError, match=message):
    data.load("npz", saved(tmp_path / "x.npz", x_train=np.ones(shape)), "real", kind=kind)


def test_kind_of_an_embedded_data_set_cannot_be_changed():
  with pytest.raises(errors.UserError, match=r"config\.data\.kind='table': .* is of the kind images"):
    data.load("digits", "", "unit", kind="table")


@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize(("window", "stride"), [(10, 0), (10, 3), (7, 7), (4, 6)])
def test_windows_are_parts_of_one_split_of_the_recording(tmp_path, window, stride, channels):
  steps = np.arange(101.0)
  record = steps if channels is None else np.stack([steps, -steps], 1)
  np.save(tmp_path / "x.npy", record)
  arguments = {"name": "npy", "path": str(tmp_path / "x.npy"), "range": "real", "window": window, "stride": stride}
  memory, stream = (data.load(placement=place, **arguments) for place in ("memory", "stream"))
  stride = stride or window
  for examples, first, length in ((memory.train, 0, 81), (memory.test, 81, 20)):
    assert examples.shape == ((length - window) // stride + 1, window, channels or 1)
    starts = first + stride * np.arange(len(examples))
    np.testing.assert_array_equal(examples[..., 0], starts[:, None] + np.arange(window))
  np.testing.assert_array_equal(stream.train[:], memory.train)
  assert "training recording: 81 steps" in memory.remarks[0]


def test_label_of_a_window_is_the_largest_label_of_its_steps(tmp_path):
  labels = np.zeros(50, int)
  labels[[7, 48]] = 1
  path = saved(tmp_path / "x.npz", x_train=np.ones(50), y_train=labels)
  dataset = data.load("npz", path, "real", window=5)
  assert dataset.train_labels.tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
  assert dataset.test_labels.tolist() == [0, 1]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"window": 200}, r"config\.data\.window=200: the training recording of .* has only 80 steps"),
    ({"window": -1}, r"config\.data\.window=-1: must be an integer, 0 or more"),
    ({"stride": 5}, r"config\.data\.stride=5: needs config\.data\.window"),
    ({"window": 5, "kind": "images"}, "windows are supported only for series"),
    ({"window": 5, "scale": "standard", "range": "unit"}, r"set config\.data\.range='real'"),
    ({"scale": "minmax"}, r"config\.data\.scale='minmax' is unknown"),
  ],
)
def test_invalid_windows_and_scales_are_refused(tmp_path, options, message):
  np.save(tmp_path / "x.npy", np.ones(100))
  with pytest.raises(errors.UserError, match=message):
    data.load(**{"name": "npy", "path": str(tmp_path / "x.npy"), "range": "real", **options})


@pytest.mark.parametrize("stride", [2, 5])
def test_values_over_time_are_means_over_the_windows_that_contain_a_step(stride):
  steps = np.arange(23.0)
  starts = np.arange(0, 23 - 5 + 1, stride)
  values = windows.over_time(steps[starts[:, None] + np.arange(5)], starts, 23)
  end = starts[-1] + 5
  np.testing.assert_array_equal(values[:end], steps[:end])
  assert np.isnan(values[end:]).all()
  numbers = windows.over_time(np.arange(len(starts))[:, None] + np.zeros(5), starts, 23)
  assert numbers[10] == np.mean([number for number, start in enumerate(starts) if start <= 10 < start + 5])


def test_windows_apart_are_those_that_overlap_no_earlier_one():
  order, starts, names = np.array([3, 2, 0, 5, 4, 1]), np.array([0, 2, 4, 6, 0, 2]), np.array([*"aaaabb"])
  assert windows.apart(order, 9, starts, 4).tolist() == [3, 0]
  assert windows.apart(order, 9, starts, 4, names).tolist() == [3, 0, 5]
  assert windows.apart(order, 2, starts, 4, names).tolist() == [3, 0]
  assert windows.apart(order[:0], 2, starts, 4).tolist() == []


def test_labels_of_the_steps_of_test_windows_are_kept(tmp_path):
  labels = RANDOM.integers(0, 3, 60)
  path = saved(tmp_path / "x.npz", x_train=RANDOM.normal(size=(60, 2)), y_train=labels)
  dataset = data.load("npz", path, "real", window=4, stride=2)
  expected = labels[dataset.test_start[:, None] + np.arange(4)]
  np.testing.assert_array_equal(dataset.test_step_labels, expected)
  np.testing.assert_array_equal(dataset.test_labels, expected.max(1))


@pytest.mark.parametrize("shape", [(40, 6), (40, 7, 2), (40, 3, 3, 3)])
def test_standardisation_agrees_with_scikit_learn_and_does_not_depend_on_the_placement(tmp_path, shape):
  x = RANDOM.normal(size=shape) * 10.0 ** np.arange(shape[-1]) + 3
  x[..., 0] = 2.0  # constant: only its mean is subtracted
  path = saved(tmp_path / "x.npz", x_train=x[:30], x_test=x[30:])
  options = {"scale": "standard", "kind": {2: "table", 3: "series", 4: "images"}[len(shape)]}
  memory, stream = (data.load("npz", path, "real", placement=place, **options) for place in ("memory", "stream"))
  scaler = StandardScaler().fit(x[:30].reshape(-1, shape[-1]))
  for split, rows in ((memory.train, x[:30]), (memory.test, x[30:])):
    expected = scaler.transform(rows.reshape(-1, shape[-1])).reshape(rows.shape)
    np.testing.assert_allclose(split, expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(stream.train[:], memory.train)
  np.testing.assert_allclose(memory.standardisation.invert(memory.test), x[30:], rtol=1e-4, atol=1e-4)


@pytest.mark.runs_optax
def test_run_on_a_record_scores_its_time_steps_in_the_units_of_the_data(tmp_path, tiny):
  """A table with columns of other units is a recording: windows, standardisation, evaluation and the loaded run."""
  record = np.sin(np.arange(400)[:, None] / (3, 7)) * (1, 1000) + (0, 5000)
  np.save(tmp_path / "x.npy", record)
  tiny.data.update(name="npy", path=str(tmp_path / "x.npy"), range="real", window=20, stride=5, scale="standard")
  tiny.objective.likelihood = "gaussian"
  metrics = train.train_and_evaluate(tiny, tmp_path / "run")
  assert metrics["test/squared_error"] < 2 * 20 * 2  # standardised: about 1 for each of 40 values
  run = ae_jax.load(tmp_path / "run")
  windows_of = np.stack([record[start : start + 20] for start in range(0, 381, 5)]).astype(np.float32)
  reconstructions = run.reconstruct(windows_of)
  assert abs(reconstructions[..., 1].mean() - 5000) < 500
  deviations = (reconstructions - windows_of) / run.standardisation.deviation
  np.testing.assert_allclose(run.score(windows_of), np.square(deviations).sum((1, 2)), rtol=1e-2)
  scores = run.score_record(record)
  assert scores.shape == (400,)
  with pytest.raises(errors.UserError, match="score_record"):
    run.score(record)
  np.testing.assert_allclose(scores[0], np.square(deviations[0, 0]).sum(), rtol=1e-2)
