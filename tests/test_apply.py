"""The commands `apply` and `embed`: a row for each file or table row."""

import json
import pathlib
import shutil
import types

import jax
import ml_collections
import numpy as np
import pandas as pd
import pytest
from conftest import run_command
from made_exports import made
from PIL import Image

import ae_jax
from ae_jax import errors
from ae_jax.data import new_files, new_labels, new_parts
from ae_jax.decisions import rows
from ae_jax.run_methods import measures

pytestmark = [pytest.mark.runs_optax, pytest.mark.quick_compile]
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (40, 8, 6, 3), np.uint8)
GREY = np.ascontiguousarray(IMAGES[:1, :6, :5, :1])
TABLE = pd.DataFrame(
  {"height": RANDOM.normal(170, 9, 50), "colour": RANDOM.choice(["red", "blue"], 50), "kind": np.arange(50) % 2}
)
SMALL = {"model": "dense", "latent": 2, "epochs": 1, "evaluators": (), "verbose": False, "model__widths": 8}


def fit(path, workdir, **options):
  with jax.numpy_rank_promotion("allow"):
    return ae_jax.fit(str(path), workdir=workdir, **SMALL | options)


def write(file, pixels):
  file.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(file)


@pytest.fixture(scope="module")
def of_images(tmp_path_factory):
  """A run on a folder of images, of which 8 are in `train/odd`, with a threshold."""
  folder = tmp_path_factory.mktemp("images")
  for number, pixels in enumerate(IMAGES):
    write(folder / "photos" / ("odd" if number % 5 == 0 else "good") / f"{number:02}.png", pixels)
  options = {"data__validation": 0.2, "data__range": "symmetric", "objective__likelihood": "gaussian"}
  fit(folder / "photos", folder / "run", **options).set_threshold(contamination=0.2)
  return folder


@pytest.fixture(scope="module")
def of_table(tmp_path_factory):
  folder = tmp_path_factory.mktemp("table")
  TABLE.to_csv(folder / "data.csv", index=False)
  # PCA of two latents would be exact
  fit(folder / "data.csv", folder / "run", labels="kind", model__linear_path="none")
  return folder


def command(name, *flags, status=0):
  """Runs a command and returns what it prints, or its error if the status is not 0."""
  found, output, complaints = run_command(name, *flags)
  assert found == status, output + complaints
  return complaints if status else output


def test_images_get_a_row_each_with_score_flag_and_latents(of_images, tmp_path):
  new = tmp_path / "new"
  write(new / "a.png", IMAGES[0])
  write(new / "deep" / "b.png", np.kron(IMAGES[1], np.ones((2, 2, 1), np.uint8)))  # twice as large
  write(new / "deep" / "grey.png", IMAGES[2, ..., 0])
  (new / "broken.png").write_bytes(b"no image")
  (new / "notes.txt").write_text("no image")
  out, pictures = tmp_path / "out.csv", tmp_path / "pictures"
  workdir = of_images / "run"
  printed = command("apply", f"--workdir={workdir}", f"--data={new}", f"--out={out}", f"--pictures={pictures}")
  assert "broken.png" in printed
  assert ".txt (1 file)" in printed
  assert "resized (fit=stretch) to 8 x 6 from" in printed
  assert "converted to 3 channels" in printed
  found, run = pd.read_csv(out), ae_jax.load(workdir)
  assert list(found.columns) == ["name", "score", "flag", "z0", "z1"]
  assert found["name"].tolist() == ["a.png", "deep/b.png", "deep/grey.png"]
  np.testing.assert_allclose(found["score"][0], run.score(IMAGES[0]), rtol=1e-4)
  np.testing.assert_allclose(found[["z0", "z1"]].to_numpy()[:1], run.encode(IMAGES[:1]), rtol=1e-4, atol=1e-5)
  assert found["flag"].tolist() == (found["score"] > run.threshold.value).tolist()
  picture = np.asarray(Image.open(pictures / "a.png"))
  np.testing.assert_allclose(picture / 127.5 - 1, run.reconstruct(IMAGES[0])[0], atol=0.005)
  assert (pictures / "deep" / "grey.png").exists()


def test_a_single_image_and_an_array_have_the_scores_of_the_folder(of_images, tmp_path):
  workdir, file = of_images / "run", of_images / "photos" / "good" / "01.png"
  np.savez(tmp_path / "new.npz", images=IMAGES[:3], other=np.arange(3))
  flags = [f"--workdir={workdir}", "--score=knn"]
  command("apply", *flags, f"--data={file}", f"--out={tmp_path / 'one.npz'}")
  printed = command("apply", *flags, f"--data={tmp_path / 'new.npz'}", f"--out={tmp_path / 'all.parquet'}")
  assert "not read: other" in printed
  assert "no column flag" in printed
  with np.load(tmp_path / "one.npz") as one:
    found = pd.read_parquet(tmp_path / "all.parquet")
    assert (one["name"].tolist(), found["name"].tolist()) == (["01.png"], ["0", "1", "2"])
    np.testing.assert_allclose(one["latents"], found[["z0", "z1"]].to_numpy()[1:2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one["score"], found["score"][1:2], rtol=1e-3)


def test_rows_of_a_table_pass_through_its_columns(of_table, tmp_path):
  new = TABLE[["colour", "height"]].assign(customer=[f"c{row}" for row in range(50)])[:7]
  new.to_csv(tmp_path / "new.csv", index=False)
  flags = [f"--workdir={of_table / 'run'}", f"--data={tmp_path / 'new.csv'}", f"--out={tmp_path / 'out.csv'}"]
  assert "not read: customer" in command("apply", *flags)
  assert pd.read_csv(tmp_path / "out.csv").columns.tolist() == ["name", "score", "largest_error_column", "z0", "z1"]
  assert pd.read_csv(tmp_path / "out.csv")["name"].tolist() == [*range(7)]
  printed = command("apply", *flags, "--names=customer", "--contamination=0.1", "--score=normalised")
  assert "not read" not in printed
  found, run = pd.read_csv(tmp_path / "out.csv"), ae_jax.load(of_table / "run")
  assert found["name"].tolist() == new["customer"].tolist()
  largest = run.explain(new[["height", "colour"]], count=1)["column"]
  assert found["largest_error_column"].tolist() == largest.tolist()
  np.testing.assert_allclose(found["score"], run.score(new[["height", "colour"]], kind="normalised"), rtol=1e-4)
  assert json.loads((of_table / "run" / "threshold.json").read_text())["kind"] == "normalised"
  np.testing.assert_array_equal(found["flag"], run.flag(new[["height", "colour"]]))
  printed = command("apply", *flags, "--contamination=0.2")
  assert "replaced by --contamination; the old threshold was: normalised score above" in printed
  stored = json.loads((of_table / "run" / "threshold.json").read_text())
  assert (stored["kind"], stored["level"]) == ("normalised", 0.2)


def test_several_tables_have_the_scores_of_one(of_table, tmp_path):
  parts = TABLE[["height", "colour"]][:4], TABLE[["colour", "height"]][4:9]
  for name, part in zip("ab", parts, strict=True):
    part.to_csv(tmp_path / f"{name}.csv", index=False)
  flags = [f"--workdir={of_table / 'run'}", f"--data={tmp_path / '?.csv'}"]
  command("apply", *flags, f"--out={tmp_path / 'out.csv'}", "--score=reconstruction")
  found, run = pd.read_csv(tmp_path / "out.csv"), ae_jax.load(of_table / "run")
  assert found["name"].tolist() == [*(f"a.csv:{row}" for row in range(4)), *(f"b.csv:{row}" for row in range(5))]
  np.testing.assert_allclose(
    found["score"], run.score(TABLE[["height", "colour"]][:9], kind="reconstruction"), rtol=1e-4
  )
  printed = command("evaluate", *flags)
  assert f"{run.evaluate(TABLE[['height', 'colour']][:9])['squared_error']:.6g}" in printed
  TABLE.to_csv(tmp_path / "c.csv", index=False)
  command("apply", flags[0], f"--data={tmp_path / 'c.csv'}", "--label=kind", f"--out={tmp_path / 'out.csv'}")
  assert pd.read_csv(tmp_path / "out.csv")["label"].tolist() == TABLE["kind"].tolist()
  assert "would replace file 2 of --data" in command("apply", *flags, f"--out={tmp_path / 'b.csv'}", status=1)


def test_a_threshold_of_other_weights_costs_only_the_flags(of_table, tmp_path):
  workdir = shutil.copytree(of_table / "run", tmp_path / "run")
  stored = {
    "value": 1.0,
    "kind": "reconstruction",
    "rule": "value",
    "level": None,
    "half": "",
    "examples": 0,
    "step": 1,
  }
  (workdir / "threshold.json").write_text(json.dumps(stored | {"weights": "other"}))
  TABLE[["height", "colour"]][:9].to_csv(tmp_path / "new.csv", index=False)
  printed = command("evaluate", f"--workdir={workdir}", f"--data={tmp_path / 'new.csv'}")
  assert "the number of flagged examples is not reported: " in printed
  assert "not to the loaded weights" in printed
  assert "squared_error" in printed
  printed = command("embed", f"--workdir={workdir}", f"--out={tmp_path / 'rows.csv'}")
  assert "no column flag" in printed
  assert "not to the loaded weights" in printed
  assert "flag" not in pd.read_csv(tmp_path / "rows.csv").columns


@pytest.mark.parametrize("name", ["apply", "embed"])
def test_the_data_of_a_run_are_not_replaced(of_table, name):
  data = of_table / "data.csv"
  before = data.read_bytes()
  flags = [f"--workdir={of_table / 'run'}", f"--out={data}", *([f"--data={data}"] if name == "apply" else [])]
  assert "would replace" in command(name, *flags, status=1)
  assert data.read_bytes() == before


def test_evaluate_measures_other_data_and_leaves_the_report(of_table, tmp_path):
  workdir, new = of_table / "run", TABLE[["height", "colour"]][:9]
  new.to_csv(tmp_path / "new.csv", index=False)
  before = (workdir / "report.html").read_bytes()
  printed = command("evaluate", f"--workdir={workdir}", f"--data={tmp_path / 'new.csv'}")
  assert "evaluated as new examples, and the report is not updated" in printed
  assert "Restore the data" not in printed
  expected = ae_jax.load(workdir).evaluate(new)
  found = dict(line.split()[:2] for line in printed.splitlines()[1:])
  assert "95 % interval" in printed
  assert "(fraction of wrong values)" in printed
  assert float(found["squared_error"]) == pytest.approx(expected["squared_error"], rel=1e-4)
  assert float(found["column_errors/height"]) == pytest.approx(expected["column_errors/height"], rel=1e-4)
  assert (workdir / "report.html").read_bytes() == before
  flags = [f"--workdir={workdir}", f"--data={tmp_path / 'none.csv'}"]
  assert "cannot be read as new examples either" in command("evaluate", *flags, status=1)
  assert "as new examples" not in command("evaluate", *flags, "--only=probe", status=1)


def test_rows_without_any_value_are_named(tmp_path):
  TABLE.drop(columns="kind").mask(RANDOM.random((50, 2)) < 0.1).to_csv(tmp_path / "data.csv", index=False)
  fit(tmp_path / "data.csv", tmp_path / "run", data__missing="mask")
  new = TABLE[["height", "colour"]][:9].assign(customer=[f"c{row}" for row in range(9)])
  new.loc[3, ["height", "colour"]], new.loc[6] = None, None
  new.to_csv(tmp_path / "new.csv", index=False)
  flags = [f"--workdir={tmp_path / 'run'}", f"--data={tmp_path / 'new.csv'}"]
  text = "2 rows of 9 have no value in any column ({}): their squared errors are 0; leave such rows out"
  assert text.format("3, 6") in command("evaluate", *flags)
  assert "new.csv: 4 missing values masked: height (2), colour (2)" in command("evaluate", *flags)
  out = tmp_path / "out.csv"
  assert text.format("c3, row 6") in command("apply", *flags, f"--out={out}", "--names=customer")
  assert pd.read_csv(out)["name"].tolist() == ["c0", "c1", "c2", "c3", "c4", "c5", "row 6", "c7", "c8"]


def test_words_without_a_category_and_invalid_values_of_new_rows_are_named(of_table, tmp_path):
  new = TABLE[["height", "colour"]][:9].assign(colour=["red", "blue", "pink"] * 3)
  new.to_csv(tmp_path / "new.csv", index=False)
  flags = [f"--workdir={of_table / 'run'}", f"--data={tmp_path / 'new.csv'}"]
  said = f"--data={tmp_path / 'new.csv'}: 3 words not in the training rows taken as (other): colour (3)"
  out = f"--out={tmp_path / 'out.csv'}"
  assert said in command("evaluate", *flags)
  assert said in command("apply", *flags, out)
  new.assign(height="tall").to_csv(tmp_path / "new.csv", index=False)
  assert "column 'height' is not a number; correct it\n" in command("apply", *flags, out, status=1)


def test_impute_keeps_words_that_the_training_rows_do_not_have(of_table):
  rows = TABLE[["height", "colour"]][:3].copy()
  rows.loc[1, "colour"], rows.loc[2, "height"] = "unseen", np.nan
  filled = ae_jax.load(of_table / "run").impute(rows)
  assert filled["colour"].tolist() == rows["colour"].tolist()
  assert filled["height"].notna().all()
  rows.index = [5, 5, 5]
  assert ae_jax.load(of_table / "run").impute(rows)["colour"].tolist() == rows["colour"].tolist()


def test_embed_names_every_example_of_the_run_once(of_images, tmp_path):
  out = tmp_path / "latents.csv"
  command("embed", f"--workdir={of_images / 'run'}", f"--out={out}")
  found, run = pd.read_csv(out), ae_jax.load(of_images / "run")
  assert found["split"].value_counts().to_dict() == {"train": 26, "test": 8, "validation": 6}
  files = sorted((of_images / "photos").rglob("*.png"))
  assert sorted(found["name"]) == [str(file.relative_to(of_images / "photos")) for file in files]
  assert (found["label"] == [pathlib.Path(name).parts[0] for name in found["name"]]).all()
  numbers = [int(pathlib.Path(name).stem) for name in found["name"]]
  np.testing.assert_allclose(found[["z0", "z1"]], run.encode(IMAGES[numbers]), rtol=1e-3, atol=1e-4)
  assert found["flag"][found["split"] == "validation"].sum() == 1


def test_embed_names_the_rows_of_a_moved_table(of_table, tmp_path):
  shutil.copy(of_table / "data.csv", tmp_path / "moved.csv")
  out = tmp_path / "latents.parquet"
  command("embed", f"--workdir={of_table / 'run'}", f"--data={tmp_path / 'moved.csv'}", f"--out={out}")
  found, run = pd.read_parquet(out), ae_jax.load(of_table / "run")
  assert sorted(map(int, found["name"])) == [*range(50)]
  expected = run.encode(TABLE[["height", "colour"]].iloc[found["name"].astype(int)])
  np.testing.assert_allclose(found[["z0", "z1"]], expected, rtol=1e-3, atol=1e-4)
  assert (found["label"].astype(int) == TABLE["kind"].to_numpy()[found["name"].astype(int)]).all()


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--out=x.csv"], "--data is missing"),
    (["--data=photos"], "--out is missing"),
    (["--data=photos", "--out=x.txt"], "must end in .csv, .parquet, .npz"),
    (["--data=photos", "--out=missing/x.csv"], "does not exist; create it"),
    (["--data=missing", "--out=x.csv"], "not found"),
    (["--data=photos", "--out=x.csv", "--score=nearest"], "is not a kind of score"),
    (["--data=photos", "--out=x.csv", "--pictures=photos"], "could overwrite files of --data"),
  ],
)
def test_wrong_flags_end_with_one_line(of_images, tmp_path, flags, message):
  flags = [flag.replace("=photos", f"={of_images / 'photos'}").replace("=x", f"={tmp_path}/x") for flag in flags]
  error = command("apply", f"--workdir={of_images / 'run'}", *flags, status=2 if "is missing" in message else 1)
  assert message in error
  assert error.count("\n") == 1
  assert not [*tmp_path.iterdir()]


