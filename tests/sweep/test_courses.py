"""Data order, records, notes and sizes of a pack, with stubs in place of its compiled programs."""

import types

import numpy as np
import pytest

from ae_jax import checkpoints, errors, interruptions, logs, parallel, steps
from ae_jax.data import epochs
from ae_jax.sweep import packs, programs

LATENTS = (4, 2, 4)


class Written(list):
  """A log that keeps its records."""

  settled = 0
  write = list.append

  def settle(self):
    """Counts how often it was asked to."""
    self.settled += 1


@pytest.fixture
def pack(monkeypatch):
  """A function: three members with the seeds 5, 6, 5 in a pack filled to four, of 6 steps an epoch in chunks of 2."""
  monkeypatch.setattr(epochs, "LONGEST_CHUNK", 2)

  def make(step=0, on_nan="stop"):
    courses = []
    for number, (seed, latent) in enumerate(zip((5, 6, 5), LATENTS, strict=True)):
      plan = epochs.Epochs(12, 2, 1, seed)
      config = types.SimpleNamespace(on_nan=on_nan)
      described = types.SimpleNamespace(config=config, plan=plan, measures=(), dataset=None)
      member = types.SimpleNamespace(name=f"m{number}", latent=latent, described=described)
      courses.append(packs._Course(member, Written(), logs.Windows(3, plan.steps, step), None))
    mesh = types.SimpleNamespace(size=2)
    placed = types.SimpleNamespace(
      everywhere=types.SimpleNamespace(mesh=mesh),
      test_weights=np.ones((1, 2)),
      train=np.zeros(6, np.uint8),
      test=np.zeros(4, np.uint8),
    )
    display = types.SimpleNamespace(advance=lambda *_: None)
    return packs._Pack(courses, placed, None, display, lambda: "", 100.0, 9, "in turn", True)

  return make


def built(found):
  """Programs that take what they are given for trained: the loss of a step is `found(member, step)`."""
  seen = []

  def train_chunk(state, rows, weights):
    seen.append(rows)
    members, chunk = rows.shape[:2]
    loss = np.array([[found(m, int(state.step) + n + 1) for n in range(chunk)] for m in range(members)], np.float32)
    new = steps.TrainState(state.step + chunk, state.params, state.opt_state)
    return new, {"loss": loss}, np.isfinite(loss)

  return types.SimpleNamespace(train_chunk=train_chunk), seen


def at(step):
  return steps.TrainState(np.int32(step), (), ())


@pytest.mark.parametrize(("step", "epoch", "chunks"), [(0, 0, (0, 1, 2)), (8, 1, (1, 2)), (16, 2, (2,))])
def test_members_see_the_data_in_the_order_of_their_seeds_from_where_they_are(pack, step, epoch, chunks):
  pretended, seen = built(lambda member, step: 1.0)
  state, _, times = packs._train_epoch(pack(step), at(step), epoch, pretended, None)
  assert (int(state.step), len(times)) == (6 * (epoch + 1), len(chunks))
  for rows, chunk in zip(seen, chunks, strict=True):
    wanted = [epochs.Epochs(12, 2, 1, seed).chunks(epoch)[chunk][0] for seed in (5, 6, 5, 5)]
    np.testing.assert_array_equal(rows, np.stack(wanted))


@pytest.mark.parametrize("bad", range(1, 7))
def test_a_member_has_diverged_at_the_first_step_that_is_not_finite(pack, bad):
  pretended, _ = built(lambda member, step: np.nan if member == 1 and step >= bad else 1.0 + member)
  mine = pack()
  packs._train_epoch(mine, at(0), 0, pretended, None)
  assert [course.diverged for course in mine.courses] == [None, bad, None]
  assert [course.member.name for course in packs._going(mine)] == ["m0", "m2"]
  records = [[*course.log, course.windows.rest()] for course in packs._going(mine)]
  assert [[record["step"] for record in one] for one in records] == [[3, 6]] * 2
  assert [[record["train/loss"] for record in one] for one in records] == [[1.0, 1.0], [3.0, 3.0]]
  assert [record["step"] for record in mine.courses[1].log] == ([3] if bad > 4 else [])  # written when a step follows
  assert len(mine.courses[1].windows.pending) == (bad - 1) - 3 * (bad > 4)


def test_steps_that_are_skipped_are_counted_and_nobody_diverges(pack):
  pretended, _ = built(lambda member, step: np.nan if member == 1 and step in (2, 3) else 1.0)
  mine = pack(on_nan="skip")
  packs._train_epoch(mine, at(0), 0, pretended, None)
  assert [course.diverged for course in mine.courses] == [None] * 3
  assert [[record["train/skipped"] for record in course.log] for course in mine.courses] == [[0], [2], [0]]
  assert all(record["train/loss"] == 1.0 for course in mine.courses for record in course.log)


def test_what_is_saved_goes_on_in_the_middle_of_an_epoch(pack, monkeypatch):
  saved = []
  monkeypatch.setattr(checkpoints, "save", lambda opened, state, error, notes: saved.append((state, error, notes)))
  monkeypatch.setattr(checkpoints, "wait", lambda opened: saved.append("waited"))
  monkeypatch.setattr(programs, "to_save", lambda state, count: (int(state.step), count))
  signals = iter(["", "", "SIGTERM", "SIGTERM"])
  monkeypatch.setattr(interruptions, "asked", lambda received: next(signals))
  pretended, seen = built(lambda member, step: np.nan if (member, step) == (1, 2) else 1.0)
  mine = pack()
  with pytest.raises(interruptions.Interrupted, match=r"stopped after epoch 0\.667"):
    packs._train_epoch(mine, at(0), 0, pretended, None)
  assert len(seen) == 2
  pending = [len(course.windows.pending) for course in mine.courses]
  assert pending == [1, 1, 1]
  (state, error, notes), waited = saved
  assert (state, error, waited) == ((4, 3), np.inf, "waited")
  assert notes == {
    "courses": [
      (course.windows.pending, diverged) for course, diverged in zip(mine.courses, (None, 2, None), strict=True)
    ],
    "way": "in turn",
  }
  assert [course.log.settled for course in mine.courses] == [1, 1, 1]
  mine.measured = False
  packs._save(mine, at(4))
  assert list(saved[-1][2]) == ["courses"]  # the way is still to be measured


def test_each_member_has_its_own_metrics_and_what_its_size_is_held_against(pack, monkeypatch):
  mine = pack()
  mine.courses[0].diverged = 3
  monkeypatch.setattr(programs, "own_values", lambda member, values: {name: values[name] for name in values})
  found = lambda measures, losses, own, weights, dataset: {"loss": losses.item(), "error": own["error"].item()}.items()
  monkeypatch.setattr(packs.evaluators, "metrics", found)
  rulers = {latent: types.SimpleNamespace(result=lambda latent=latent: {"pca": latent}) for latent in (2, 4)}
  numbers = np.arange(4.0)[:, None]
  assert list(packs._metrics(mine, (numbers, {"error": 10 * numbers}), rulers)) == [
    {"loss": 1.0, "error": 10.0, "pca": 2},
    {"loss": 2.0, "error": 20.0, "pca": 4},
  ]


def test_rulers_are_found_for_each_latent_size_once(pack, monkeypatch):
  asked = []
  monkeypatch.setattr(
    packs.evaluators, "rulers", lambda measures, dataset, latent: asked.append(latent) or [("n", latent)]
  )
  found = {latent: future.result() for latent, future in packs._rulers(pack().members).items()}
  assert (found, sorted(asked)) == ({2: {"n": 2}, 4: {"n": 4}}, [2, 4])


def test_the_speed_is_that_of_all_members(pack):
  assert packs._rate(pack(), [0.5, 1.5]) == {"images_per_second": 3 * 12 * (2 / 3) / 2.0}


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
  monkeypatch.setattr(programs, "build", lambda *_: types.SimpleNamespace(peak_bytes=peak))
  mine = pack()
  mine.placed.everywhere.mesh.size, mine.budget = devices, budget
  monkeypatch.setattr(programs, "filled", lambda members, mesh: [None] * filled)
  if most is None:
    assert packs._fitting(mine, 0, None).peak_bytes == mine.peak_bytes == peak
  elif most == "refused":
    with pytest.raises(errors.UserError, match="--budget_gib: a member needs"):
      packs._fitting(mine, 0, None)
  else:
    with pytest.raises(packs._TooLarge) as refused:
      packs._fitting(mine, 0, None)
    assert refused.value.args == (most,)


def test_members_go_in_packs_of_a_size_that_shrinks_until_it_fits(monkeypatch):
  asked, lines, clock = [], [], iter(range(0, 1000, 6))

  def train_pack(pack, workdir, mesh, orders, budget, *_):
    asked.append((len(pack), budget))
    if len(pack) > 2:
      raise packs._TooLarge(2)
    return dict.fromkeys(pack), "in turn", 2**30

  monkeypatch.setattr(packs, "_train_pack", train_pack)
  monkeypatch.setattr(packs, "_most", lambda members, mesh, budget: 4)
  monkeypatch.setattr(packs.time, "monotonic", lambda: next(clock))
  given = packs.train(list("abcde"), None, parallel.mesh(), packs.Orders(budget_gib=2.0), None, lines.append)
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
  placed = types.SimpleNamespace(everywhere=types.SimpleNamespace(mesh=types.SimpleNamespace(size=1)))
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
    monkeypatch.setattr(programs, name, lambda *_, name=name: name)
  state, notes = packs._restored("the pack's", members, placed, tmp_path, None)
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
