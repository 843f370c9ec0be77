import pytest
from jax.sharding import PartitionSpec

from ae_jax import parallel


@pytest.mark.parametrize(
  ("rows", "blocks"), [(1, 1), (64, 1), (65, 1), (100, 2), (128, 2), (250, 5), (251, 1), (256, 4)]
)
def test_on_cpu_a_batch_is_cut_to_what_the_cache_holds(rows, blocks):
  assert parallel.blocks(rows, in_cache=64) == blocks
  assert rows % blocks == 0
  assert parallel.blocks(rows, in_cache=None) == 1


def test_the_mesh_is_over_all_devices():
  assert parallel.mesh().axis_names == ("data",)
  assert parallel.split(parallel.mesh(), axis=1).spec == PartitionSpec(None, "data")
  assert parallel.replicated(parallel.mesh()).is_fully_replicated
