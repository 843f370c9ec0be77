"""Comparison of runs: grouping, differences, ranking, and one-line errors."""

import json
import re
import types

import made_runs
import numpy as np
import pytest
from conftest import ROOT, run_command

from ae_jax import errors
from ae_jax.report import comparison

RESULTS = made_runs.every_kind(made_runs.images(20, side=8), points=30)


def compare(cwd, *arguments):
  """Runs `python -m ae_jax.compare`; returns (exit status, stdout, stderr)."""
  return run_command("compare", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """Three seeds of one config, and one run of another config."""
  root = tmp_path_factory.mktemp("runs")
  wide = {"model.widths": (512,)}
  for seed in range(3):
    changes = wide | {"seed": seed, "data.placement": ("memory", "stream", "auto")[seed]}
    made_runs.make(root / f"wide-{seed}", epochs=5, found=RESULTS, changes=changes, start=1 + 0.1 * seed)
  made_runs.make(root / "narrow", epochs=5, found=RESULTS, start=1.7)
  return root


def read(root, *names):
  return comparison.read([root / name for name in names])


def test_runs_that_differ_only_in_the_seed_form_a_group(folders):
  groups = read(folders, "wide-0", "narrow", "wide-2", "wide-1")
  assert [list(group.runs) for group in groups] == [["wide-0", "wide-2", "wide-1"], ["narrow"]]
  assert groups[0].name == "wide-0 (seeds 0, 2, 1)"


def test_different_data_of_the_same_name_forms_another_group(folders, tmp_path):
  made_runs.make(tmp_path / "other", epochs=5, fingerprint="beef")
  groups = comparison.read([folders / "narrow", tmp_path / "other"])
  assert len(groups) == 2
  assert "different data" in comparison.answer(groups)


def test_group_has_mean_interval_and_range(folders):
  said = comparison.on_screen(read(folders, "wide-0", "wide-1", "wide-2", "narrow"))
  (line,) = [line for line in said.splitlines() if line.startswith("squared error")]
  values = np.array([3 + 9 * (1 + 0.1 * seed) / 5 for seed in range(3)])
  half = 4.302653 * values.std(ddof=1) / 3**0.5  # Student's t, 97.5 %, 2 degrees of freedom
  assert f"{values.mean():.4g} ± {half:.2g} ({values[0]:.4g} to {values[2]:.4g})" in line
  assert line.endswith(f"{3 + 9 * 1.7 / 5:.4g}")
  two = comparison.on_screen(read(folders, "wide-0", "wide-1"))
  assert "±" not in two
  assert f"({values[0]:.4g} to {values[1]:.4g})" in two


def test_answer_begins_with_the_lowest_error(folders):
  for order in (("narrow", "wide-0"), ("wide-0", "narrow")):
    said = comparison.answer(read(folders, *order))
    assert said.startswith("wide-0 has the lowest squared error per test example, 4.8. Next: narrow, 6.06.")
  assert "of wide-0 (seeds 0, 1) is" in comparison.answer(read(folders, "wide-0", "wide-1"))


def group(name, errors_, fingerprint="one", class_names=(), unit="", **metrics):
  """Returns a group of runs with these squared errors, without folders."""
  run = lambda seed, error: types.SimpleNamespace(
    metrics={"test/squared_error": error, **metrics},
    config={"seed": seed},
    description={"data": {"fingerprint": fingerprint}},
    epochs=(1, 1),
    dates=("visit",),
    class_names=class_names,
    result=types.SimpleNamespace(unit=unit),
  )
  return comparison.Group({f"{name}{seed}": run(seed, error) for seed, error in enumerate(errors_)}, {})


def test_groups_are_ranked_by_their_mean():
  uneven, even, worst = group("uneven", [1.0, 1.0, 10.0]), group("even", [3.0, 3.5, 3.1]), group("worst", [20.0])
  said = comparison.answer([worst, uneven, even])
  assert said.startswith("even0 (seeds 0, 1, 2) has the lowest squared error per test example, 3.2 ± ")
  assert said.index("Next: uneven0") < said.index("worst0")
  assert "4 ± 13 (1 to 10)" in said  # the mean; 4.303 * sqrt(27) / sqrt(3)


def test_unit_of_the_error_is_stated_if_all_runs_have_it():
  standard, quantile, none = (group(name, [3.0], unit=name and f"in {name}") for name in ("deviations", "units", ""))
  assert "example, 3 in deviations." in comparison.answer([standard, group("b", [4.0], unit="in deviations")])
  for other in (quantile, none):
    assert "in deviations" not in comparison.answer([standard, other])


def test_group_with_a_diverged_run_is_not_ranked():
  lost, fine = group("lost", [0.1, np.nan]), group("fine", [3.0])
  assert comparison.answer([lost, fine]) == (
    "fine0 has the lowest squared error per test example, 3. Diverged: 1 of 2 runs of lost0 (seeds 0, 1)."
  )
  assert comparison.answer([group("lost", [np.nan, np.inf])]) == "All runs diverged."
  assert comparison.answer([lost]) == "Diverged: 1 of 2 runs of lost0 (seeds 0, 1)."


def test_answer_names_three_groups_after_the_best_and_counts_the_rest():
  said = comparison.answer([group(f"g{n}_", [float(n)]) for n in range(1, 7)])
  assert [f"g{n}_0," in said for n in range(2, 7)] == [True, True, True, False, False]
  assert said.endswith("; and 2 more.")


def test_table_omits_training_metrics_and_bounds_of_intervals():
  metrics = {"train/loss": 1.0, "probe/knn": 0.5, "probe/knn_low": 0.4, "probe/knn_high": 0.6, "probe/knn/code": 0.7}
  single, many = comparison._metrics([group("a", [1.0], **metrics), group("b", [2.0])])
  assert single == [["squared error", "1", "2"], ["probe: kNN", "0.5", ""]]
  assert many == [["probe: kNN / code", "0.7", ""]]


def test_names_of_columns_are_exact_and_errors_of_dates_are_in_days():
  metrics = {"reconstruction/column_rmse/visit": 1.5, "reconstruction/column_rmse/heart_rate 1%2Fmin": 2.0}
  _, many = comparison._metrics([group("a", [1.0], **metrics)])
  names = [f"reconstruction: column RMSE / {column}" for column in ("visit", "heart_rate 1/min")]
  assert many == [[names[0], "1.5 days"], [names[1], "2"]]


def test_classes_are_named_if_all_runs_have_the_same_names():
  metrics = {"reconstruction/squared_error/class_1": 1.5}
  good, other = (group("a", [1.0], class_names=("good", names), **metrics) for names in ("bent", "torn"))
  assert comparison._metrics([good, good])[1] == [["reconstruction: squared error / class bent", "1.5", "1.5"]]
  assert comparison._metrics([good, other])[1] == [["reconstruction: squared error / class 1", "1.5", "1.5"]]


def test_page_shows_only_the_keys_that_differ(folders, tmp_path):
  comparison.write(read(folders, "wide-0", "wide-1", "narrow"), tmp_path / "c.html")
  text = re.sub(r"<(style|script)\b.*?</\1>", "", (tmp_path / "c.html").read_text(), flags=re.DOTALL)
  differences = text[text.index("Config differences</h2>") : text.index("Metrics</h2>")]
  assert re.findall(r'<th scope="row">(.*?)</th>', differences) == ["model.widths"]
  assert text.count('alt="narrow: 16 examples"') == 1
  assert text.count('alt="test images: 16 examples"') == 1  # the same for all runs
  comparison.write(read(folders, "wide-0", "wide-1"), tmp_path / "c.html")
  assert "differ only in seed, data.placement." in (tmp_path / "c.html").read_text()


@pytest.mark.parametrize(
  ("changes", "description", "said"),
  [
    ({}, {}, "The configs of these runs are identical."),
    ({"seed": 1}, {}, "The configs of these runs differ only in seed."),
    ({"trackers": ("mlflow",)}, {}, "The configs of these runs differ only in trackers."),
    ({"seed": 1}, {"devices": ["gpu: H100"]}, "differ only in seed; the runs also differ in devices."),
    ({}, {"git_commit": None, "versions": {"jax": "9"}}, "are identical; the runs also differ in commit, versions."),
  ],
)
def test_page_states_the_differences_within_a_group(tmp_path, changes, description, said):
  made_runs.make(tmp_path / "a", epochs=1)
  config = json.loads((made_runs.make(tmp_path / "b", epochs=1, changes=changes) / "config.json").read_text())
  (tmp_path / "b" / "config.json").write_text(json.dumps(config | description))
  (group,) = read(tmp_path, "a", "b")
  assert said in comparison._nearly_same(list(group.runs.values()))


def test_runs_with_equal_errors_are_both_named(tmp_path):
  for name, width in (("a", 8), ("b", 16), ("c", 32)):
    made_runs.make(tmp_path / name, epochs=1, changes={"model.widths": (width,)}, start=2.0 if name == "c" else 1.0)
  said = comparison.answer(read(tmp_path, "c", "b", "a"))
  assert said == "b and a have the lowest squared error per test example, 12. Next: c, 21."


def test_answer_names_the_best_four_runs_and_counts_the_rest(tmp_path):
  for number in range(6):
    made_runs.make(tmp_path / f"r{number}", epochs=1, changes={"model.widths": (number + 1,)}, start=1.0 + number)
  said = comparison.answer(read(tmp_path, *(f"r{number}" for number in (5, 3, 1, 0, 2, 4))))
  assert said == "r0 has the lowest squared error per test example, 12. Next: r1, 21; r2, 30; r3, 39; and 2 more."


def test_table_has_no_training_metrics(folders):
  said = comparison.on_screen(read(folders, "wide-0", "narrow"))
  assert "nats lower bound" in said
  assert "train" not in said


def test_order_of_config_keys_does_not_matter(tmp_path):
  made_runs.make(tmp_path / "a", epochs=1)
  file = made_runs.make(tmp_path / "b", epochs=1, changes={"seed": 1}) / "config.json"
  description = json.loads(file.read_text())
  description["config"] = dict(reversed(description["config"].items()))
  file.write_text(json.dumps(description))
  assert len(read(tmp_path, "a", "b")) == 1


def test_pca_baseline_is_drawn_only_if_equal_for_all_runs(tmp_path):
  for name, widths in (("a", (8,)), ("b", (16,))):
    made_runs.make(tmp_path / name, epochs=1, changes={"model.widths": widths})
  assert "PCA, 13.19" in str(comparison._curves(read(tmp_path, "a", "b")))
  records = (tmp_path / "b" / "metrics.jsonl").read_text()
  (tmp_path / "b" / "metrics.jsonl").write_text(records.replace("13.193", "14.5"))
  assert "PCA" not in str(comparison._curves(read(tmp_path, "a", "b")))


def test_unfinished_runs_are_named(folders, tmp_path):
  made_runs.make(tmp_path / "short", epochs=2, asked=9)
  assert comparison.answer(comparison.read([folders / "narrow", tmp_path / "short"])).endswith(
    "Training not finished: short."
  )
  assert "not finished" not in comparison.answer(read(folders, "narrow", "wide-0"))


@pytest.mark.parametrize("alone", [False, True])
def test_diverged_runs_of_a_group_are_counted(folders, tmp_path, alone):
  for seed in range(3):
    made_runs.make(tmp_path / f"run-{seed}", epochs=1, changes={"seed": seed})
  (tmp_path / "run-1" / "metrics.jsonl").write_text('{"step": 1, "epoch": 1.0, "test/squared_error": null}\n')
  runs = [tmp_path / f"run-{seed}" for seed in range(3)]
  said = comparison.answer(comparison.read(runs if alone else [*runs, folders / "narrow"]))
  assert "Diverged: 1 of 3 runs of run-0 (seeds 0, 1, 2)." in said
  assert "All runs" not in said
  assert ("narrow has the lowest" in said) == (not alone)


def test_runs_without_evaluation_and_diverged_runs_can_be_compared(folders, tmp_path):
  plain = made_runs.make(tmp_path / "plain", epochs=2)
  lost = made_runs.make(tmp_path / "lost", epochs=2, changes={"epochs": 9})
  (lost / "metrics.jsonl").write_text('{"step": 1, "epoch": 1.0, "test/squared_error": null}\n')
  groups = comparison.read([folders / "narrow", plain, lost])
  comparison.write(groups, tmp_path / "c.html")
  assert "Diverged: lost." in comparison.answer(groups)
  assert "not finite" in comparison.on_screen(groups)
  assert comparison.answer(groups[2:]) == "All runs diverged."


def test_folders_with_equal_names_are_shown_with_their_path(folders, tmp_path):
  made_runs.make(tmp_path / "narrow", epochs=4)
  groups = comparison.read([folders / "narrow", tmp_path / "narrow"])
  assert [group.name for group in groups] == [str(folders / "narrow"), str(tmp_path / "narrow")]


def test_command_prints_a_table_and_writes_a_page(folders, tmp_path):
  status, output, complaints = compare(ROOT, folders / "wide-0", folders / "narrow", f"--out={tmp_path / 'c.html'}")
  assert status == 0, complaints
  assert not complaints
  assert "narrow" in output.splitlines()[0]
  assert "has the lowest squared error" in output
  assert (tmp_path / "c.html").stat().st_size > 1e6


@pytest.mark.parametrize(
  ("make", "said"),
  [
    (lambda root: ["a"], "nothing to compare with"),
    (lambda root: ["a", "none"], "there is no run here"),
    (lambda root: ["a", "a/../a"], "is named twice"),
    (lambda root: ["a", "b", (root / "b" / "metrics.jsonl").unlink()], "has no evaluation yet"),
    (lambda root: ["a", "b", (root / "b" / "config.json").write_text('{"config"')], "cannot be read"),
    (lambda root: ["a", "b", (root / "b" / "config.json").write_text('{"config": 3}')], "was not written by ae_jax"),
  ],
)
def test_unusable_folders_are_errors(tmp_path, make, said):
  for name in ("a", "b"):
    made_runs.make(tmp_path / name, epochs=1)
  names = [name for name in make(tmp_path) if isinstance(name, str)]
  with pytest.raises(errors.UserError, match=said):
    comparison.read([tmp_path / name for name in names])


@pytest.mark.parametrize(
  ("arguments", "status", "said"),
  [
    ([], 2, "arguments are missing"),
    (["none", "other"], 1, "none: there is no run here"),
    (["none", "other", "--out=a.txt"], 1, "--out=a.txt: must end in .html"),
  ],
)
def test_error_of_the_command_is_one_line_and_a_status(tmp_path, arguments, status, said):
  found, output, complaints = compare(tmp_path, *arguments)
  assert found == status
  assert complaints.startswith("ae_jax: ")
  assert len(complaints.splitlines()) == 1
  assert said in complaints
  assert not output
  assert not list(tmp_path.iterdir())
