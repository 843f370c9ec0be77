"""The report of a run is a function of the files in its folder, at any stage of the training."""

import json
import re
import shutil

import made_runs
import numpy as np
import pytest

from ae_jax import errors
from ae_jax.evaluators import figures, results
from ae_jax.report import measured, run_report, tables, tiles

pytestmark = pytest.mark.quick_compile

RESULTS = made_runs.every_kind(made_runs.images(20, side=8), points=30)


def page_of(folder):
  """Writes the report of a run, and returns its text without scripts and styles."""
  run_report.write(folder)
  text = (folder / "report.html").read_text()
  return re.sub(r"<(style|script)\b.*?</\1>", "", text, flags=re.DOTALL).replace("\N{NO-BREAK SPACE}", " ")


def test_report_shows_every_result(tmp_path):
  text = page_of(made_runs.make(tmp_path / "a", found=RESULTS))
  for name, value in RESULTS:
    if isinstance(value, str):
      assert "There is no posterior to weigh &lt;draws&gt; with." in text
    elif not isinstance(value, float):
      assert f"{value.title[:1].upper()}{value.title[1:]}." in text, name
  assert "0.98 (0.97 to 0.99)" in text
  assert "trained for 50 epochs" in text
  assert "Squared error 3.180 per test example (baseline: PCA with the same latent size, 13.193). " in text
  assert "The model&#39;s error is 24% of the PCA error." in text
  for part in ("0123456789abcdef", "5a17", "cpu: cpu", "optimizer.learning_rate", "from ae_jax import config, train"):
    assert part in text
  assert ">Novel</h2>" in text  # an evaluator that the report does not know


def test_report_shows_the_names_of_classes(tmp_path):
  values = [("reconstruction/squared_error/class_0", 1.0), ("reconstruction/squared_error/class_1", 2.0)]
  folder = made_runs.make(tmp_path / "a", found=values)
  assert "class 1" in page_of(folder)
  description = json.loads((folder / "config.json").read_text())
  description["data"]["class_names"] = ["good", "broken large"]
  description["config"]["data"]["one_class"] = 0
  (folder / "config.json").write_text(json.dumps(description))
  text = page_of(folder)
  assert "class broken large" in text
  assert "class 1" not in text
  assert "0 (good)" in text


def test_squared_errors_of_standardised_data_have_a_unit(tmp_path):
  for scale, count in (("standard", 4), ("none", 0)):
    folder = made_runs.make(tmp_path / scale, found=RESULTS, changes={"data.scale": scale, "data.range": "real"})
    text = page_of(folder)
    assert text.count("in squared standard deviations") == count  # headline, number, notes of two tables
    assert ("squared error per test example, in squared standard deviations" in text) == (scale == "standard")


def test_losses_and_errors_of_a_run_on_one_class_name_their_examples(tmp_path):
  folder = made_runs.make(tmp_path / "a", found=RESULTS, changes={"data.one_class": 0})
  description = json.loads((folder / "config.json").read_text())
  assert "The test loss is measured on the test set (with anomalies)." in page_of(folder)  # of an earlier version
  description["data"]["test_anomalies"] = 3
  (folder / "config.json").write_text(json.dumps(description))
  text = page_of(folder)
  assert "The test loss is measured on the test set (normal examples)." in text
  assert "test, normal examples" in text
  assert "squared error per normal test example" in text


def test_the_pca_baseline_is_defined_for_examples_pairs_and_gaps(tmp_path):
  folder = made_runs.make(tmp_path / "a", found=RESULTS)
  whole = "Baseline PCA: each test example is projected onto the principal components of the training examples, as many"
  assert whole in page_of(folder)
  report = run_report.read(folder)
  report.description["data"]["mask_fingerprint"] = "0"
  assert "each test example, with means in place of missing values, is projected" in report.result.pca_in_words
  of_pairs = measured.Result(report.metrics | {"test/input_squared_error": 1.0}, report.description)
  assert "of the training targets" in of_pairs.pca_in_words
  assert of_pairs.pca_in_words.endswith("; the result is compared with the target")
  quantised = measured.Result(report.metrics | {"test/pca_quantised_squared_error": 1.0}, report.description)
  assert quantised.pca_in_words.endswith("quantised to as many bits as the latent code")


def test_report_depends_only_on_the_folder(tmp_path):
  made_runs.make(tmp_path / "a", epochs=3, found=RESULTS)
  first = page_of(tmp_path / "a")
  shutil.copytree(tmp_path / "a", tmp_path / "elsewhere")
  assert page_of(tmp_path / "elsewhere") == first
  made_runs.make(tmp_path / "other", epochs=4, found=RESULTS)
  assert page_of(tmp_path / "other") != first


def test_report_of_an_unfinished_run_shows_its_progress(tmp_path):
  text = page_of(made_runs.make(tmp_path / "a", epochs=7, asked=20))
  assert "epoch 7 of 20" in text
  assert "appear here when training has ended" in text


def test_advice_is_given_only_after_the_last_epoch(tmp_path):
  for done, advised in ((6, False), (7, True)):
    folder = made_runs.make(tmp_path / str(done), epochs=done, asked=7, start=30.0)
    answer = run_report.read(folder).answer
    assert "no better than PCA" in answer
    assert ("Set config.model.linear_path=pca" in answer) == advised


def test_only_keys_that_differ_from_their_default_are_marked(tmp_path):
  folder = made_runs.make(tmp_path / "a", epochs=1, changes={"batch_size": 7, "optimizer.clip_norm": 0.5})
  _, _, table = run_report.read(folder)._run()
  changed = {line["cells"][0] for line in table["lines"] if line["changed"]}
  assert {"epochs", "batch_size", "optimizer.clip_norm"} <= changed
  assert not [key for key in changed if key.startswith("model.")]  # model keys have no default
  assert "seed" not in changed


def test_epochs_of_stages_count(tmp_path):
  stages = ({"epochs": 5, "objective": {"name": "reconstruction"}},)
  assert "epoch 7 of 25" in page_of(made_runs.make(tmp_path / "a", epochs=7, asked=20, changes={"stages": stages}))


def test_report_exists_before_the_first_record_and_after_divergence(tmp_path):
  made_runs.make(tmp_path / "a", asked=20)
  (tmp_path / "a" / "metrics.jsonl").write_text("")
  assert "Training has started" in page_of(tmp_path / "a")
  line = {"step": 1, "epoch": 1.0, "train/loss": None, "test/squared_error": None, "test/pca_squared_error": 13.0}
  (tmp_path / "a" / "metrics.jsonl").write_text(json.dumps(line) + "\n")
  assert "diverged" in page_of(tmp_path / "a")


def test_values_that_are_not_finite_are_written_in_words(tmp_path):
  folder = made_runs.make(tmp_path / "a", epochs=1)
  line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
  assert "infinite or undefined" not in page_of(folder)
  (folder / "metrics.jsonl").write_text(json.dumps(line | {"test/psnr": None, "test/psnr_in/masking_0.5": None}) + "\n")
  text = page_of(folder)
  assert "infinite or undefined" in text
  assert not re.search(r"\bnan\b", text, re.IGNORECASE)
  assert not [tile for tile in run_report.read(folder).tiles() if tables.NOT_FINITE in tile["value"]]


