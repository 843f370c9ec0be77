"""`sweep_run.run` without training: which members are trained to which epoch, and the status in their rows."""

import json

import pytest
from ml_collections import ConfigDict

from ae_jax import errors
from ae_jax.runs import run_folder
from ae_jax.sweep import engines, grid, summary, trainer
from ae_jax.sweep import run as sweep_run

LATENTS = ("model.latent", [2, 4])
RATES = ("optimizer.learning_rate", [0.003, 0.001, 0.002])
END = 6


@pytest.fixture
def run_sweep(tiny, tmp_path, monkeypatch):
  """Returns a function that runs a sweep and returns ({name: row}, tasks as ([name], until)).

  Its engine writes records instead of training. The error of a member is its learning rate times its latent size,
  divided by the epochs. `diverge` holds the names of members that diverge.
  """
  monkeypatch.setattr(sweep_run, "_conclude", lambda *_: None)
  monkeypatch.setattr(run_folder, "check_same", lambda *_: None)
  monkeypatch.setattr(run_folder, "describe", lambda *_: {})
  tiny.epochs = END

  def run(*axes, factor=0, shares=1, every=1, diverge=()):
    tasks = []

    def train(task):
      members = grid.members(ConfigDict(task.config), task.keys, task.points)
      tasks.append(([member.name for member in members], task.options.until))
      for member in members:
        write(tmp_path / "run" / member.name, member, task.options.until or END, every)
      return {
        member.name: trainer.MemberResult(7 if member.name in diverge else None, "in turn", 1.0, 0)
        for member in members
      }

    engine = lambda received, report: engines.Engine(lambda tasks: map(train, tasks), shares)
    rows = sweep_run.run(tiny, list(axes), tmp_path / "run", None, factor, engine)
    written = [row["name"] for row in json.loads((tmp_path / "run" / "sweep.json").read_text())["members"]]
    assert not tasks or written == [row["name"] for row in rows]
    return {row["name"]: row for row in rows}, tasks

  return run


