"""Data order, metrics, notes and restored states of a pack, with stubs in place of its compiled programs."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stubs import stub, stub_member

from ae_jax import data, errors, models
from ae_jax.data import batch_schedule
from ae_jax.runs import checkpoints, logs
from ae_jax.sweep import compiled_pack, trainer
from ae_jax.sweep import pack as packs
from ae_jax.system import distributed
from ae_jax.training.compiled_stage import CompiledStage
from ae_jax.training.device_arrays import DeviceData
from ae_jax.training.evaluation import Evaluated
from ae_jax.training.state import TrainState

LATENTS = (4, 2, 4)


@pytest.fixture
def pack(monkeypatch):
  """Returns a pack of three members with seeds 5, 6, 5 on two devices: 6 steps an epoch in chunks of 2."""
  monkeypatch.setattr(batch_schedule, "LONGEST_CHUNK", 2)
  members = [
    stub_member(
      f"m{number}",
      latent,
      config={"log_every_steps": 3},
      batch_schedule=batch_schedule.BatchSchedule(12, 2, 1, seed),
      evaluators=(),
      dataset=stub(data.Dataset, streams=False, validation=None),
      model=types.SimpleNamespace(code=models.CodeSpec((latent,))),
    )
    for number, (seed, latent) in enumerate(zip((5, 6, 5), LATENTS, strict=True))
  ]
  mesh = mesh_of(2)
  device_data = stub(
    DeviceData,
    batch_sharding=distributed.sharded(mesh, axis=0),
    evaluated={"test": Evaluated({"x": np.zeros(4, np.uint8)}, (), np.ones((1, 2)))},
    train=np.zeros(6, np.uint8),
  )
  padded_members = compiled_pack.pad_to_devices(members, mesh)
  return packs.Pack(members, padded_members, device_data, 100.0, 9, "in turn", True, {}, print)


def mesh_of(devices):
  return distributed.mesh(jax.devices()[:devices])


def at(step):
  return TrainState(step=jnp.int32(step), params=(), opt_state=())


def recorder_of(pack, index, step=0, pending=()):
  return trainer._recorder(pack, index, logs.NullLog(), step, list(pending), None)


@pytest.mark.parametrize(("first", "last"), [(0, 3), (4, 6), (5, 9)])
def test_feed_gives_each_member_the_chunks_of_its_seed(pack, first, last):
  chunks = list(compiled_pack.feed(pack.padded_members, first, last))
  assert len(chunks) == last - first
  for number, (rows, weights) in zip(range(first, last), chunks, strict=True):
    wanted = [batch_schedule.BatchSchedule(12, 2, 1, seed).chunks(number // 3)[number % 3] for seed in (5, 6, 5, 5)]
    np.testing.assert_array_equal(rows, np.stack([member_rows for member_rows, _ in wanted]))
    np.testing.assert_array_equal(weights, np.stack([member_weights for _, member_weights in wanted]))


def test_checkpoint_notes_hold_the_recorders_and_the_way_once_it_is_measured(pack, monkeypatch):
  monkeypatch.setattr(compiled_pack, "to_save", lambda state, count: dataclasses.replace(state, params=(count,)))
  recorders = [recorder_of(pack, index, 4, [{"loss": index}]) for index in range(3)]
  recorders[1].diverged = 2
  state, error, notes = trainer._checkpoint(pack, recorders, at(4), ())
  assert (int(state.step), state.params, error) == (4, (3,), np.inf)
  assert notes == {
    "courses": [([{"loss": 0}], None), ([{"loss": 1}], 2), ([{"loss": 2}], None)],
    "way": "in turn",
  }
  pack.measured = False
  assert list(trainer._checkpoint(pack, recorders, at(4), ())[2]) == ["courses"]


def test_each_member_has_its_metrics_and_the_baselines_of_its_latent_size(pack, monkeypatch):
  monkeypatch.setattr(compiled_pack, "member_values", lambda member, values: dict(values))
  metrics = lambda evaluators, losses, values, weights, dataset: {
    "loss": losses.item(),
    "error": values["error"].item(),
  }.items()
  monkeypatch.setattr(trainer.evaluators, "metrics", metrics)
  pack.baselines = {latent: types.SimpleNamespace(result=lambda latent=latent: {"pca": latent}) for latent in (2, 4)}
  numbers = np.arange(4.0)[:, None]
  recorders = [recorder_of(pack, index) for index in range(3)]
  assert [
    recorder.metrics({"test": (numbers, {"error": 10 * numbers})}) | recorder.baselines() for recorder in recorders
  ] == [
    {"loss": 0.0, "error": 0.0, "pca": 4},
    {"loss": 1.0, "error": 10.0, "pca": 2},
    {"loss": 2.0, "error": 20.0, "pca": 4},
  ]


def test_baselines_are_computed_once_for_each_latent_size(pack, monkeypatch):
  computed = []
  baselines = lambda evaluators, dataset, code: computed.append(code.size) or [("n", code.size)]
  monkeypatch.setattr(trainer.evaluators, "baselines", baselines)
  results = {latent: future.result() for latent, future in trainer._baselines(pack.members).items()}
  assert (results, sorted(computed)) == ({2: {"n": 2}, 4: {"n": 4}}, [2, 4])


@pytest.mark.parametrize(
  ("devices", "count", "peak", "budget", "most"),
  [
    (2, 8, 90, 50, 4),  # 10 bytes of data, 10 for each member
    (1, 8, 18, 14, 4),  # 10 bytes of data, 1 for each member
    (2, 8, 90, 90, None),
    (2, 8, 90, 89.9, 6),
    (3, 9, 100, 60, 3),
    (8, 16, 170, 169, 8),
    (2, 4, 50, 11, 2),
    (2, 2, 30, 29, "refused"),
  ],
)
def test_a_pack_over_budget_is_cut_to_a_multiple_of_the_devices(pack, monkeypatch, devices, count, peak, budget, most):
  built = CompiledStage(*[lambda *_: None] * 3, compile_seconds=0.0, peak_bytes=peak)
  monkeypatch.setattr(compiled_pack, "build", lambda *_: built)
  vars(pack.device_data)["batch_sharding"] = distributed.sharded(mesh_of(devices), axis=0)
  pack.budget, pack.padded_members = budget, pack.members[:1] * count
  if most is None:
    assert packs.build(pack, 0, at(0)).peak_bytes == pack.peak_bytes == peak
  elif most == "refused":
    with pytest.raises(errors.UserError, match="--budget_gib: one member needs"):
      packs.build(pack, 0, at(0))
  else:
    with pytest.raises(packs.TooLarge) as refused:
      packs.build(pack, 0, at(0))
    assert refused.value.args == (most,)


def test_train_shrinks_the_packs_until_they_fit(monkeypatch, tmp_path):
  tried, lines, clock = [], [], iter(range(0, 1000, 6))

  def train_pack(pack, workdir, mesh, options, budget, **_):
    tried.append((len(pack), budget))
    if len(pack) > 2:
      raise packs.TooLarge(2)
    return dict.fromkeys(member.name for member in pack), "in turn", 2**30

  monkeypatch.setattr(trainer, "_train_pack", train_pack)
  monkeypatch.setattr(trainer, "_max_members", lambda members, mesh, budget: 4)
  monkeypatch.setattr(trainer.time, "monotonic", lambda: next(clock))
  members = [stub_member(name, 2) for name in "abcde"]
  options = trainer.SweepOptions(budget_gib=2.0, until=1)
  results = list(trainer.train(members, tmp_path, distributed.mesh(), options, lambda: "", lines.append))
  assert tried == [(size, 2.0 * 2**30) for size in (4, 2, 2, 1)]
  assert [list(result) for result in results] == [["a", "b"], ["c", "d"], ["e"]]
  assert [next(iter(result.values())).seconds for result in results] == [3.0, 3.0, 6.0]
  assert lines == ["training 2 of 5 members at a time, which needs 1 GiB per device"]


@pytest.mark.parametrize(
  ("of_members", "of_pack", "way"),
  [
    ((None, None), None, "start"),
    (((12, {}), (12, {})), None, "join"),
    (((12, {}), None), None, "start"),
    (((12, {}), (24, {})), None, "start"),
    (((12, {}, 24), (24, {})), None, "start"),  # the newest checkpoint of one member, of step 24, is damaged
    (((12, {"pending": [1]}), (12, {})), None, "start"),
    (((12, {}), (12, {})), (18, {"courses": "kept"}), "from_saved"),
  ],
)
def test_a_pack_continues_from_its_checkpoint_or_from_members_at_the_same_step(
  monkeypatch, tmp_path, of_members, of_pack, way
):
  members = [stub_member(name, 2) for name in "ab"]
  saved = {str(tmp_path / name / "checkpoints"): checkpoint for name, checkpoint in zip("ab", of_members, strict=True)}
  saved["pack"] = of_pack
  states = {name: at(number) for number, name in enumerate(("start", "to_save", "join", "from_saved", "abstract"))}
  restored = lambda checkpoint: checkpoint and (at(checkpoint[0]), checkpoint[1])
  steps_of = lambda checkpoint: [number for number in checkpoint or () if isinstance(number, int)]
  monkeypatch.setattr(checkpoints, "open_folder", lambda path, *_: _Folder(path))
  monkeypatch.setattr(checkpoints, "newest_step", lambda path: max(steps_of(saved[str(path)]), default=None))
  monkeypatch.setattr(checkpoints, "restore", lambda opened, *_: restored(saved[opened.path]))
  for name in ("start", "to_save", "join", "from_saved"):
    monkeypatch.setattr(compiled_pack, name, lambda *_, name=name: states[name])
  monkeypatch.setattr(compiled_pack, "abstract_member_state", lambda _: states["abstract"])
  state, notes = trainer._restore(_Folder("pack"), members, members, stub(DeviceData), tmp_path, print)
  assert state is states[way]
  assert notes == ({"courses": "kept"} if of_pack else {"courses": [([], None)] * 2})


class _Folder(checkpoints.CheckpointFolder):
  """An open folder of checkpoints that only knows its path."""

  def __init__(self, path):
    self.path = str(path)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass
