"""The page of a run: a function of what lies in its folder, at any time of its life."""

import json
import re
import shutil

import made_runs
import numpy as np
import pytest

from ae_jax import errors
from ae_jax.evaluators import figures, results
from ae_jax.report import run_report, tables

FOUND = made_runs.every_kind(made_runs.images(20, side=8), points=30)


def page_of(folder):
  """The text of a run's page, but for what is not shown."""
  run_report.write(folder)
  text = (folder / "report.html").read_text()
  return re.sub(r"<(style|script)\b.*?</\1>", "", text, flags=re.DOTALL).replace("\N{NO-BREAK SPACE}", " ")


def test_it_tells_everything_that_was_found(tmp_path):
  text = page_of(made_runs.make(tmp_path / "a", found=FOUND))
  for name, value in FOUND:
    if isinstance(value, str):
      assert "There is no posterior to weigh &lt;draws&gt; with." in text
    elif not isinstance(value, float):
      assert f"{value.title[:1].upper()}{value.title[1:]}." in text, name
  assert "0.98 (0.97 to 0.99)" in text
  assert "after 50 epochs" in text
  assert "Squared error 3.180 per test example; PCA with as many numbers 13.193: that is 24% of PCA" in text
  for part in ("0123456789abcdef", "5a17", "cpu: cpu", "optimizer.learning_rate", "from ae_jax import config, train"):
    assert part in text
  assert ">Novel</h2>" in text  # what no template was told of


def test_it_is_a_function_of_the_folder(tmp_path):
  made_runs.make(tmp_path / "a", epochs=3, found=FOUND)
  first = page_of(tmp_path / "a")
  shutil.copytree(tmp_path / "a", tmp_path / "elsewhere")
  assert page_of(tmp_path / "elsewhere") == first
  made_runs.make(tmp_path / "other", epochs=4, found=FOUND)
  assert page_of(tmp_path / "other") != first


def test_a_run_in_training_says_how_far_it_is(tmp_path):
  text = page_of(made_runs.make(tmp_path / "a", epochs=7, asked=20))
  assert "epoch 7 of 20" in text
  assert "come when the training has ended" in text


def test_advice_comes_after_the_last_epoch(tmp_path):
  for done, advised in ((6, False), (7, True)):
    folder = made_runs.make(tmp_path / str(done), epochs=done, asked=7, start=30.0)
    answer = run_report.read(folder).answer
    assert "no better than PCA" in answer
    assert ("train longer" in answer) == advised


def test_changed_is_what_differs_from_the_default_of_a_key_that_has_one(tmp_path):
  folder = made_runs.make(tmp_path / "a", epochs=1, changes={"batch_size": 7, "optimizer.clip_norm": 0.5})
  _, _, table = run_report.read(folder)._run()
  changed = {line["cells"][0] for line in table["lines"] if line["changed"]}
  assert {"epochs", "batch_size", "optimizer.clip_norm"} <= changed
  assert not [key for key in changed if key.startswith("model.")]  # which has no default
  assert "seed" not in changed


def test_stages_are_epochs_too(tmp_path):
  stages = ({"epochs": 5, "objective": {"name": "reconstruction"}},)
  assert "epoch 7 of 25" in page_of(made_runs.make(tmp_path / "a", epochs=7, asked=20, changes={"stages": stages}))


def test_before_the_first_record_and_after_divergence_there_is_a_page(tmp_path):
  made_runs.make(tmp_path / "a", asked=20)
  (tmp_path / "a" / "metrics.jsonl").write_text("")
  assert "The training has begun" in page_of(tmp_path / "a")
  line = {"step": 1, "epoch": 1.0, "train/loss": None, "test/squared_error": None, "test/pca_squared_error": 13.0}
  (tmp_path / "a" / "metrics.jsonl").write_text(json.dumps(line) + "\n")
  assert "diverged" in page_of(tmp_path / "a")


def test_values_that_are_not_finite_are_said_in_words(tmp_path):
  folder = made_runs.make(tmp_path / "a", epochs=1)
  line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
  assert "infinite or undefined" not in page_of(folder)
  (folder / "metrics.jsonl").write_text(json.dumps(line | {"test/psnr": None, "test/psnr_in/masking_0.5": None}) + "\n")
  text = page_of(folder)
  assert "infinite or undefined" in text
  assert not re.search(r"\bnan\b", text, re.IGNORECASE)
  assert not [tile for tile in run_report.read(folder).tiles() if tables.NOT_FINITE in tile["value"]]


def test_skipped_steps_are_told_on_the_page(tmp_path):
  folder = made_runs.make(tmp_path / "a", epochs=2)
  lines = [json.loads(line) | {"train/skipped": 7} for line in (folder / "metrics.jsonl").read_text().splitlines()]
  (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  assert f"{7 * len(lines)} of {50 * len(lines)} steps were skipped" in run_report.read(folder).answer


def test_studies_of_an_earlier_step_decide_nothing(tmp_path):
  vae = {"model.bottleneck": "gaussian"}
  folder = made_runs.make(tmp_path / "a", epochs=5, changes=vae)
  found = [("latent/active_units", 0), ("probe/linear/code", 0.5)]
  for step, decides in ((100, False), (1500, True)):
    results.write(folder, results.of(step, found))
    told = run_report.read(folder)
    assert ("posterior collapse" in told.answer) == decides
    assert ("accuracy of a linear probe" in str(told.tiles())) == decides


def test_what_was_found_of_an_earlier_step_is_said_to_be(tmp_path):
  folder = made_runs.make(tmp_path / "a", epochs=5)
  results.write(folder, results.of(100, FOUND))
  assert "found at step 100" in page_of(folder)
  results.write(folder, results.of(1500, FOUND))
  assert "found at step" not in page_of(folder)


def test_series_and_colours_have_a_page(tmp_path):
  series = made_runs.every_kind(made_runs.series(20), points=30)
  assert "grey: the series" in page_of(made_runs.make(tmp_path / "a", found=series, shape=(60, 1))).lower()
  colours = made_runs.every_kind(made_runs.images(20, side=8, channels=3), points=30)
  assert "red: too bright" in page_of(made_runs.make(tmp_path / "b", found=colours, shape=(8, 8, 3))).lower()


def test_a_class_a_point_and_a_constant_image_have_a_page(tmp_path):
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
  assert "<select>" not in text  # there is one pair
  assert "<fieldset" not in text  # and one view


def test_names_from_a_stranger_are_shown_and_not_run(tmp_path):
  evil = '<img src=x onerror="alert(1)"></script><script>alert(2)</script>'
  images = made_runs.images(2, side=8)
  found = [
    ("a/one", figures.Bars(evil, (evil, "b"), np.ones(2), evil, evil)),
    ("a/two", figures.ExampleRows(evil, {evil: images})),
    ("a/three", figures.Explorer(evil, (evil, evil), np.zeros(1), images[:1, None, None])),
    ("a/four", figures.Points(evil, {evil: np.zeros((2, 2)), "b": np.zeros((2, 2))}, images, np.arange(2))),
    (f"{evil}/five", 5.0),
    ("a/six", evil),
  ]
  folder = made_runs.make(tmp_path / "a", epochs=2, changes={"data.path": evil}, found=found)
  run_report.write(folder)
  text = (folder / "report.html").read_text()
  assert "<img src=x" not in text
  assert "</script><script>alert" not in text
  assert "alert(1)" in text  # it is there, as text


@pytest.mark.parametrize(
  ("change", "said"),
  [
    (lambda whole: whole["config"].pop("model"), "config.model is None, not dict: it is of another version"),
    (lambda whole: whole["config"].update(epochs="20"), "config.epochs is '20', not int"),
    (lambda whole: whole["config"]["model"].pop("latent"), "config.model.latent is None, not int"),
    (lambda whole: whole["config"]["data"].update(range="percent"), "data.range='percent' is unknown"),
    (lambda whole: whole.pop("versions"), "versions is None, not dict"),
    (lambda whole: whole["data"].pop("fingerprint"), "data.fingerprint is None, not str"),
    (lambda whole: whole.pop("data"), "was not written by ae_jax"),
  ],
)
def test_a_config_of_another_version_is_said_in_a_line(tmp_path, change, said):
  folder = made_runs.make(tmp_path / "a", epochs=1)
  description = json.loads((folder / "config.json").read_text())
  change(description)
  (folder / "config.json").write_text(json.dumps(description))
  with pytest.raises(errors.UserError, match=re.escape(said)):
    run_report.read(folder)


def test_damage_is_said(tmp_path):
  with pytest.raises(errors.UserError, match="no run here"):
    run_report.read(tmp_path)
  folder = made_runs.make(tmp_path / "a", epochs=1, found=FOUND)
  (folder / "evaluation" / "latent_map.npz").write_bytes(b"no")
  with pytest.raises(errors.UserError, match=r"latent_map\.npz: is not what an evaluator left"):
    run_report.write(folder)
  (folder / "config.json").write_text('{"config": {')
  with pytest.raises(errors.UserError, match=r"config\.json: cannot be read"):
    run_report.write(folder)
