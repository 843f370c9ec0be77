import struct
import zipfile

import numpy as np
import pytest

from ae_jax import data, errors
from ae_jax.data import lazy_arrays


def load(name, path="", range="unit", **options):
  return data.load(name, str(path), range, **options)


BYTES = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), np.uint8)


def saved(folder, **arrays):
  np.savez(folder / "data.npz", **arrays)
  return folder / "data.npz"


def test_npz_loads_the_saved_arrays(tmp_path):
  labels = np.arange(20)
  path = saved(tmp_path, x_train=BYTES, x_test=BYTES[:3], y_train=labels, y_test=labels[:3])
  dataset = load("npz", path)
  np.testing.assert_array_equal(dataset.train, BYTES)
  np.testing.assert_array_equal(dataset.test, BYTES[:3])
  np.testing.assert_array_equal(dataset.train_labels, labels)


def test_npz_without_test_set_holds_out_a_fifth(tmp_path):
  dataset = load("npz", saved(tmp_path, x_train=BYTES, y_train=np.arange(20)))
  assert (len(dataset.train), len(dataset.test)) == (16, 4)
  assert sorted([*dataset.train_labels, *dataset.test_labels]) == list(range(20))
  np.testing.assert_array_equal(BYTES[dataset.test_labels], dataset.test)


def test_npz_accepts_float64_grey_images_without_channel_axis(tmp_path):
  grey = np.random.default_rng(0).uniform(-1, 1, (10, 4, 4))
  dataset = load("npz", saved(tmp_path, x_train=grey), "symmetric")
  assert dataset.train.dtype == np.float32
  assert dataset.shape == (4, 4, 1)
  assert dataset.peak == 2


@pytest.mark.parametrize(
  ("arrays", "message"),
  [
    (
      {"images": BYTES},
      r"no array `x_train`; it contains images \(uint8 \[20, 6, 5, 3\]\)\. Add --config\.data\.x=images",
    ),
    ({}, "no array `x_train`"),
    ({"x_train": BYTES[0, 0, 0]}, "at least 3 examples|have 1 axes"),
    ({"x_train": BYTES[:, None, None]}, "have 6 axes"),
    ({"x_train": np.float64(3)}, "at least 3 examples"),
    ({"x_train": BYTES[:2]}, "at least 3 examples"),
    ({"x_train": BYTES[:1], "x_test": BYTES}, "only one training example; at least 2"),
    ({"x_train": BYTES[:, :0]}, "it is empty"),
    ({"x_train": BYTES.astype(complex)}, "dtype complex128"),
    ({"x_train": BYTES / 2}, "outside the range 'unit'"),
    ({"x_train": np.where(BYTES == 3, np.nan, 0.5)}, "NaN"),
    ({"x_train": np.full((9, 3, 3), 1e300)}, "infinite"),
    ({"x_train": BYTES, "x_test": BYTES[:, :4]}, "the training examples are uint8"),
    ({"x_train": BYTES, "x_test": BYTES / 255}, "the training examples are uint8"),
    ({"x_train": BYTES.transpose(0, 3, 1, 2)}, r"looks like \[N, C, H, W\].*layout=nchw.*moveaxis\(x_train, 1, -1\)"),
    ({"x_train": BYTES, "y_train": np.arange(19)}, "one label per example"),
    ({"x_train": BYTES, "y_test": np.arange(20)}, "one label per example"),
    ({"x_train": np.array([None, "a"])}, "never unpickled"),
    ({"x_train": np.array(["a", "b", "c"])}, "axes|dtype"),
  ],
)
def test_npz_with_wrong_arrays_is_refused(tmp_path, arrays, message):
  with pytest.raises(errors.UserError, match=message) as refusal:
    load("npz", saved(tmp_path, **arrays))
  assert "data.npz" in str(refusal.value)
  assert "\n" not in str(refusal.value)


