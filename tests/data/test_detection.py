import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ae_jax import data, errors
from ae_jax.data import detection, inspection

GENERATOR = np.random.default_rng(0)


def images(folder, sizes, count=12):
  folder.mkdir()
  for number in range(count):
    height, width = sizes[number % len(sizes)]
    Image.fromarray(GENERATOR.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{number:02}.png")


def inspected(path):
  found = detection.detect(str(path))
  return found, inspection.inspect(found, str(path))


def npz(path, **arrays):
  np.savez(path, **arrays)
  return path


@pytest.mark.parametrize(
  ("arrays", "kind", "options"),
  [
    ({"x_train": GENERATOR.normal(size=(40, 13))}, "table", {"range": "real", "scale": "standard"}),
    ({"x_train": GENERATOR.random((40, 50, 6), np.float32)}, "series", {"kind": "series"}),
    ({"x_train": GENERATOR.integers(0, 256, (40, 9, 7), np.uint8)}, "images", {}),
    ({"x_train": GENERATOR.random((40, 9, 7, 4)) * 2 - 1}, "images", {"range": "symmetric"}),
    ({"x_train": GENERATOR.random((40, 4, 5, 6, 1))}, "volumes", {}),
    ({"a": GENERATOR.random((40, 3, 9, 8)), "b": np.arange(40) % 2}, "images", {"x": "a", "y": "b", "layout": "nchw"}),
  ],
)
def test_the_options_that_are_found_load_the_data(tmp_path, arrays, kind, options):
  path = npz(tmp_path / "a.npz", **arrays)
  found, result = inspected(path)
  assert (found.name, result.kind, result.options) == ("npz", kind, options)
  dataset = data.load("npz", str(path), **({"range": "unit"} | result.options))
  assert (dataset.shape, dataset.kind) == (result.shape, kind)


def test_folders_of_equal_names_are_described_as_possible_pairs(tmp_path, monkeypatch):
  (tmp_path / "p").mkdir()
  for name in ("clean", "noisy"):
    images(tmp_path / "p" / name, [(8, 9)])
  _, result = inspected(tmp_path / "p")
  first = next(number for number, line in enumerate(result.lines) if line.startswith("equal names: "))
  assert "noisy and " in result.lines[first]
  monkeypatch.chdir(tmp_path)
  exec("\n".join(line.strip() for line in result.lines[first + 1 : first + 4]), {})  # the code of the message
  with np.load("pairs.npz") as saved:
    for array, name in (("x_train", "noisy"), ("target_train", "clean")):
      np.testing.assert_array_equal(saved[array][3], np.asarray(Image.open(tmp_path / "p" / name / "03.png")))
  assert inspected("pairs.npz")[1].has_targets
  (tmp_path / "p" / "clean" / "03.png").unlink()
  assert "equal names" not in "\n".join(inspected(tmp_path / "p")[1].lines)


def test_a_mixed_folder_with_damaged_files_is_described_and_loads(tmp_path):
  images(tmp_path / "p", [(10, 12), (12, 10)])
  Image.new("L", (10, 12)).save(tmp_path / "p" / "black.png")
  (tmp_path / "p" / "copy.png").write_bytes((tmp_path / "p" / "00.png").read_bytes())
  content = (tmp_path / "p" / "01.png").read_bytes()
  for name, damaged in {"half.png": content[: len(content) // 2], "empty.png": b"", "text.png": b"x"}.items():
    (tmp_path / "p" / name).write_bytes(damaged)
  (tmp_path / "p" / "scan.dcm").write_bytes(b"")
  found, result = inspected(tmp_path / "p")
  assert result.options == {"on_bad": "skip", "size": (64, 64), "fit": "crop", "channels": 3}
  text = "\n".join(result.lines)
  for expected in (
    "10 x 12 (7 images)",
    "RGB (13 images)",
    "L (1 image)",
    ".dcm (1 file)",
    "left out 3 of 17 images",
    "resizing: the aspect",
  ):
    assert expected in text, expected
  assert "black images: 1 training example; " in text or "black images: 1 test example; " in text
  assert f"{tmp_path}/p/black.png" in text
  assert data.load(found.name, str(tmp_path / "p"), "unit", **result.options).shape == (64, 64, 3)


def test_missing_values_constant_columns_and_duplicates_are_counted(tmp_path):
  train, test = GENERATOR.normal(size=(20, 5)), GENERATOR.normal(size=(10, 5))
  train[3, 1], train[:, 2], train[7], test[0] = np.nan, 4.0, train[6], train[5]
  _, result = inspected(npz(tmp_path / "a.npz", x_train=train, x_test=test))
  assert "missing values: 1 in 1 of 20 training examples; row 3" in result.lines
  assert "constant columns in the training examples: 1 of 5" in result.lines
  duplicates = "1 in the training examples, 0 in the test examples; 1 test example also among the training examples"
  assert f"exact duplicates: {duplicates}" in result.lines


def test_rows_are_numbered_as_in_the_file_although_a_fifth_is_held_out(tmp_path):
  values = GENERATOR.normal(size=(50, 3))
  values[41, 0] = np.nan
  _, result = inspected(npz(tmp_path / "a.npz", x_train=values))
  assert any(line.startswith("missing values: 1 in 1 of") and line.endswith("; row 41") for line in result.lines)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"x" * 100])
@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.xyz"])
def test_damaged_files_end_in_one_line(tmp_path, name, content):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(errors.UserError, match=name):
    detection.detect(str(tmp_path / name))


@pytest.mark.parametrize("values", [np.zeros((9, 3), complex), np.full((9, 3), "a"), np.zeros((9, 3), "M8[s]")])
def test_examples_that_are_no_numbers_end_in_one_line(tmp_path, values):
  with pytest.raises(errors.UserError, match="expected a non-empty array of numbers"):
    inspected(npz(tmp_path / "a.npz", x_train=values))


def test_examples_of_only_missing_values_are_described(tmp_path):
  _, result = inspected(npz(tmp_path / "a.npz", x_train=np.full((9, 3), np.nan)))
  assert any(line.startswith("missing values: 24 in 8 of 8 training examples") for line in result.lines)


def test_an_empty_folder_and_a_missing_path_end_in_one_line(tmp_path):
  with pytest.raises(errors.UserError, match="found 0 images"):
    detection.detect(str(tmp_path))
  with pytest.raises(errors.UserError, match="nowhere: file or folder not found"):
    detection.detect(str(tmp_path / "nowhere"))


def test_the_command_contains_every_option():
  result = inspection.Inspection([], {"size": (64, 48), "range": "real"}, "images", (64, 48, 3))
  text = inspection.command("folder", "my photos", result)
  assert text.startswith("ae_jax train --config=cnn:folder '--config.data.path=my photos'")
  assert "--config.data.size=64,48" in text
  assert text.endswith("--config.objective.likelihood=gaussian")
  assert "dense:folder" in inspection.command("folder", "p", result._replace(shape=(5, 48, 3)))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_is_described_by_column_and_the_command_trains(tmp_path, monkeypatch, suffix):
  if suffix == "parquet":
    pytest.importorskip("pyarrow")
  monkeypatch.setenv("AE_JAX_CACHE", str(tmp_path / "cache"))
  frame = pd.DataFrame({"height": GENERATOR.normal(size=30), "same": 1.5, "city": ["Rome", "Bonn", "Oslo"] * 10})
  frame.loc[[3, 7], "height"] = np.nan
  frame["label"] = ["a", "b"] * 15
  path = tmp_path / f"x.{suffix}"
  frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path, index=False)
  found, result = inspected(path)
  text = "\n".join(result.lines)
  for expected in (
    "height (numeric)",
    "city (3 words)",
    "by column: height (2)",
    "constant columns: same",
    "2 classes",
  ):
    assert expected in text, expected
  command = inspection.command(found.name, str(path), result)
  assert command == (
    f"ae_jax train --config=table:{suffix} --config.data.path={path} --config.data.label=label "
    "--config.data.missing=mean"
  )
  assert data.load(suffix, str(path), **result.options).class_names == ("a", "b")