def write(folder, member, until, every):
  """Writes the records of a member up to an epoch, with a test error in every `every`-th."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "config.json").write_text("{}")
  error = member.experiment.config.optimizer.learning_rate * member.latent
  records = [{"step": epoch, "epoch": float(epoch)} for epoch in range(1, until + 1)]
  for record in records:
    if record["step"] % every == 0 or record["step"] == until:
      record["test/squared_error"] = error / record["step"]
  (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def names_of(latents, rates):
  return [f"latent={latent},learning_rate={rate}" for latent in latents for rate in rates]


def statuses(rows):
  """Returns {name: (status, epochs)}."""
  return {name: (row["status"], row["epochs"]) for name, row in rows.items()}


ALL, BEST = names_of((2, 4), RATES[1]), names_of((2, 4), [0.001])
STOPPED = [name for name in ALL if name not in BEST]


def test_halving_trains_all_to_the_rung_and_the_best_to_the_end(run_sweep):
  rows, tasks = run_sweep(LATENTS, RATES, factor=3)
  assert tasks == [(ALL, 2), (BEST, None)]
  assert statuses(rows) == dict.fromkeys(BEST, ("done", END)) | dict.fromkeys(STOPPED, ("stopped after epoch 2", 2))
  assert list(rows) == ALL
  again, tasks = run_sweep(LATENTS, RATES, factor=3)
  assert (again, tasks) == (rows, [])


def test_stopped_settings_do_not_compete_at_later_rungs(run_sweep):
  rates = (RATES[0], [0.004, 0.003, 0.002, 0.001])
  rows, tasks = run_sweep(rates, factor=2)
  left = [[f"learning_rate={rate}" for rate in rates[1][first:]] for first in (0, 2, 3)]
  assert tasks == [(left[0], 1), (left[1], 3), (left[2], None)]
  assert [row["epochs"] for row in rows.values()] == [1, 1, 3, END]


def test_a_sweep_without_halving_continues_stopped_members(run_sweep):
  run_sweep(LATENTS, RATES, factor=3)
  rows, tasks = run_sweep(LATENTS, RATES)
  assert tasks == [(STOPPED, None)]
  assert statuses(rows) == dict.fromkeys(ALL, ("done", END))


@pytest.mark.parametrize("every", [1, 4, END])
def test_halving_does_not_stop_members_that_are_done(run_sweep, every):
  complete, _ = run_sweep(LATENTS, RATES, every=every)
  assert statuses(complete) == dict.fromkeys(ALL, ("done", END))
  assert run_sweep(LATENTS, RATES, factor=3) == (complete, [])


def test_a_new_setting_competes_with_those_of_an_earlier_halving(run_sweep):
  run_sweep(LATENTS, RATES, factor=3)
  better = (RATES[0], [*RATES[1], 0.0005])
  rows, tasks = run_sweep(LATENTS, better, factor=4)
  new = names_of((2, 4), [0.0005])
  assert tasks == [(new, 1), (new, None)]
  done = [*BEST, *new]
  assert statuses(rows) == dict.fromkeys(done, ("done", END)) | dict.fromkeys(STOPPED, ("stopped after epoch 2", 2))


def test_members_trained_for_different_epochs_are_separate_tasks(run_sweep):
  run_sweep(LATENTS, RATES, factor=3)
  more = (LATENTS[0], [2, 4, 3])
  new = names_of((3,), RATES[1])
  rows, tasks = run_sweep(more, RATES)
  assert sorted(tasks) == sorted([(STOPPED, None), (new, None)])
  assert statuses(rows) == dict.fromkeys([*ALL, *new], ("done", END))


def test_a_stopped_member_that_a_later_halving_ranks_first_continues(run_sweep):
  run_sweep(LATENTS, RATES, factor=3)
  rows, tasks = run_sweep(LATENTS, (RATES[0], [0.003, 0.002]), factor=2)  # without the best setting
  assert tasks == [(names_of((2, 4), [0.003, 0.002]), 3), (names_of((2, 4), [0.002]), None)]
  assert statuses(rows)["latent=4,learning_rate=0.003"] == ("stopped after epoch 3", 3)
  assert statuses(rows)["latent=4,learning_rate=0.002"] == ("done", END)


def test_a_diverged_member_is_not_trained_again_and_keeps_its_status(run_sweep):
  diverged = "latent=2,learning_rate=0.003"
  for factor in (3, 3, 0):
    rows, tasks = run_sweep(LATENTS, RATES, factor=factor, diverge=[diverged])
    assert rows[diverged]["status"] == "diverged at step 7"
  assert tasks == [([name for name in STOPPED if name != diverged], None)]
  assert "squared_error" not in rows[diverged]


def test_a_member_without_its_folder_is_trained_again(run_sweep, tmp_path):
  run_sweep(LATENTS)
  (tmp_path / "run" / "latent=2" / "config.json").unlink()
  rows, tasks = run_sweep(LATENTS)
  assert tasks == [(["latent=2"], None)]
  assert statuses(rows) == dict.fromkeys(("latent=2", "latent=4"), ("done", END))


@pytest.mark.parametrize(("shares", "sizes"), [(1, [5]), (2, [3, 2]), (3, [2, 2, 1]), (9, [1] * 5)])
def test_a_program_is_cut_into_shares_of_nearly_equal_size(run_sweep, shares, sizes):
  seeds = ("seed", [0, 1, 2, 3, 4])
  rows, tasks = run_sweep(seeds, shares=shares)
  assert [len(names) for names, _ in tasks] == sizes
  assert [name for names, _ in tasks for name in names] == list(rows) == [f"seed={seed}" for seed in range(5)]


def test_members_of_two_programs_are_two_tasks(run_sweep, capsys):
  rows, tasks = run_sweep(LATENTS, ("optimizer.weight_decay", [0.0, 0.1]))
  assert [len(names) for names, _ in tasks] == [2, 2]
  assert capsys.readouterr().out.startswith("4 members in 2 programs; ")
  assert statuses(rows) == dict.fromkeys(rows, ("done", END))
  run_sweep(LATENTS, ("optimizer.weight_decay", [0.0]))
  assert capsys.readouterr().out.startswith("2 members in 1 program, 2 of them trained already; ")


def test_another_config_is_refused_before_training(run_sweep, monkeypatch):
  run_sweep(LATENTS, RATES, factor=3)

  def other(workdir, _):
    if workdir.name == STOPPED[0]:
      raise errors.UserError("holds a run of another config")

  monkeypatch.setattr(run_folder, "check_same", other)
  with pytest.raises(errors.UserError, match="another config"):
    run_sweep(LATENTS, RATES)


@pytest.mark.parametrize(("file", "refused"), [("notes.txt", True), ("sweep.png", False), (".jobs", False)])
def test_a_folder_with_other_files_is_refused(run_sweep, tmp_path, file, refused):
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / file).mkdir()
  if refused:
    with pytest.raises(errors.UserError, match=r"contains 'notes\.txt', which is not part of a sweep"):
      run_sweep(LATENTS)
  else:
    run_sweep(LATENTS)


def test_memory_is_checked_for_the_largest_member_of_each_program(run_sweep, monkeypatch, tmp_path):
  checked = []
  monkeypatch.setattr(sweep_run.setup, "check_memory", lambda experiment, devices: checked.append(experiment))
  run_sweep(LATENTS, ("optimizer.weight_decay", [0.0, 0.1]))
  assert [experiment.config.model.latent for experiment in checked] == [4, 4]  # the largest of each program


def test_unfinished_packs_are_deleted_at_the_end(run_sweep, tmp_path):
  (tmp_path / "run" / trainer.PACKS / "old").mkdir(parents=True)
  run_sweep(LATENTS)
  assert not (tmp_path / "run" / trainer.PACKS).exists()
  assert {path.name for path in (tmp_path / "run").iterdir()} <= {"latent=2", "latent=4", *summary.FILES}