def test_missing_and_damaged_npz_files_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match=r"config\.data\.path is empty"):
    load("npz")
  with pytest.raises(errors.UserError, match="file not found"):
    load("npz", tmp_path / "absent.npz")
  with pytest.raises(errors.UserError, match="not a readable"):
    load("npz", tmp_path)
  whole = saved(tmp_path, x_train=BYTES).read_bytes()
  generator = np.random.default_rng(0)
  for case in range(60):
    damaged = bytearray(whole[: generator.integers(len(whole))] if case % 2 else whole)
    for place in generator.integers(len(damaged), size=20) if damaged else ():
      damaged[place] ^= generator.integers(1, 256)
    (tmp_path / "damaged.npz").write_bytes(damaged)
    with pytest.raises(errors.UserError):
      load("npz", tmp_path / "damaged.npz")
  np.save(tmp_path / "bare.npy", BYTES)
  with pytest.raises(errors.UserError, match="a single array"):
    load("npz", tmp_path / "bare.npy")


def unpacked(folder, **arrays):
  for name, values in arrays.items():
    np.save(folder / f"{name}.npy", values)
  return folder


FLOATS = np.random.default_rng(1).uniform(-1, 1, (40, 4, 3))
LABELS = np.arange(40) % 3


@pytest.mark.parametrize(("kind", "write"), [("npz", saved), ("npy", unpacked)])
@pytest.mark.parametrize("images", [FLOATS, FLOATS.astype(np.float16), FLOATS.astype(">f4"), BYTES.repeat(2, 0)])
@pytest.mark.parametrize("own_test", [True, False])
def test_streamed_data_set_equals_the_one_in_memory(tmp_path, kind, write, images, own_test):
  arrays = {"x_test": images[:5], "y_test": LABELS[:5]} if own_test else {}
  path = write(tmp_path, x_train=images, y_train=LABELS, **arrays)
  for one_class in (-1, 2):
    held, mapped = (load(kind, path, "real", one_class=one_class, placement=p) for p in ("memory", "stream"))
    assert isinstance(held.train, np.ndarray)
    assert isinstance(mapped.train, lazy_arrays.LazyArray)
    assert (mapped.train.dtype, mapped.train.shape, mapped.shape) == (held.train.dtype, held.train.shape, held.shape)
    np.testing.assert_array_equal(mapped.train[:], held.train)
    for name in ("test", "train_labels", "test_labels", "anomalous", "train_sample"):
      np.testing.assert_array_equal(getattr(mapped, name), getattr(held, name))
    assert mapped.fingerprint() == held.fingerprint()
    assert mapped.peak == held.peak
    assert images.dtype == np.uint8 or held.peak == np.ptp(held.train)


def test_streaming_an_archive_finds_the_offsets_of_its_arrays(tmp_path):
  """Other members, comments and extra fields of the zip file lie in between."""
  with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
    archive.comment = b"c" * 99
    for name, values in {"other": np.arange(999), "x_train": BYTES, "x_test": BYTES[::2]}.items():
      info = zipfile.ZipInfo(f"{name}.npy")
      info.extra = b"\x99\x99\x04\x00abcd"
      with archive.open(info, "w", force_zip64=name == "x_train") as member:
        np.save(member, values)
  mapped = load("npz", tmp_path / "data.npz", placement="stream")
  np.testing.assert_array_equal(mapped.train[:], BYTES)
  np.testing.assert_array_equal(mapped.test, BYTES[::2])


def test_single_npy_file_is_split_like_an_archive(tmp_path):
  unpacked(tmp_path, images=BYTES)
  bare, archived = load("npy", tmp_path / "images.npy"), load("npz", saved(tmp_path, x_train=BYTES))
  assert bare.fingerprint() == archived.fingerprint()
  assert len(bare.test) == 4