def wanted(shape=(8, 6, 3), schema=None, **section):
  options = {
    "window": 0,
    "stride": 0,
    "patch": (),
    "size": (),
    "layout": "nhwc",
    "label": "",
    "y": "",
    "fit": "stretch",
    "exif_orientation": True,
  }
  return new_parts.Wanted(shape, "unit", schema, {**options, "follow_links": False, **section})


def read(path, run=None, **options):
  found = new_files.read(str(path), run or wanted(), **options)
  return [(part.names, part.x) for part in found.parts], found.remarks


@pytest.mark.parametrize(
  ("arrays", "run", "options", "message"),
  [
    ({"a": IMAGES, "b": IMAGES}, None, {}, "several arrays have rows of shape .* select one with --array"),
    ({"a": IMAGES}, None, {"target": "b"}, "--target=b: .* has no array of this name"),
    ({"x": IMAGES, "target": IMAGES[:9]}, None, {}, r"--target=target: has shape \[9, .* but x has \[40, 8, 6, 3\]"),
    ({"a": IMAGES[..., 0]}, None, {}, r"no array has rows .* a \[40, 8, 6\]"),
    ({"a": IMAGES}, None, {"array": "b"}, "--array=b: .* has no array of this name"),
    ({"a": IMAGES}, None, {"names": "b"}, "--names=b: is not used"),
    ({"a": IMAGES}, None, {"label": "b"}, "--label=b: .* has no array of this name"),
    ({"a": IMAGES, "b": [1, 2]}, None, {"label": "b"}, r"--label=b: has shape \[2\], but a has \[40, .* one label per"),
    ({"a": IMAGES}, wanted((2, 2, 1), patch=(2,)), {}, r"no array has the form of images \[N, H, W, 1\]"),
    ({"a": IMAGES}, wanted((9, 9, 3), patch=(9,)), {}, r"all images are smaller than config.data.patch=\(9,\) of"),
    ({"a": IMAGES}, wanted((3, 2), window=3), {}, r"no array has the form of a recording \[T, 2\]"),
    ({"a": IMAGES[:, 0, 0]}, wanted((99, 3), window=99), {}, "all recordings are smaller than config.data.window=99"),
  ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, run, options, message):
  np.savez(tmp_path / "x.npz", **arrays)
  with pytest.raises(errors.UserError, match=message):
    read(tmp_path / "x.npz", run, **options)


def test_a_folder_has_no_targets_and_the_message_says_how_to_pass_them(of_table, tmp_path):
  (tmp_path / "noisy").mkdir()
  with pytest.raises(errors.UserError, match=r"--target=clean: .* array x and the targets as the array target of an"):
    read(tmp_path / "noisy", target="clean")
  flags = [f"--workdir={of_table / 'run'}", f"--data={tmp_path / 'noisy'}"]
  for more in ([], ["--target=clean"]):
    complaint = command("evaluate", *flags, *more, status=1)
    assert "either" not in complaint
    assert complaint.count("--data=") == 1
  assert "array target of an .npz file" in complaint


@pytest.mark.parametrize(("metrics", "advice"), [({}, True), ({"test/input_squared_error": 1.0}, False)])
def test_no_threshold_is_advised_for_runs_on_pairs(monkeypatch, metrics, advice):
  monkeypatch.setattr(rows.thresholds, "of_run", lambda run, has_target: (None, ""))
  choice = rows.choose(types.SimpleNamespace(workdir=None, metrics=metrics), "")
  found = rows.summary(pathlib.Path("a.csv"), rows.Rows({"score": np.ones(3)}, np.zeros((3, 2), np.float32)), choice)
  assert ("no column flag: the run has no threshold" in "\n".join(found)) == advice


def parts_of(path, run, **options):
  (part,) = new_files.read(str(path), run, **options).parts
  return part


def test_targets_and_masks_of_arrays_are_read_and_cut_like_the_examples(tmp_path):
  x, target, mask = IMAGES, IMAGES[::-1], IMAGES[..., 0] > 99
  np.savez(tmp_path / "x.npz", x_test=x, target_test=target, mask_test=mask, other=target)
  found = new_files.read(str(tmp_path / "x.npz"), wanted(), array="x_test")
  assert found.extra == {"target": "target_test", "mask": "mask_test"}
  part = parts_of(tmp_path / "x.npz", wanted(), array="x_test", target="other")
  np.testing.assert_array_equal(part.target, target)
  np.testing.assert_array_equal(part.mask, np.repeat(mask[..., None], 3, -1))
  channels_first = (np.moveaxis(values, -1, 1) for values in (x, target))
  np.savez(tmp_path / "x.npz", **dict(zip(("x", "target"), channels_first, strict=True)), mask=mask)
  part = parts_of(tmp_path / "x.npz", wanted(layout="nchw"))
  np.testing.assert_array_equal(part.target, target)
  np.testing.assert_array_equal(part.mask, np.repeat(mask[..., None], 3, -1))
  np.savez(tmp_path / "x.npz", x=x, target=target, mask=mask)
  part = parts_of(tmp_path / "x.npz", wanted((4, 5, 3), patch=(4, 5), size=()))
  np.savez(tmp_path / "target.npz", x=target)
  np.testing.assert_array_equal(part.target, parts_of(tmp_path / "target.npz", wanted((4, 5, 3), patch=(4, 5))).x)
  assert part.mask.shape == part.x.shape
  record = np.arange(46.0).reshape(23, 2)
  np.savez(tmp_path / "x.npz", x=record, target=-record, mask=record[:, 0] > 9)
  part = parts_of(tmp_path / "x.npz", wanted((10, 2), window=10, stride=6))
  np.testing.assert_array_equal(part.target, -part.x)
  np.testing.assert_array_equal(part.mask, np.repeat(part.x[..., :1] > 9, 2, -1))


def test_arrays_are_taken_in_the_layout_of_the_run(tmp_path):
  np.save(tmp_path / "x.npy", np.moveaxis(IMAGES, -1, 1))
  ((names, x),), notes = read(tmp_path / "x.npy", wanted(layout="nchw"))
  np.testing.assert_array_equal(x, IMAGES)
  assert (names[-1], notes) == ("39", [])
  np.save(tmp_path / "x.npy", IMAGES[..., 0])
  ((_, x),), _ = read(tmp_path / "x.npy", wanted((8, 6, 1)))
  assert x.shape == (40, 8, 6)


def test_a_record_is_cut_into_the_windows_of_the_run(tmp_path):
  record = np.arange(23.0)
  np.save(tmp_path / "x.npy", record)
  run = wanted((10, 1), window=10, stride=6)
  ((names, x),), _ = read(tmp_path / "x.npy", run)
  assert names == ["[0:10]", "[6:16]", "[12:22]"]
  np.testing.assert_array_equal(x[..., 0], [record[first : first + 10] for first in (0, 6, 12)])
  folder = tmp_path / "records"
  folder.mkdir()
  np.save(folder / "long.npy", record)
  np.save(folder / "long_labels.npy", np.zeros(23, int))
  np.save(folder / "short.npy", record[:9])
  ((names, of_folder),), notes = read(folder, run)
  assert names == ["long.npy[0:10]", "long.npy[6:16]", "long.npy[12:22]"]
  np.testing.assert_array_equal(of_folder, x)
  assert "long_labels.npy" in notes[0]  # they are not read, because `short` has none
  assert "short.npy" in notes[1]
  np.save(folder / "long_labels.npy", np.array(["a"] * 15 + ["b"] + ["a"] * 7))
  np.save(folder / "short_labels.npy", np.array("a"))
  (part,) = new_files.read(str(folder), run).parts
  assert part.labels.tolist() == ["a", "b", "b"]  # the largest label of its steps


def test_images_of_any_size_are_cut_into_the_patches_of_the_run(tmp_path):
  for name, image in {"a": IMAGES[0], "b": np.tile(IMAGES[1], (2, 1, 1)), "c": IMAGES[2, :3]}.items():
    write(tmp_path / f"{name}.png", image)
  parts, notes = read(tmp_path, wanted((4, 5, 3), patch=(4, 5), size=()))
  names = [name for names, _ in parts for name in names]
  patches = np.concatenate([x for _, x in parts])
  assert names == ["a.png[0,0]", "a.png[4,0]", *(f"b.png[{row},0]" for row in (0, 4, 8, 12))]
  np.testing.assert_array_equal(patches[1], IMAGES[0, 4:8, :5])
  np.testing.assert_array_equal(patches[3], IMAGES[1, 4:8, :5])
  assert "c.png" in " ".join(notes)
  np.save(tmp_path / "x.npy", np.moveaxis(IMAGES, -1, 1))
  ((names, x),), _ = read(tmp_path / "x.npy", wanted((4, 3, 3), patch=(4, 3), layout="nchw"))
  assert names[:5] == ["0[0,0]", "0[0,3]", "0[4,0]", "0[4,3]", "1[0,0]"]
  np.testing.assert_array_equal(x[3], IMAGES[0, 4:, 3:])


def test_several_files_are_read_one_after_the_other(tmp_path):
  for name, chosen in {"a": slice(2), "b": slice(2, 5)}.items():
    np.save(tmp_path / f"{name}.npy", IMAGES[chosen])
    write(tmp_path / f"{name}.png", IMAGES[chosen][0])
  parts, notes = read(tmp_path / "*.npy")
  assert [name for names, _ in parts for name in names] == ["a.npy:0", "a.npy:1", "b.npy:0", "b.npy:1", "b.npy:2"]
  np.testing.assert_array_equal(np.concatenate([x for _, x in parts]), IMAGES[:5])
  assert "2 files are concatenated in this order: a.npy, b.npy" in notes[0]
  parts, _ = read(f"{tmp_path / 'b.png'},{tmp_path / 'a.png'}")
  assert [name for names, _ in parts for name in names] == ["b.png", "a.png"]
  for folder in ("dog", "elk"):
    write(tmp_path / folder / "dog1.png", IMAGES[0])
  parts, _ = read(f"{tmp_path / 'dog'},{tmp_path / 'elk'}")
  assert [name for names, _ in parts for name in names] == ["dog:dog1.png", "elk:dog1.png"]
  with pytest.raises(errors.UserError, match=r"a\.npy is read as npy, but .*a\.png as folder; pass files of one kind"):
    read(tmp_path / "a.*")
  with pytest.raises(errors.UserError, match=r"--data=.*: .*c\*: no file matches this pattern"):
    read(tmp_path / "c*")


def test_names_of_several_files_tell_them_apart(tmp_path):
  for name in ("a", "b"):
    (tmp_path / name).mkdir()
    np.save(tmp_path / name / "x.npy", np.arange(4.0))
    write(tmp_path / f"{name}.png", np.tile(IMAGES[0], (2, 1, 1)))
  parts, _ = read(tmp_path / "?" / "x.npy", wanted((2, 1), window=2))
  steps = ("[0:2]", "[2:4]")
  assert [name for names, _ in parts for name in names] == [
    f"{tmp_path / name / 'x.npy'}{step}" for name in ("a", "b") for step in steps
  ]
  parts, _ = read(tmp_path / "?.png", wanted((8, 6, 3), patch=(8, 6)))
  assert [name for names, _ in parts for name in names] == ["a.png[0,0]", "a.png[8,0]", "b.png[0,0]", "b.png[8,0]"]


@pytest.mark.parametrize("name", ["x.json", "x.xyz", "x.csv", "empty", "x.png"])
def test_paths_of_another_kind_are_refused(tmp_path, name):
  file = tmp_path / name
  file.mkdir() if name == "empty" else file.write_text("a,b\n1,2\n")
  with pytest.raises(
    errors.UserError, match=r"is a JSON file|unsupported file type|not trained on a table|no readable image"
  ):
    read(file)


def test_images_for_a_run_on_other_data_are_refused(tmp_path):
  write(tmp_path / "a.png", IMAGES[0])
  with pytest.raises(errors.UserError, match=r"the model of the run expects examples of shape \[30\]"):
    read(tmp_path, wanted((30,)))
  with pytest.raises(errors.UserError, match="at most 4 channels"):
    read(tmp_path, wanted((8, 6, 5)))


def test_sixteen_bits_are_scaled_like_bytes(tmp_path):
  Image.fromarray(np.uint16(IMAGES[0, ..., 0]) * 257).save(tmp_path / "a.png")
  ((_, x),), notes = read(tmp_path, wanted((8, 6, 1)))
  np.testing.assert_allclose(x[0, ..., 0], IMAGES[0, ..., 0] / 255, rtol=1e-5)
  assert "16 bits" in " ".join(notes)


def test_files_of_rows_are_whole_or_absent(tmp_path):
  measured = rows.Rows({"name": np.array(["a"])}, np.zeros((2, 3), np.float32))
  rows.write(tmp_path / "x.npz", measured)
  assert [file.name for file in tmp_path.iterdir()] == ["x.npz"]
  with pytest.raises(errors.UserError, match="cannot be written"):
    rows.write(tmp_path / "none" / "x.csv", measured)


def conditional_scores(path, **options):
  """Returns the scores of new examples by a conditional model of images [6, 5, 1] with the classes good and odd."""
  run = made("cvae", labels=(0, 1), class_names=("good", "odd"))
  found = rows.read(run, str(path), **options)
  inputs = [measures.inputs_of(run, part.x, None, None, rows.columns_of(run, part, str(path))) for part in found.parts]
  named = [({"name": np.arange(len(each.x))}, each) for each in inputs]
  expected = run.score(np.repeat(GREY, 2, 0), label=np.array(["good", "odd"]))
  assert expected[0] != expected[1]
  return rows.measure(run, named, rows.Choice("reconstruction", None, "")).columns["score"], expected


def test_a_conditional_model_receives_the_labels_of_new_files(tmp_path):
  for name in ("good", "odd"):
    write(tmp_path / "new" / name / "a.png", GREY[0, ..., 0])
  np.testing.assert_allclose(*conditional_scores(tmp_path / "new"), rtol=1e-5)
  np.savez(tmp_path / "new.npz", x=np.repeat(GREY, 2, 0), y=[0, 1], other=["odd", "good"])
  np.testing.assert_allclose(*conditional_scores(tmp_path / "new.npz"), rtol=1e-5)
  found, expected = conditional_scores(tmp_path / "new.npz", label="other")
  np.testing.assert_allclose(found[::-1], expected, rtol=1e-5)


def test_labels_that_are_inputs_of_the_model_are_converted_once(tmp_path, monkeypatch):
  run, converted, in_run = made("cvae", labels=(0, 1), class_names=("good", "odd")), [], new_labels.in_run
  monkeypatch.setattr(new_labels, "in_run", lambda *given: converted.append(given) or in_run(*given))
  np.savez(tmp_path / "new.npz", x=np.repeat(GREY, 2, 0), y=[0, 1])
  (part,) = rows.read(run, str(tmp_path / "new.npz")).parts
  columns = rows.columns_of(run, part, "new.npz")
  assert rows.labels_of(run, part, columns, "new.npz") is columns["label"]
  assert len(converted) == 1
  assert rows.labels_of(run, part, {}, "new.npz").tolist() == columns["label"].tolist()


def test_labels_that_fit_no_example_are_refused(tmp_path):
  np.savez(tmp_path / "x.npz", x=np.arange(6.0), y=np.ones((6, 2)))
  section = wanted((2, 1), window=2, stride=1).section | {"range": "unit", "one_class": None}
  model = types.SimpleNamespace(shape=(2, 1), columns=())
  config = ml_collections.ConfigDict({"data": section})
  run = types.SimpleNamespace(model=model, schema=None, record_columns=None, config=config, metrics={})
  with pytest.raises(
    errors.UserError, match=r"--label=y: is not one label per example of --data=.*save them as an array"
  ):
    rows.read(run, str(tmp_path / "x.npz"), label="y")


@pytest.mark.parametrize(
  ("name", "fix"), [("a.png", "put each image into a folder"), ("x.npy", "save them as an array")]
)
def test_missing_labels_of_a_conditional_model_are_named(tmp_path, name, fix):
  write(tmp_path / "a.png", GREY[0, ..., 0])
  np.save(tmp_path / "x.npy", GREY)
  with pytest.raises(errors.UserError, match=f"has no labels, but the model of this run needs them; {fix}"):
    conditional_scores(tmp_path / name)


def test_evaluate_measures_the_detection_from_labels(of_table, tmp_path):
  run, flag = ae_jax.load(of_table / "run"), f"--workdir={of_table / 'run'}"
  new = TABLE[:30].assign(colour="green")
  new.to_csv(tmp_path / "new.csv", index=False)
  printed = command("evaluate", flag, f"--data={tmp_path / 'new.csv'}")
  assert "the normal class is 0; anomalies: 15 examples of other classes" in printed
  found = dict(line.split(maxsplit=1) for line in printed.splitlines() if " " in line)
  expected = run.evaluate(new[["height", "colour"]], labels=new["kind"])
  low, high = expected["auroc_low"], expected["auroc_high"]
  assert found["auroc"] == f"{expected['auroc']:.6g} ({low:.6g} to {high:.6g}, 95 % interval)"
  new.assign(kind=None).to_csv(tmp_path / "gaps.csv", index=False)
  printed = command("evaluate", flag, f"--data={tmp_path / 'gaps.csv'}")
  assert "detection of anomalies is not measured: " in printed
  assert "auroc" not in printed
  del new["kind"]
  new.to_csv(tmp_path / "none.csv", index=False)
  assert "auroc" not in command("evaluate", flag, f"--data={tmp_path / 'none.csv'}")
  error = command("evaluate", flag, f"--data={tmp_path / 'none.csv'}", "--normal=1", status=1)
  assert "--normal=1: " in error
  assert "has no labels; add the column 'kind'" in error
  error = command("evaluate", flag, f"--data={of_table / 'data.csv'}", "--normal=1", status=1)
  assert "not for the data of the run" in error