def test_rows_of_a_table_without_any_value_are_numbered_as_in_the_file(tmp_path):
  frame = pd.DataFrame(GENERATOR.normal(size=(30, 2)), columns=["a", "b"])
  frame.loc[[3, 17]] = np.nan
  frame.to_csv(tmp_path / "x.csv", index=False)
  found = [line for line in inspected(tmp_path / "x.csv")[1].lines if "no value in any column" in line]
  assert sorted(name for name in ("row 3", "row 17") if name in " ".join(found)) == ["row 17", "row 3"]


def test_a_folder_of_series_is_found_and_the_validation_set_is_described(tmp_path):
  for split, count in {"train": 5, "validation": 2, "test": 3}.items():
    (tmp_path / split).mkdir()
    for number in range(count):
      np.save(tmp_path / split / f"{number}.npy", GENERATOR.normal(size=(20 + number, 2)))
  found, result = inspected(tmp_path)
  assert (found.name, result.options["kind"], result.shape) == ("npy", "series", (24, 2))
  assert "examples: 5 for training, 2 for validation, 3 for testing (the test set of the files)" in result.lines
  assert "lengths: 20 to 24 steps" in result.lines
  assert data.load("npy", str(tmp_path), **result.options).shape == (24, 2)


def test_pairs_one_class_and_records_are_recognised(tmp_path):
  x = GENERATOR.integers(0, 256, (12, 9, 9), np.uint8)
  path = npz(tmp_path / "pairs.npz", x_train=x, target_train=x)
  assert "--config=unet:npz" in inspection.command("npz", str(path), inspected(path)[1])
  y = np.array(["good"] * 12)
  path = npz(tmp_path / "parts.npz", x_train=x, y_train=y, x_test=x, y_test=np.where(np.arange(12) % 2, y, "broken"))
  result = inspected(path)[1]
  assert result.options == {"one_class": "good"}
  assert data.load("npz", str(path), "unit", **result.options).one_class is not None
  np.save(tmp_path / "record.npy", GENERATOR.normal(size=(30, 3)))
  assert any("--config.data.window=STEPS" in line for line in inspected(tmp_path / "record.npy")[1].lines)


def test_a_last_column_of_few_words_is_taken_as_the_labels(tmp_path):
  frame = pd.DataFrame({"age": GENERATOR.normal(size=30), "outcome": ["well", "ill"] * 15})
  path = tmp_path / "patients.csv"
  frame.to_csv(path, index=False)
  found, result = inspected(path)
  assert [line for line in result.lines if line.startswith("labels: ")] == [
    "labels: the last column, 'outcome', has 2 words and can be the labels; without --config.data.label=outcome, it is "
    "an input"
  ]
  assert inspection.command(found.name, str(path), result).endswith(" --config.data.label=outcome")
  assert data.load("csv", str(path), **result.options).class_names == ("ill", "well")
  frame.loc[4, "outcome"] = None  # labels cannot be missing
  frame.to_csv(path, index=False)
  assert "label" not in inspected(path)[1].options
  assert "labels: none" in inspected(path)[1].lines


def test_targets_masks_and_weights_are_named(tmp_path):
  x = GENERATOR.normal(size=(12, 3))
  arrays = {"x_train": x, "x_test": x + 1, "target_train": x, "target_test": x, "weight_train": np.ones(12)}
  lines = inspected(npz(tmp_path / "a.npz", **arrays))[1].lines
  assert {"targets: target_train, target_test", "weights: weight_train"} <= {*lines}
  assert not any(line.startswith("masks") for line in lines)
  lines = inspected(npz(tmp_path / "b.npz", x_train=x, target_train=x))[1].lines
  assert "targets: target_train" in lines


def test_long_tables_of_few_columns_can_be_records(tmp_path):
  for name, shape in {"record": (600, 3), "short": (99, 3), "wide": (600, 30)}.items():
    path = tmp_path / f"{name}.npy"
    np.save(path, GENERATOR.normal(size=shape))
    result = inspected(path)[1]
    assert (result.recorded is not None) == (name == "record")
    assert any("window=STEPS" in line for line in result.lines) == (result.recorded is None)
  command = inspection.record_command("npy", "record.npy", inspection.RECORD_OPTIONS)
  assert command == (
    "ae_jax train --config=dense:npy --config.data.path=record.npy --config.data.window=50 --config.data.stride=12 "
    "--config.data.range=real --config.data.scale=standard --config.objective.likelihood=gaussian"
  )
  assert data.load("npy", str(tmp_path / "record.npy"), "real", window=50, scale="standard").shape == (50, 3)