@pytest.mark.parametrize(
  ("values", "message"),
  [
    (np.array([None, "a"]), "never unpickled"),
    (np.zeros(9, [("a", "f4")]), "dtype|axes"),
    (BYTES[:2], "at least 3 examples"),
  ],
)
def test_npy_with_wrong_array_is_refused(tmp_path, values, message):
  for placement in ("memory", "stream"):
    np.save(tmp_path / "x_train.npy", values, allow_pickle=True)
    with pytest.raises(errors.UserError, match=message):
      load("npy", tmp_path, placement=placement)


def test_missing_and_damaged_npy_files_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match=r"config\.data\.path is empty; set it to the \.npy file"):
    load("npy")
  with pytest.raises(errors.UserError, match="file not found"):
    load("npy", tmp_path / "absent.npy")
  with pytest.raises(errors.UserError, match="no array `x_train`; it contains nothing"):
    load("npy", tmp_path)
  unpacked(tmp_path, x_train=BYTES)
  whole = (tmp_path / "x_train.npy").read_bytes()
  for size in (0, 5, 50, len(whole) - 1):
    (tmp_path / "x_train.npy").write_bytes(whole[:size])
    for placement in ("memory", "stream"):
      with pytest.raises(errors.UserError, match="not a readable NumPy file"):
        load("npy", tmp_path, placement=placement)
  header = b"(20, 6, 5, 3), }"
  for wrong, message in [
    (b"(2000000000, 6, 5, 3), }", r"the size of x_train\.npy does not match its header"),
    (b"(-2, 6, -5, 3), }", r"its shape \(-2, 6, -5, 3\) is invalid"),
  ]:
    (tmp_path / "x_train.npy").write_bytes(whole.replace(header + b" " * (len(wrong) - len(header)), wrong))
    with pytest.raises(errors.UserError, match=f"not a readable NumPy file: {message}"):
      load("npy", tmp_path)


