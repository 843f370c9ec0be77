"""Data order, metrics, notes and sizes of a pack, with stubs in place of its compiled programs."""

import types

import numpy as np
import pytest

from ae_jax import errors, models
from ae_jax.data import batch_schedule
from ae_jax.runs import checkpoints
from ae_jax.sweep import compiled_pack, trainer
from ae_jax.system import distributed
from ae_jax.training import compiled_stage as single
from ae_jax.training.state import TrainState

LATENTS = (4, 2, 4)


@pytest.fixture
def pack(monkeypatch):
  """A pack of three members with the seeds 5, 6, 5, filled to four, of 6 steps an epoch in chunks of 2."""
  monkeypatch.setattr(batch_schedule, "LONGEST_CHUNK", 2)
  members = []
  for number, (seed, latent) in enumerate(zip((5, 6, 5), LATENTS, strict=True)):
    experiment = types.SimpleNamespace(
      schedule=batch_schedule.BatchSchedule(12, 2, 1, seed),
      config=types.SimpleNamespace(log_every_steps=3),
      measures=(),
      dataset=types.SimpleNamespace(streams=False),
      model=types.SimpleNamespace(code=models.CodeSpec((latent,))),
    )
    members.append(types.SimpleNamespace(name=f"m{number}", latent=latent, experiment=experiment))
  device_data = types.SimpleNamespace(
    split=types.SimpleNamespace(mesh=types.SimpleNamespace(size=2)),
    test_weights=np.ones((1, 2)),
    train=np.zeros(6, np.uint8),
    test=np.zeros(4, np.uint8),
  )
  filled = compiled_pack.filled(members, device_data.split.mesh)
  return trainer._Pack(members, filled, device_data, 100.0, 9, "in turn", True, {}, print)


def at(step):
  return TrainState(step=np.int32(step), params=(), opt_state=())


