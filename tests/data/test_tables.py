"""Tables in CSV, Parquet and array files: kinds of columns, missing values, unknown words, scaling and streaming."""

import json
import os
import shlex

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import QuantileTransformer, StandardScaler

from ae_jax import data, errors
from ae_jax.data import (
  in_memory,
  lazy_arrays,
  schema,
  schema_fit,
  standardisation,
  table_files,
  table_rows,
  table_statistics,
  tables,
)

RANDOM = np.random.default_rng(0)
COUNT = 60
FRAME = pd.DataFrame(
  {
    "age": RANDOM.integers(20, 60, COUNT),
    "height": RANDOM.normal(170, 10, COUNT),
    "city": RANDOM.choice(["Rome", "Bonn", "Oslo"], COUNT),
    "member": RANDOM.random(COUNT) < 0.5,
    "since": pd.date_range("2024-01-01", periods=COUNT).astype(str),
    "name": [f"person {i}" for i in range(COUNT)],
    "kind": RANDOM.choice(["a", "b"], COUNT),
  }
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv("AE_JAX_CACHE", str(tmp_path / "cache"))


def written(folder, frame=FRAME, name="x.csv"):
  path = folder / name
  frame.to_csv(path, index=False) if name.endswith("csv") else frame.to_parquet(path, index=False)
  return str(path)


def with_gaps():
  frame = FRAME.copy()
  frame.loc[3, "height"] = np.nan
  frame.loc[[5, 8], "city"] = None
  return frame


@pytest.fixture
def split_files(tmp_path):
  """Writes a folder with train.csv and test.csv; the test rows have an unknown word."""
  test = FRAME[:10].copy()
  test.loc[4, "city"] = "Lima"
  written(tmp_path, FRAME[10:], "train.csv")
  written(tmp_path, test, "test.csv")
  return str(tmp_path)


def test_kinds_are_found_and_the_columns_that_are_not_used_are_named(tmp_path):
  dataset = data.load("csv", written(tmp_path), "real", label="kind")
  kinds = {column.name: column.kind for column in dataset.schema.columns}
  assert kinds == {"age": "integer", "height": "numeric", "city": "categorical", "member": "boolean", "since": "date"}
  assert dataset.class_names == ("a", "b")
  assert dataset.schema.unused == ("name", "kind")
  assert dataset.shape == (1 + 1 + 4 + 1 + 1,)
  assert any("'name' is an id" in remark for remark in dataset.remarks)
  assert any(
    "1 categorical, 1 boolean, 1 date (city: 3 words); 8 inputs of the model" in remark for remark in dataset.remarks
  )


def test_examples_are_numbers_one_hot_words_and_days_since_the_first_training_date(split_files):
  dataset = data.load("csv", split_files, "real", columns=("name=ignore", "kind=ignore"))
  words = ["Bonn", "Oslo", "Rome"]
  for split, frame in {"train": FRAME[10:], "test": FRAME[:10]}.items():
    x = getattr(dataset, split)
    np.testing.assert_array_equal(x[:, 0], frame["age"].astype(np.float32))
    one_hot = np.array([[word == city for word in words] for city in frame["city"]])
    if split == "test":
      one_hot[4] = False  # an unknown word
    np.testing.assert_array_equal(x[:, 2:5], one_hot)
    np.testing.assert_array_equal(x[:, 6], frame["member"])
    np.testing.assert_array_equal(x[:, 7], frame.index - 10)
  assert dataset.test[4, 5] == 1
  assert any("test: 1 word not in the training rows taken as (other): city (1)" in each for each in dataset.remarks)


def test_the_schema_depends_on_the_training_rows_only(split_files, tmp_path):
  other = tmp_path / "other"
  other.mkdir()
  written(other, FRAME[10:], "train.csv")
  changed = FRAME[:10].assign(height=1e6, city="Quito", since="1999-01-01")
  written(other, changed, "test.csv")
  first, second = (data.load("csv", folder, "real", scale="standard") for folder in (split_files, str(other)))
  assert first.schema == second.schema
  np.testing.assert_array_equal(first.train, second.train)


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
@pytest.mark.parametrize("options", [{}, {"missing": "mean", "scale": "standard"}, {"missing": "mask"}])
def test_memory_and_stream_give_the_same_arrays(tmp_path, monkeypatch, name, options):
  if name == "x.parquet":
    pytest.importorskip("pyarrow")
  monkeypatch.setattr(table_files, "STREAMED_ROWS", 7)
  path = written(tmp_path, with_gaps() if options else FRAME, name)
  source = name[2:]
  memory, stream = (
    data.load(source, path, "real", label="kind", placement=placement, **options) for placement in ("memory", "stream")
  )
  assert stream.streams
  np.testing.assert_array_equal(stream.train[:], memory.train)
  np.testing.assert_array_equal(stream.test, memory.test)
  np.testing.assert_array_equal(stream.train_labels[:], memory.train_labels)
  assert stream.schema == memory.schema
  assert stream.remarks == memory.remarks
  again = data.load(source, path, "real", label="kind", placement="stream", **options)  # from the cache
  np.testing.assert_array_equal(again.train[:], memory.train)


def test_missing_values_are_refused_with_their_counts_and_the_first_place(tmp_path):
  message = r"3 values are missing .* in 2 columns: city \(2\), height \(1\); the first is in row 3 .* column 'height'"
  with pytest.raises(errors.UserError, match=message):
    data.load("csv", written(tmp_path, with_gaps()), "real")


@pytest.mark.parametrize("missing", ["error", "mean", "mask"])
def test_infinite_values_are_always_refused(tmp_path, missing):
  frame = FRAME.assign(height=np.where(np.arange(COUNT) == 7, np.inf, FRAME["height"]))
  with pytest.raises(
    errors.UserError, match=r"1 values are infinite, in 1 column: height \(1\); the first is in row 7"
  ):
    data.load("csv", written(tmp_path, frame), "real", missing=missing)


def test_missing_values_become_means_or_frequent_words_and_are_indicated(tmp_path):
  frame = with_gaps()
  written(tmp_path, frame, "train.csv")
  written(tmp_path, FRAME[:5], "test.csv")
  dataset = data.load("csv", str(tmp_path), "real", missing="mean")
  frequent = [*dataset.schema.columns[2].words].index(frame["city"].value_counts().index[0])
  assert dataset.train[3, 1] == np.float32(frame["height"].mean())
  assert dataset.train[5, 2 + frequent] == 1
  np.testing.assert_array_equal(dataset.train[:, -2:], frame[["height", "city"]].isna())
  np.testing.assert_array_equal(dataset.test[:, -2:], 0)


def test_a_remark_on_many_columns_counts_those_that_it_does_not_name(tmp_path):
  frame = pd.DataFrame(RANDOM.normal(size=(COUNT, 11)), columns=list("abcdefghijk"))
  frame.iloc[2, :] = np.nan
  frame["l"] = RANDOM.normal(size=COUNT)
  remarks = data.load("csv", written(tmp_path, frame), "real", missing="mask").remarks
  assert any(
    remark.endswith("11 missing values masked: " + ", ".join(f"{c} (1)" for c in "abcdefgh") + " and 3 more")
    for remark in remarks
  )


@pytest.mark.parametrize(
  ("missing", "effect"), [("mean", "treated like a row of means"), ("mask", "their squared errors are 0")]
)
def test_rows_without_any_value_are_counted_and_numbered_as_in_the_file(tmp_path, missing, effect):
  frame = with_gaps().astype(object)
  frame.loc[[7, 41]] = None
  remarks = data.load("csv", written(tmp_path, frame), "real", missing=missing).remarks
  (found,) = (remark for remark in remarks if "no value in any column" in remark)
  assert "2 rows of 60 have no value in any column (7, 41, counted from 0): " in found
  assert effect in found
  assert not any("no value" in remark for remark in data.load("csv", written(tmp_path), "real", missing="mean").remarks)


def test_a_mask_says_which_elements_are_known(tmp_path):
  written(tmp_path, with_gaps(), "train.csv")
  written(tmp_path, FRAME[:5], "test.csv")
  dataset = data.load("csv", str(tmp_path), "real", missing="mask")
  mask = dataset.columns["train"]["mask"]
  assert mask.shape == dataset.train.shape
  hidden = {(3, 1), *((row, element) for row in (5, 8) for element in range(2, 6))}
  assert {tuple(place) for place in np.argwhere(~mask)} == hidden
  assert dataset.columns["test"]["mask"].all()


@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_missing_values_of_arrays_are_treated_alike(tmp_path, placement):
  x = RANDOM.normal(size=(20, 3))
  x[2, 1] = np.nan
  np.savez(tmp_path / "x.npz", x_train=x, x_test=x[5:])
  path = str(tmp_path / "x.npz")
  with pytest.raises(errors.UserError, match=r"train: 1 values are missing .* row 2 .* column 'column_1'"):
    data.load("npz", path, "real", placement=placement)
  dataset = data.load("npz", path, "real", missing="mean", placement=placement)
  assert dataset.train.shape == (20, 4)
  np.testing.assert_allclose(
    dataset.train[2:3][0], [*np.where(np.isnan(x[2]), np.nanmean(x[:, 1]), x[2]), 1], rtol=1e-6
  )


def test_a_standardised_table_equals_scikit_learns(tmp_path):
  written(tmp_path, FRAME[10:], "train.csv")
  written(tmp_path, FRAME[:10], "test.csv")
  dataset = data.load("csv", str(tmp_path), "real", scale="standard")
  scaler = StandardScaler().fit(FRAME[10:][["age", "height"]].astype(np.float32))
  for x, rows in ((dataset.train, FRAME[10:]), (dataset.test, FRAME[:10])):
    expected = scaler.transform(rows[["age", "height"]].astype(np.float32))
    np.testing.assert_allclose(x[:, :2], expected, rtol=1e-5, atol=1e-5)
  assert set(np.unique(dataset.train[:, 2:7])) == {0, 1}  # words and booleans are not scaled


@pytest.mark.parametrize("gaps", [False, True])
def test_statistics_do_not_depend_on_the_number_of_threads_or_the_placement(monkeypatch, gaps):
  rows = np.random.default_rng(0).normal(1e4, 3, (100_000, 3))
  rows[:, 2] = np.rint(rows[:, 2])
  rows[::7, 1] = np.nan if gaps else 0
  found = []
  for threads, raw in ((1, rows), (3, rows), (2, np.asfortranarray(rows)), (2, lazy_arrays.of_memory(rows))):
    monkeypatch.setattr(os, "cpu_count", lambda threads=threads: threads)
    found.append(table_statistics.of_rows(raw, ("numeric", "numeric", "date"), {}))
  for name, *values in zip(found[0]._fields, *found, strict=True):
    for other in values[1:]:
      np.testing.assert_equal(other, values[0], name)
  np.testing.assert_allclose(found[0].means, np.nanmean(rows, 0))
  np.testing.assert_allclose(found[0].deviations, np.nanstd(rows, 0), rtol=1e-6)


def test_quantile_scaling_equals_scikit_learns_and_is_invertible(tmp_path):
  written(tmp_path, FRAME[10:], "train.csv")
  written(tmp_path, FRAME[:10], "test.csv")
  dataset, plain = (data.load("csv", str(tmp_path), "real", scale=scale) for scale in ("quantile", "none"))
  transformer = QuantileTransformer(n_quantiles=50, output_distribution="normal").fit(plain.train[:, 1:2].astype(float))
  np.testing.assert_allclose(dataset.train[:, 1:2], transformer.transform(plain.train[:, 1:2].astype(float)), atol=1e-3)
  stored = json.loads(json.dumps(dataset.standardisation.as_json()))
  again = standardisation.from_json(stored)
  np.testing.assert_array_equal(again.apply(plain.test), dataset.test)
  np.testing.assert_allclose(again.invert(dataset.train), plain.train, rtol=1e-3, atol=0.5)


def test_a_schema_comes_back_from_json(tmp_path):
  fitted = data.load("csv", written(tmp_path, with_gaps()), "real", missing="mean").schema
  assert schema.from_json(json.loads(json.dumps(fitted.as_json()))) == fitted


def test_rows_come_back_from_their_examples(tmp_path):
  fitted = data.load("csv", written(tmp_path), "real").schema
  shuffled = FRAME[FRAME.columns[::-1]]
  examples = table_rows.encoded(shuffled, fitted)[0]
  back = table_rows.to_frame(examples, fitted)
  for name in ("age", "city", "member", "kind"):
    np.testing.assert_array_equal(back[name], FRAME[name])
  np.testing.assert_allclose(back["height"], FRAME["height"], rtol=1e-6)
  np.testing.assert_array_equal(back["since"].astype(str), FRAME["since"])
  np.testing.assert_array_equal(table_rows.encoded({name: FRAME[name].tolist() for name in FRAME}, fitted)[0], examples)


@pytest.mark.parametrize("time", ["", " 07:12:00"])
def test_imputed_dates_and_integers_are_as_precise_as_the_training_rows(tmp_path, time):
  frame = FRAME[["age", "height", "since"]].copy()
  frame.loc[10:30, "since"] += time
  frame.loc[9, "since"] = None
  fitted = data.load("csv", written(tmp_path, frame), "real", missing="mask").schema
  assert schema.from_json(json.loads(json.dumps(fitted.as_json()))).columns[2].whole_days == (not time)
  rows = FRAME[["age", "height", "since"]][:4].assign(age=[30, None, 31, 32], since=["2024-01-05", None, None, None])
  raw, examples, _ = table_rows.with_gaps(rows, None, fitted)
  filled = table_rows.completed(rows, raw, examples + 0.3, fitted)
  assert filled["age"].dtype == np.int64
  assert (filled["since"] == filled["since"].dt.normalize()).all() == (not time)
  if not time:
    assert "07:" not in filled.to_csv()
    assert "00:00" not in filled.to_csv()
  rows["age"], rows["since"] = [30.25, None, 31, 32], ["2024-01-05 07:12", None, None, None]
  raw, examples, _ = table_rows.with_gaps(rows, None, fitted)
  observed = table_rows.completed(rows, raw, examples + 0.3, fitted).iloc[0]
  assert (observed["age"], str(observed["since"])) == (30.25, "2024-01-05 07:12:00")


def test_imputed_numbers_and_dates_stay_within_the_training_rows_with_a_warning(tmp_path):
  fitted = data.load("csv", written(tmp_path), "real", missing="mask").schema
  rows = FRAME[:3].assign(age=[-70, None, None], since=[None, "2031-01-01", None], height=[None, 170.0, 171.0])
  raw, examples, _ = table_rows.with_gaps(rows, None, fitted)
  examples[0] += 5000.0  # beyond all training values; the observed age and city are kept
  examples[2, 0] = -3.0
  with pytest.warns(UserWarning, match=r"^impute: 3 filled values beyond .*: age \(1\), height \(1\), since \(1\)$"):
    filled = table_rows.completed(rows, raw, examples, fitted)
  assert filled["age"].tolist()[::2] == [-70, FRAME["age"].min()]
  assert filled["height"].tolist() == [FRAME["height"].max(), 170.0, 171.0]
  assert filled["since"].astype(str).tolist()[:2] == [FRAME["since"].max(), "2031-01-01"]
  decoded = table_rows.to_frame(examples, fitted)  # reconstructions are not limited
  assert decoded["height"][0] > 5000
  assert decoded["age"][2] == -3


def test_runs_of_earlier_versions_have_no_limits_of_imputed_values(tmp_path):
  stored = json.loads(json.dumps(data.load("csv", written(tmp_path), "real", missing="mask").schema.as_json()))
  for column in stored["columns"]:
    del column["limits"]
  rows = FRAME[:1].assign(age=[None])
  raw, examples, _ = table_rows.with_gaps(rows, None, schema.from_json(stored))
  assert table_rows.completed(rows, raw, examples + 500.0, schema.from_json(stored))["age"][0] > 500


def filled(rows, fitted):
  raw, examples, _ = table_rows.with_gaps(rows, None, fitted)
  return table_rows.completed(rows, raw, examples, fitted)


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_booleans_come_back_in_the_words_of_the_table(tmp_path, name):
  words = {"smoker": np.where(FRAME["member"], "yes", "no"), "bit": FRAME["member"].astype(int)}
  frame = FRAME[["height", "member"]].assign(**words)
  frame.loc[5, "smoker"] = None
  path = written(tmp_path, frame, name)
  options = {"columns": ("bit=boolean",), "missing": "mask"}
  fitted = data.load(name.rpartition(".")[2], path, "real", **options).schema
  assert schema.from_json(json.loads(json.dumps(fitted.as_json()))) == fitted
  assert [column.truths for column in fitted.columns[1:]] == [(False, True), ("no", "yes"), (0, 1)]
  rows = frame[:9].astype({"member": object})
  rows.loc[6, "member"] = None
  back = filled(rows, fitted)
  pd.testing.assert_frame_equal(back.drop([5, 6]), rows.drop([5, 6]), check_dtype=False)
  assert back["smoker"][5] in ("yes", "no")
  assert (back["member"].dtype, back["bit"].dtype.kind) == (bool, "i")
  nothing = filled(rows[:1].assign(smoker=None, member=None, bit=None), fitted)  # the words of the training rows
  assert nothing["smoker"][0] in ("yes", "no")
  assert (nothing["member"].dtype, nothing["bit"].dtype.kind) == (bool, "i")
  others = filled(rows[:5].assign(smoker=["YES", None, "Yes", "YES", None], member="no"), fitted)
  assert others["smoker"][[0, 2, 3]].tolist() == ["YES", "Yes", "YES"]
  assert set(others["smoker"]) <= {"YES", "NO", "Yes", "No"}
  assert set(others["member"]) == {"no"}
  assert len(filled(rows[:0], fitted)) == 0
  assert set(table_rows.to_frame(table_rows.encoded(frame, fitted)[0], fitted)["smoker"]) == {"yes", "no"}


def test_explanations_have_the_words_and_the_days_of_the_rows(tmp_path):
  fitted = data.load("csv", written(tmp_path, FRAME[["city", "since", "height"]]), "real").schema
  rows = FRAME[["city", "since", "height"]][:3].copy()
  rows.loc[1, "city"] = "Lima"
  rows.loc[2, "since"] = "2024-01-03 07:12:00"
  examples = table_rows.encoded(rows, fitted)[0]
  found = table_rows.explained(rows, np.ones((3, 3)), examples, fitted, None).set_index(["column", "row"])
  expected = [rows["city"][0], "Lima (not seen in training)", rows["city"][2]]
  assert found["value"]["city"].tolist() == expected
  assert found["reconstruction"]["city"].tolist() == [rows["city"][0], schema.OTHER, rows["city"][2]]
  assert [str(value) for value in found["value"]["since"]] == rows["since"].tolist()
  assert [str(value) for value in found["reconstruction"]["since"]] == ["2024-01-01", "2024-01-02", "2024-01-03"]


def test_missing_and_unknown_columns_of_new_rows_are_named(tmp_path):
  fitted = data.load("csv", written(tmp_path), "real", label="kind").schema
  with pytest.raises(errors.UserError, match="has no column 'city'; the run needs age, height, city"):
    table_rows.encoded(FRAME.drop(columns="city"), fitted)
  with pytest.raises(errors.UserError, match="columns that the run was not trained on: weight;"):
    table_rows.encoded(FRAME.assign(weight=1.0), fitted)
  assert table_rows.encoded(FRAME, fitted)[0][:, 2:6].sum() == COUNT  # name and kind may be there
  match = r"'tall' in row 1 \(counted from 0\) of column 'height' is not a number; correct it$"  # the kind is fixed
  with pytest.raises(errors.UserError, match=match):
    table_rows.encoded(FRAME[:2].assign(height=["170", "tall"]), fitted)
  unknown = table_rows.encoded(FRAME[:1].assign(city="Lima"), fitted)[0]
  assert unknown[0, 5] == 1


@pytest.mark.parametrize(
  ("change", "options", "message"),
  [
    ({}, {"label": "king"}, "config.data.label='king': .* did you mean|no such column"),
    ({}, {"columns": ("age",)}, "config.data.columns=.* a tuple of strings NAME=KIND"),
    ({}, {"columns": ("age=word",)}, "data.columns: age='word' is unknown"),
    ({}, {"columns": ("agee=integer",)}, "no column 'agee'; it has the columns age, height"),
    ({"height": [*map(str, range(59)), "tall"]}, {}, "column 'height' holds numbers, but also strings such as 'tall'"),
    ({"kind": ["a"] * 59 + [None]}, {"label": "kind"}, "label column 'kind' has 1 missing value .* row 59"),
    ({"since": ["2024-01-01"] * 59 + ["soon"]}, {"columns": ("since=date",)}, "'soon' in row 59 .* is not a date"),
  ],
)
def test_mistakes_are_named(tmp_path, change, options, message):
  with pytest.raises(errors.UserError, match=message):
    data.load("csv", written(tmp_path, FRAME.assign(**change)), "real", **options)


def test_all_columns_that_mix_kinds_are_named_with_one_flag(tmp_path):
  lead = [*(f"{number / 8:.3f}" for number in range(COUNT - 3)), "<0.3", "n/d", "<0.5"]
  mixed = {f"lead{number}": lead for number in range(9)} | {"day": [*FRAME["since"][1:], "soon"]}
  path = written(tmp_path, FRAME.assign(**mixed))
  with pytest.raises(errors.UserError, match="10 columns mix kinds: ") as caught:
    data.load("csv", path, "real")
  assert "column 'lead0' holds numbers, but also strings such as '<0.3' and '<0.5'; column" in str(caught.value)
  assert "column 'lead7'" in str(caught.value)
  assert "column 'lead8'" not in str(caught.value)
  assert "; and 2 more; correct the values, or set --config.data.columns=" in str(caught.value)
  (flag,) = shlex.split(str(caught.value).rpartition(" set ")[2])
  columns = tuple(each.strip("'") for each in flag.partition("=")[2].rstrip(",").split(","))
  assert columns == (*(f"lead{number}=categorical" for number in range(9)), "day=ignore")
  assert len(data.load("csv", path, "real", columns=columns).schema.columns) == 9 + len(FRAME.columns) - 1


def test_given_kinds_win_over_found_ones(tmp_path):
  path = written(tmp_path, FRAME.assign(code=np.arange(COUNT) % 10))
  dataset = data.load("csv", path, "real", columns=("code=categorical", "age=numeric", "city=ignore", "name=ignore"))
  column = dataset.schema.columns[-1]
  assert (column.name, column.words) == ("code", tuple("0123456789"))
  assert "city" in dataset.schema.unused
  assert table_rows.encoded(FRAME.assign(code=3), dataset.schema)[0][0, -8] == 1  # integers are words, too


@pytest.mark.parametrize(
  ("options", "key"), [({"columns": ("a=integer",)}, "columns"), ({"missing": "mean"}, "missing")]
)
def test_options_of_tables_are_refused_for_other_data(options, key):
  with pytest.raises(errors.UserError, match=rf"config.data.{key}: is for tables"):
    data.load("digits", "", "unit", **options)


@pytest.mark.parametrize("first", ["1,2", "2026-03-01 00:15,2.5"])
def test_a_file_without_names_is_refused(tmp_path, first):
  (tmp_path / "x.csv").write_text(f"{first}\n3,4\n5,6\n7,8\n")
  with pytest.raises(errors.UserError, match="the first row holds values, not the names"):
    data.load("csv", str(tmp_path / "x.csv"), "real")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_is_found(tmp_path, separator):
  FRAME.to_csv(tmp_path / "x.csv", index=False, sep=separator)
  assert len(data.load("csv", str(tmp_path / "x.csv"), "real").schema.columns) == 6


def test_rare_words_are_other_words(tmp_path, monkeypatch):
  monkeypatch.setattr(schema_fit, "MOST_WORDS", 2)
  dataset = data.load("csv", written(tmp_path), "real")
  (city,) = (column for column in dataset.schema.columns if column.name == "city")
  assert len(city.words) == 2
  assert any("beyond the 2 most frequent taken as (other)" in remark for remark in dataset.remarks)


def test_errors_of_columns_are_in_their_units():
  columns = (schema.Column("size", "numeric", spread=2.0), schema.Column("city", "categorical", words=("a", "b")))
  fitted = schema.Schema(columns)
  true, found = np.array([[1.0, 0], [5.0, 1], [9.0, 1]]), np.array([[4.0, 0], [1.0, 0], [0.0, 0]])
  known = np.array([[True, True], [True, True], [False, False]])
  assert fitted.column_errors(found, true, known) == {"size": np.sqrt((9 + 16) / 2), "city": 0.5}


@pytest.mark.parametrize(
  ("name", "shape", "test"), [("breast_cancer", 30, 113), ("wine", 13, 36), ("diabetes", 10, 88)]
)
def test_the_tables_of_scikit_learn_are_built_in(name, shape, test):
  dataset = data.load(name, "", "real")
  assert (dataset.shape, len(dataset.test)) == ((shape,), test)


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_the_rows_of_a_group_are_in_one_split_and_its_column_is_no_input(tmp_path, name, placement):
  if name == "x.parquet":
    pytest.importorskip("pyarrow")
  frame = FRAME.assign(patient=[f"p{row // 5}" for row in range(COUNT)], row=np.arange(COUNT) * 2.5)
  options = {"group": "patient", "columns": ("row=numeric", "name=ignore"), "validation": 0.2, "placement": placement}
  dataset = data.load(name[2:], written(tmp_path, frame, name), "real", **options)
  names = [column.name for column in dataset.schema.columns]
  assert "patient" not in names
  found = [set(split[:][:, -1] // 12.5) for split in (dataset.train, dataset.validation, dataset.test)]
  assert names[-1] == "row"
  assert set.union(*found) == set(range(12))
  assert sum(map(len, found)) == 12


def test_a_column_of_groups_or_labels_has_no_kind(tmp_path):
  with pytest.raises(errors.UserError, match=r"'city' is the column of config.data.group; remove its kind"):
    data.load("csv", written(tmp_path), "real", group="city", columns=("city=categorical",))
  with pytest.raises(errors.UserError, match=r"config.data.group='town': .* has no such column"):
    data.load("csv", written(tmp_path), "real", group="town")


def test_a_validation_file_is_read_unless_it_is_switched_off(tmp_path):
  for split, rows in {"train": FRAME[20:], "validation": FRAME[:10], "test": FRAME[10:20]}.items():
    written(tmp_path, rows, f"{split}.csv")
  assert len(data.load("csv", str(tmp_path), "real").validation) == 10
  without = data.load("csv", str(tmp_path), "real", read_validation=False)
  assert without.validation is None
  assert any("not read: validation.csv" in remark for remark in without.remarks)


def test_integers_that_no_float_can_hold_are_refused_as_infinite(tmp_path):
  frame = FRAME.astype({"height": object})
  frame.loc[7, "height"] = "9" * 400
  with pytest.raises(errors.UserError, match=r"infinite, in 1 column: height \(1\); the first is in row 7"):
    data.load("csv", written(tmp_path, frame), "real")


def test_lists_and_dicts_in_parquet_are_compared_as_texts(tmp_path):
  pytest.importorskip("pyarrow")
  frame = FRAME.assign(tags=[[1], [2, 3]] * (COUNT // 2), place=[{"x": row % 3} for row in range(COUNT)])
  dataset = data.load("parquet", written(tmp_path, frame, "x.parquet"), "real")
  kinds = {column.name: (column.kind, len(column.words)) for column in dataset.schema.columns}
  assert kinds["tags"] == ("categorical", 2)
  assert kinds["place"] == ("categorical", 3)


def test_a_column_with_nearly_all_of_the_variance_is_named_unless_columns_are_scaled(tmp_path):
  path = written(tmp_path, FRAME.assign(height=1000 * FRAME["height"]))
  said = [
    any("'height' has more than 95%" in fault for fault in data.load("csv", path, "real", scale=scale).faults)
    for scale in ("none", "standard")
  ]
  assert said == [True, False]


def test_a_column_that_has_words_in_a_later_part_is_read_as_words(tmp_path):
  """pandas reads a large file in parts of 256 KiB, and finds the type of the column in each."""
  (tmp_path / "a.csv").write_text("a,b\n" + "1,2\n" * 400_000 + "x,2\n")
  (rows,) = table_files.read_csv(str(tmp_path / "a.csv"), {}, "a.csv", False)
  assert {*map(type, rows["a"])} == {str}
  assert rows["b"].dtype == np.int64


def test_a_table_of_floats_is_not_copied_and_gives_the_same_data_as_a_copied_one(tmp_path):
  numbers = pd.DataFrame(np.random.default_rng(1).normal(100, 15, (5000, 3)), columns=["a", "b", "c"])
  original = numbers.copy()
  shared = tables.of_frames({"train": numbers}, "x")["train"]
  assert np.shares_memory(shared, numbers.to_numpy())
  copied = tables.of_frames({"train": numbers.assign(word="x")}, "x", columns=("word=ignore",))["train"]
  np.testing.assert_array_equal(shared, copied)
  first, second = (
    data.load("csv", written(tmp_path, each, name), "real", scale="standard", columns=columns)
    for each, name, columns in (
      (numbers, "floats.csv", ()),
      (numbers.assign(word="x"), "words.csv", ("word=ignore",)),
    )
  )
  assert first.fingerprints == second.fingerprints
  assert first.schema.columns == second.schema.columns
  pd.testing.assert_frame_equal(numbers, original)


def test_decimal_commas_beside_semicolons(tmp_path):
  frame = pd.DataFrame({"a": np.arange(40) / 8, "day": pd.date_range("2026", periods=40), "b": ["x, y", "z"] * 20})
  frame.to_csv(tmp_path / "x.csv", index=False, sep=";", decimal=",", date_format="%d.%m.%Y")
  found = data.load("csv", str(tmp_path / "x.csv"), "real")
  assert [(column.name, column.kind) for column in found.schema.columns] == [
    ("a", "numeric"),
    ("day", "date"),
    ("b", "categorical"),
  ]
  decoded = found.schema.decode(np.concatenate([found.train, found.test]))
  assert sorted(decoded[:, 0]) == frame["a"].tolist()


def test_a_word_among_dates_is_named(tmp_path):
  days = pd.date_range("2026", periods=40).strftime("%d.%m.%Y").where(np.arange(40) != 7, "unknown")
  pd.DataFrame({"a": np.arange(40) / 8, "day": days}).to_csv(tmp_path / "x.csv", index=False)
  with pytest.raises(errors.UserError, match="column 'day' holds dates, but also strings such as 'unknown'"):
    data.load("csv", str(tmp_path / "x.csv"), "real")


def test_frames_that_cannot_be_read_are_refused():
  levels = pd.DataFrame(np.ones((4, 2)), columns=pd.MultiIndex.from_product([["a"], ["b", "c"]]))
  plain = {"train": pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0]}), "test": np.ones((4, 1))}
  for frames, fault in (({"train": levels}, "several levels; join"), (plain, "test: is no table, but x is one")):
    given = {split: in_memory.SplitData(frame) for split, frame in frames.items()}
    with pytest.raises(errors.UserError, match=fault):
      data.load("frame", "", "real", given=given)