def test_failing_memory_map_is_reported_in_one_line(tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError(19, "No such device")  # as some file systems do

  monkeypatch.setattr(np, "memmap", refuse)
  with pytest.raises(errors.UserError, match=r"data\.npz'.*No such device"):
    load("npz", saved(tmp_path, x_train=BYTES), placement="stream")


def test_compressed_and_fortran_arrays_load_in_memory_and_refuse_to_stream(tmp_path):
  np.savez_compressed(tmp_path / "small.npz", x_train=BYTES)
  np.save(tmp_path / "x_train.npy", np.asfortranarray(BYTES))
  np.savez(tmp_path / "fortran.npz", x_train=np.asfortranarray(BYTES))
  whole = load("npz", saved(tmp_path, x_train=BYTES)).train
  for kind, path, message in [
    ("npz", tmp_path / "small.npz", r"x_train\.npy cannot be streamed because it is compressed; .* numpy\.savez"),
    ("npz", tmp_path / "fortran.npz", r"x_train\.npy cannot be streamed because it is in Fortran order"),
    ("npy", tmp_path / "x_train.npy", r"because it is in Fortran order.*config\.data\.placement=memory"),
  ]:
    np.testing.assert_array_equal(load(kind, path).train, whole)
    with pytest.raises(errors.UserError, match=message):
      load(kind, path, placement="stream")


@pytest.mark.parametrize("header", [b"(90, 6, 5, 3)", b"(10, 6, 5, 3)"])
def test_array_whose_header_states_a_wrong_size_is_refused(tmp_path, header):
  array = (unpacked(tmp_path, x=BYTES) / "x.npy").read_bytes().replace(b"(20, 6, 5, 3)", header)
  with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
    archive.writestr("x_train.npy", array)
  for placement in ("memory", "stream"):
    with pytest.raises(errors.UserError, match=r"the size of x_train\.npy does not match its header"):
      load("npz", tmp_path / "data.npz", placement=placement)


def test_small_file_that_claims_a_huge_array_is_refused(tmp_path):
  array = (unpacked(tmp_path, x=BYTES) / "x.npy").read_bytes()
  lying = array.replace(b"(20, 6, 5, 3), }       ", b"(20000000, 6, 5, 3), } ")
  with zipfile.ZipFile(tmp_path / "data.npz", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("x_train.npy", lying)
  sizes = [struct.pack("<L", len(array) + count * BYTES[0].nbytes) for count in (0, 20_000_000 - 20)]
  (tmp_path / "data.npz").write_bytes((tmp_path / "data.npz").read_bytes().replace(*sizes))
  with pytest.raises(errors.UserError, match=r"the size of x_train\.npy does not match its header"):
    load("npz", tmp_path / "data.npz")


def test_data_above_the_budget_are_streamed_without_loading_them(tmp_path, monkeypatch):
  path = unpacked(tmp_path, x_train=BYTES.repeat(200, 0), x_test=BYTES)
  assert isinstance(load("npy", path, budget_gib=1.0).train, np.ndarray)
  monkeypatch.setattr(lazy_arrays, "load_all", None)
  dataset = load("npy", path, budget_gib=2e-4)
  assert dataset.streams
  assert isinstance(dataset.train, lazy_arrays.LazyArray)
  assert "streamed (0.000335 GiB, budget 0.0002 GiB)" in dataset.placement
  with pytest.raises(errors.UserError, match=r"the test examples need .* of memory.*config\.data\.budget_gib"):
    load("npy", path, budget_gib=1e-6)


def test_one_class_that_fits_the_budget_is_loaded_into_memory(tmp_path):
  path = unpacked(tmp_path, x_train=FLOATS, y_train=LABELS, x_test=FLOATS[:5], y_test=LABELS[:5])
  dataset = load("npy", path, "symmetric", one_class=1, budget_gib=30 * 12 * 4 / 2**30)
  np.testing.assert_array_equal(dataset.train[..., 0], FLOATS[LABELS == 1].astype(np.float32))
  assert isinstance(dataset.train, np.ndarray)
  assert not dataset.streams


def test_streamed_value_outside_the_range_is_refused_when_read(tmp_path, monkeypatch):
  monkeypatch.setattr(lazy_arrays, "PROBES", 0)
  for value, message in [(np.nan, "contains NaN"), (1.5, "values from .* to 1.5, outside the range 'symmetric'")]:
    invalid = FLOATS.copy()
    invalid[17, 2, 1] = value
    path = unpacked(tmp_path, x_train=invalid, x_test=FLOATS)
    dataset = load("npy", path, "symmetric", placement="stream")
    dataset.train[18:]
    with pytest.raises(errors.UserError, match=f"'npy' .*: training example 17 .*{message}") as refusal:
      dataset.train[3:30]
    assert "\n" not in str(refusal.value)
  invalid[0, 0, 0] = np.inf
  with pytest.raises(errors.UserError, match="training example 0 contains NaN or infinite"):
    load("npy", unpacked(tmp_path, x_train=invalid), "symmetric", placement="stream")


def test_fingerprint_of_large_data_samples_rows_and_ignores_the_placement(tmp_path, monkeypatch):
  path = unpacked(tmp_path, x_train=BYTES.repeat(100, 0), x_test=BYTES)
  digested_whole = load("npy", path).fingerprint()
  assert load("npy", path, placement="stream").fingerprint() == digested_whole
  monkeypatch.setattr(data.dataset, "_DIGESTED_WHOLE", 1000)
  held, mapped = (load("npy", path, placement=placement) for placement in ("memory", "stream"))
  assert held.fingerprint() == mapped.fingerprint() != digested_whole
  before = held.fingerprint()
  held.train[-1, 0, 0, 0] += 1
  assert held.fingerprint() != before
  assert load("npy", unpacked(tmp_path, x_train=BYTES.repeat(101, 0))).fingerprint() != before


def test_held_out_set_has_at_most_10000_examples(tmp_path):
  for count, held_out in [(50_000, 10_000), (50_010, 10_000), (49_000, 9_800)]:
    dataset = load("npy", unpacked(tmp_path, x_train=np.zeros((count, 1, 1), np.uint8)))
    assert len(dataset.test) == held_out
    assert len(dataset.train) == count - held_out