def test_report_states_the_skipped_steps(tmp_path):
  folder = made_runs.make(tmp_path / "a", epochs=2)
  lines = [json.loads(line) | {"train/skipped": 7} for line in (folder / "metrics.jsonl").read_text().splitlines()]
  (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  assert f"{7 * len(lines)} of {50 * len(lines)} steps were skipped" in run_report.read(folder).answer


def test_analyses_of_an_earlier_step_do_not_affect_the_verdict(tmp_path):
  vae = {"model.bottleneck": "gaussian"}
  folder = made_runs.make(tmp_path / "a", epochs=5, changes=vae)
  values = [("latent/active_units", 0), ("probe/linear/code", 0.5)]
  for step, decides in ((100, False), (1500, True)):
    results.write(folder, results.collect(step, values))
    report = run_report.read(folder)
    assert ("posterior collapse" in report.answer) == decides
    assert ("linear probe accuracy" in str(report.tiles())) == decides


def test_tiles_of_pairs_compare_with_the_input(tmp_path):
  report = run_report.read(made_runs.make(tmp_path / "a", found=RESULTS))
  of_pairs = {
    "test/psnr": 26.26,
    "test/input_psnr": 18.7,
    "test/input_squared_error": 9.5,
    "reconstruction/psnr": 26.26,
  }
  plain = tiles.of(measured.Result(report.metrics, report.description))
  found = tiles.of(measured.Result(report.metrics | of_pairs | {"reconstruction/ssim": 0.5}, report.description))
  assert "input" not in str(plain)
  assert (found[0]["name"], found[0]["beside"]) == ("PSNR, dB", "input: 18.7 dB")
  assert found[1]["beside"].startswith("input: 9.5; baseline PCA: ")
  assert str(found).count("PSNR") == 1


def test_report_marks_results_of_an_earlier_step(tmp_path):
  folder = made_runs.make(tmp_path / "a", epochs=5)
  results.write(folder, results.collect(100, RESULTS))
  assert "measured at step 100" in page_of(folder)
  results.write(folder, results.collect(1500, RESULTS))
  assert "measured at step" not in page_of(folder)


def test_series_and_colour_images_have_a_report(tmp_path):
  series = made_runs.every_kind(made_runs.series(20), points=30)
  assert 'class="picture"' in page_of(made_runs.make(tmp_path / "a", found=series, shape=(60, 1))).lower()
  colours = made_runs.every_kind(made_runs.images(20, side=8, channels=3), points=30)
  assert "red: too bright" in page_of(made_runs.make(tmp_path / "b", found=colours, shape=(8, 8, 3))).lower()


def test_a_single_class_point_and_constant_image_have_a_report(tmp_path):
  image = np.full((1, 8, 8, 1), 0.5, np.float32)
  labels, views = np.zeros(1, int), {"PCA": np.zeros((1, 2))}
  found = [
    ("a/rows", figures.ExampleRows("rows", {"test images": image, "reconstructions": image})),
    ("a/map", figures.Points("map", views, image, labels)),
    ("a/attention", figures.Attention("attention", image, {"pool": np.ones((1, 1, 1, 4), np.float32)})),
    ("a/explorer", figures.Explorer("explorer", ("x", "y"), np.zeros(1), image[None, None])),
    ("a/values", figures.Heatmap("heat", "unit", np.zeros((3, 3)))),
  ]
  text = page_of(made_runs.make(tmp_path / "a", epochs=1, found=found))
  assert "<select>" not in text  # only one pair of directions
  assert "<fieldset" not in text  # only one view


def test_names_are_escaped(tmp_path):
  unsafe = '<img src=x onerror="alert(1)"></script><script>alert(2)</script>'
  images = made_runs.images(2, side=8)
  found = [
    ("a/one", figures.Bars(unsafe, (unsafe, "b"), np.ones(2), unsafe, unsafe)),
    ("a/two", figures.ExampleRows(unsafe, {unsafe: images})),
    ("a/three", figures.Explorer(unsafe, (unsafe, unsafe), np.zeros(1), images[:1, None, None])),
    ("a/four", figures.Points(unsafe, {unsafe: np.zeros((2, 2)), "b": np.zeros((2, 2))}, images, np.arange(2))),
    (f"{unsafe}/five", 5.0),
    ("a/six", unsafe),
  ]
  folder = made_runs.make(tmp_path / "a", epochs=2, changes={"data.path": unsafe}, found=found)
  run_report.write(folder)
  text = (folder / "report.html").read_text()
  assert "<img src=x" not in text
  assert "</script><script>alert" not in text
  assert "alert(1)" in text  # as escaped text


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      lambda description: description["config"].pop("model"),
      "config.model is None, not dict; another version of ae_jax wrote the file",
    ),
    (lambda description: description["config"].update(epochs="20"), "config.epochs is '20', not int"),
    (lambda description: description["config"]["model"].pop("latent"), "config.model.latent is None, not int"),
    (lambda description: description["config"]["data"].update(range="percent"), "data.range='percent' is unknown"),
    (lambda description: description.pop("versions"), "versions is None, not dict"),
    (lambda description: description["data"].pop("fingerprint"), "data.fingerprint is None, not str"),
    (lambda description: description.pop("data"), "was not written by ae_jax"),
  ],
)
def test_config_of_another_version_is_an_error(tmp_path, change, message):
  folder = made_runs.make(tmp_path / "a", epochs=1)
  description = json.loads((folder / "config.json").read_text())
  change(description)
  (folder / "config.json").write_text(json.dumps(description))
  with pytest.raises(errors.UserError, match=re.escape(message)):
    run_report.read(folder)


def test_damaged_files_are_errors(tmp_path):
  with pytest.raises(errors.UserError, match="no run here"):
    run_report.read(tmp_path)
  folder = made_runs.make(tmp_path / "a", epochs=1, found=RESULTS)
  (folder / "evaluation" / "latent_map.npz").write_bytes(b"no")
  with pytest.raises(errors.UserError, match=r"latent_map\.npz: cannot be read as a figure"):
    run_report.write(folder)
  (folder / "config.json").write_text('{"config": {')
  with pytest.raises(errors.UserError, match=r"config\.json: cannot be read"):
    run_report.write(folder)
