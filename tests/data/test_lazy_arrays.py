import numpy as np
import pytest

from ae_jax.data import lazy_arrays

TABLE = np.random.default_rng(0).normal(size=(700, 3, 2))
MASK = np.random.default_rng(1).uniform(size=700) < 0.3


def lazy(log=None):
  """Returns TABLE as a LazyArray; the indices of the rows that are read are appended to `log`."""

  def read(indices):
    if log is not None:
      log.extend(indices.tolist())
    return TABLE[indices]

  return lazy_arrays.LazyArray(TABLE.shape, TABLE.dtype, read)


@pytest.mark.parametrize(
  "index", [slice(None), slice(3, 9), slice(-5, None), slice(0, 0), [5, 1, 5], np.arange(699, 0, -7)]
)
def test_indexing_agrees_with_numpy(index):
  np.testing.assert_array_equal(lazy()[index], TABLE[index])
  assert len(lazy()) == 700


@pytest.mark.parametrize("read_all", [lazy_arrays.load_all, lazy_arrays.read_all])
def test_take_and_mapped_agree_with_numpy(read_all):
  def doubled(values):
    return (2 * values[..., None]).astype(np.float32)

  for make in (
    lambda table: lazy_arrays.take(table, MASK),
    lambda table: lazy_arrays.map_rows(table, (3, 2, 1), np.float32, doubled),
    lambda table: lazy_arrays.map_rows(lazy_arrays.take(table, MASK), (3, 2, 1), np.float32, doubled),
  ):
    result, expected = make(lazy()), make(TABLE)
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    assert lazy_arrays.total_bytes(result) == expected.nbytes
    np.testing.assert_array_equal(read_all(result), expected)
    np.testing.assert_array_equal(read_all(expected), expected)


def test_only_the_requested_rows_are_read():
  log = []
  part = lazy_arrays.map_rows(lazy_arrays.take(lazy(log), MASK), (3, 2), np.float64, np.negative)
  assert log == []
  part[[2, 0]]
  assert log == np.flatnonzero(MASK)[[2, 0]].tolist()


def test_loaded_uses_load_where_it_is_set():
  fast = lazy_arrays.LazyArray(
    TABLE.shape, TABLE.dtype, read=lambda _: pytest.fail("reads row by row"), load=lambda: TABLE
  )
  np.testing.assert_array_equal(lazy_arrays.load_all(lazy_arrays.take(fast, MASK)), TABLE[MASK])


@pytest.mark.parametrize("size", [1, 100, 2**26])
def test_parts_concatenate_to_the_selected_rows(size, monkeypatch):
  monkeypatch.setattr(lazy_arrays, "PART_BYTES", size * 48)
  numbers = np.flatnonzero(MASK)
  result = list(lazy_arrays.parts(lazy(), numbers))
  assert max(map(len, result)) <= size
  np.testing.assert_array_equal(np.concatenate(result), TABLE[numbers])
  for array in (TABLE, lazy()):
    result = list(lazy_arrays.parts(array))
    assert max(map(len, result)) <= size
    np.testing.assert_array_equal(np.concatenate(result), TABLE)


def test_sample_is_limited_reproducible_and_spread_over_the_array(monkeypatch):
  np.testing.assert_array_equal(lazy_arrays.sample(lazy()), TABLE)
  for name, limit in (("SAMPLE_ROWS", 50), ("SAMPLE_BYTES", 50 * 48)):
    monkeypatch.undo()
    monkeypatch.setattr(lazy_arrays, name, limit)
    result = lazy_arrays.sample(lazy())
    assert result.shape == (50, 3, 2)
    assert len(np.unique(result[:, 0, 0])) == 50
    assert set(result[:, 0, 0]) <= set(TABLE[:, 0, 0])
    np.testing.assert_array_equal(lazy_arrays.sample(lazy()), result)
    assert lazy_arrays.sample(TABLE) is TABLE
    numbers = [np.flatnonzero(TABLE[:, 0, 0] == value)[0] for value in result[:, 0, 0]]
    assert numbers == sorted(numbers)  # in the order of the file
    assert abs(np.mean(numbers) - 349.5) < 4 * 700 / np.sqrt(
      12 * 50
    )  # spread over all rows: files may be sorted by class


@pytest.mark.parametrize("count", [1, 2, 500, 10**9])
def test_probes_contain_both_ends(count):
  result = lazy_arrays.probe_indices(count)
  assert {0, count - 1} <= set(result.tolist())
  assert result.max() < count
  assert len(result) <= min(count, lazy_arrays.PROBES + 2)


def test_all_rows_in_memory_and_the_probes_of_a_lazy_array_are_examined():
  values = np.arange(3_000)
  lazy = lazy_arrays.LazyArray(values.shape, values.dtype, lambda indices: values[indices])
  assert lazy_arrays.examined(values) is values
  np.testing.assert_array_equal(lazy_arrays.examined(lazy), lazy_arrays.probe_indices(3_000))


@pytest.mark.parametrize("count", [0, 7, 1000])
def test_blocks_are_mapped_in_order_and_cover_all_rows(count):
  rows = [list(range(count))[block] for block in lazy_arrays.map_blocks(lambda block: block, count, 10)]
  assert [row for block in rows for row in block] == list(range(count))
  assert all(len(block) == 10 for block in rows[:-1])


def test_rows_of_an_ndarray_are_taken_when_they_are_read():
  array = TABLE.copy()
  taken = lazy_arrays.take(lazy_arrays.of_memory(array), MASK)
  array += 1
  np.testing.assert_array_equal(lazy_arrays.read_all(taken), TABLE[MASK] + 1)