@pytest.mark.parametrize(("first", "last"), [(0, 3), (4, 6), (5, 9)])
def test_members_see_the_data_in_the_order_of_their_seeds_from_where_they_are(pack, first, last):
  chunks = list(compiled_pack.feed(pack.filled, first, last))
  assert len(chunks) == last - first
  for number, (rows, weights) in zip(range(first, last), chunks, strict=True):
    wanted = [batch_schedule.BatchSchedule(12, 2, 1, seed).chunks(number // 3)[number % 3] for seed in (5, 6, 5, 5)]
    np.testing.assert_array_equal(rows, np.stack([own for own, _ in wanted]))
    np.testing.assert_array_equal(weights, np.stack([own for _, own in wanted]))


def test_the_notes_of_a_pack_are_the_courses_of_its_members_and_the_way_once_it_is_settled(pack, monkeypatch):
  monkeypatch.setattr(compiled_pack, "to_save", lambda state, count: (int(state.step), count))
  courses = [trainer._course(pack, index, None, 4, [{"loss": index}], None) for index in range(3)]
  courses[1].diverged = 2
  state, error, notes = trainer._checkpoint(pack, courses, at(4), ())
  assert (state, error) == ((4, 3), np.inf)
  assert notes == {
    "courses": [([{"loss": 0}], None), ([{"loss": 1}], 2), ([{"loss": 2}], None)],
    "way": "in turn",
  }
  pack.measured = False
  assert list(trainer._checkpoint(pack, courses, at(4), ())[2]) == ["courses"]


def test_each_member_has_its_own_metrics_and_the_baselines_of_its_latent_size(pack, monkeypatch):
  monkeypatch.setattr(compiled_pack, "own_values", lambda member, values: {name: values[name] for name in values})
  found = lambda measures, losses, own, weights, dataset: {"loss": losses.item(), "error": own["error"].item()}.items()
  monkeypatch.setattr(trainer.evaluators, "metrics", found)
  pack.baselines = {latent: types.SimpleNamespace(result=lambda latent=latent: {"pca": latent}) for latent in (2, 4)}
  numbers = np.arange(4.0)[:, None]
  courses = [trainer._course(pack, index, None, 0, (), None) for index in range(3)]
  assert [course.metrics(numbers, {"error": 10 * numbers}) | course.baselines() for course in courses] == [
    {"loss": 0.0, "error": 0.0, "pca": 4},
    {"loss": 1.0, "error": 10.0, "pca": 2},
    {"loss": 2.0, "error": 20.0, "pca": 4},
  ]


def test_baselines_are_computed_for_each_latent_size_once(pack, monkeypatch):
  asked = []
  monkeypatch.setattr(
    trainer.evaluators, "baselines", lambda measures, dataset, code: asked.append(code.numbers) or [("n", code.numbers)]
  )
  found = {latent: future.result() for latent, future in trainer._baselines(pack.members).items()}
  assert (found, sorted(asked)) == ({2: {"n": 2}, 4: {"n": 4}}, [2, 4])


@pytest.mark.parametrize(
  ("devices", "filled", "peak", "budget", "most"),
  [
    (2, 8, 90, 50, 4),  # ten of data, ten a member
    (1, 8, 18, 14, 4),  # ten of data, one a member
    (2, 8, 90, 90, None),
    (2, 8, 90, 89.9, 6),
    (3, 9, 100, 60, 3),
    (8, 16, 170, 169, 8),
    (2, 4, 50, 11, 2),
    (2, 2, 30, 29, "refused"),
  ],
)
def test_a_pack_is_cut_to_its_budget_in_whole_rounds_of_the_devices(
  pack, monkeypatch, devices, filled, peak, budget, most
):
  built = single.CompiledStage(*[None] * 3, compile_seconds=0.0, peak_bytes=peak)
  monkeypatch.setattr(compiled_pack, "build", lambda *_: built)
  pack.device_data.split.mesh.size, pack.budget, pack.filled = devices, budget, [None] * filled
  if most is None:
    assert trainer._build(pack, 0, None).peak_bytes == pack.peak_bytes == peak
  elif most == "refused":
    with pytest.raises(errors.UserError, match="--budget_gib: a member needs"):
      trainer._build(pack, 0, None)
  else:
    with pytest.raises(trainer._TooLarge) as refused:
      trainer._build(pack, 0, None)
    assert refused.value.args == (most,)


def test_members_go_in_packs_of_a_size_that_shrinks_until_it_fits(monkeypatch):
  asked, lines, clock = [], [], iter(range(0, 1000, 6))

  def train_pack(pack, workdir, mesh, options, budget, *_):
    asked.append((len(pack), budget))
    if len(pack) > 2:
      raise trainer._TooLarge(2)
    return dict.fromkeys(pack), "in turn", 2**30

  monkeypatch.setattr(trainer, "_train_pack", train_pack)
  monkeypatch.setattr(trainer, "_most", lambda members, mesh, budget: 4)
  monkeypatch.setattr(trainer.time, "monotonic", lambda: next(clock))
  given = trainer.train(
    list("abcde"), None, distributed.mesh(), trainer.SweepOptions(budget_gib=2.0), None, lines.append
  )
  found = list(given)
  assert asked == [(size, 2.0 * 2**30) for size in (4, 2, 2, 1)]
  assert [list(ended) for ended in found] == [["a", "b"], ["c", "d"], ["e"]]
  assert [next(iter(ended.values())).seconds for ended in found] == [3.0, 3.0, 6.0]
  assert lines == ["2 of 5 members at a time: they take 1 GiB of a device"]


@pytest.mark.parametrize(
  ("own", "pack_s", "way"),
  [
    ((None, None), None, "start"),
    (((12, {}), (12, {})), None, "joined"),
    (((12, {}), None), None, "start"),
    (((12, {}), (24, {})), None, "start"),
    (((12, {}, 24), (24, {})), None, "start"),  # the newest of one, of step 24, is damaged
    (((12, {"pending": [1]}), (12, {})), None, "start"),
    (((12, {}), (12, {})), (18, {"courses": "kept"}), "from_saved"),
  ],
)
def test_a_pack_goes_on_with_its_own_state_or_with_those_of_members_that_are_as_far(
  monkeypatch, tmp_path, own, pack_s, way
):
  members = [types.SimpleNamespace(name=name) for name in "ab"]
  there = {str(tmp_path / name / "checkpoints"): found for name, found in zip("ab", own, strict=True)}
  folder = lambda path, *_: _Folder(path)
  as_state = lambda found: found and (at(found[0]), found[1])
  monkeypatch.setattr(checkpoints, "open_folder", folder)
  steps_of = lambda found: [number for number in found or () if isinstance(number, int)]
  monkeypatch.setattr(checkpoints, "newest", lambda path: max(steps_of(there[str(path)]), default=None))
  monkeypatch.setattr(
    checkpoints, "restore", lambda opened, *_: as_state(there[opened.path] if isinstance(opened, _Folder) else pack_s)
  )
  for name in ("start", "to_save", "joined", "from_saved", "own_like"):
    monkeypatch.setattr(compiled_pack, name, lambda *_, name=name: name)
  state, notes = trainer._restored("the pack's", members, members, None, tmp_path, None)
  assert state == way
  assert notes == ({"courses": "kept"} if pack_s else {"courses": [([], None)] * 2})


class _Folder:
  """Checkpoints of a member that are open."""

  def __init__(self, path):
    self.path = str(path)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass
