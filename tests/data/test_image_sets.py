import json

import numpy as np
import pytest
from conftest import config_of
from PIL import Image, ImageOps

from ae_jax import config as configs
from ae_jax import data, errors
from ae_jax.data import decoding, image_sets

RNG = np.random.default_rng(0)
SIZES = ((30, 40), (32, 32), (40, 30))  # (height, width)


def load(path, value_range="unit", **options):
  return data.load("folder", str(path), value_range, **options)


def all_of(dataset):
  return np.concatenate([dataset.train[:], dataset.test])


def photo(height, width, bands=3):
  """Returns a smooth image, so that every resampling method gives nearly the same pixels."""
  rows, columns, phase = np.linspace(0, 3, height), np.linspace(0, 2, width), np.arange(bands)
  waves = np.sin(rows[:, None, None] + phase) * np.cos(columns[None, :, None] - phase)
  return np.round(127.5 + 127 * waves).astype(np.uint8).squeeze()


@pytest.fixture
def mixed(tmp_path):
  """12 images of three sizes; every fourth is grey."""
  for number in range(12):
    Image.fromarray(photo(*SIZES[number % 3], 3 if number % 4 else 1)).save(tmp_path / f"{number:02}.png")
  return tmp_path


def test_mixed_folder_is_refused_with_counts_and_flags_that_work(mixed):
  with pytest.raises(errors.UserError) as refusal:
    load(mixed)
  message = str(refusal.value)
  assert "height x width 30 x 40 (4 images), 32 x 32 (4 images), 40 x 30 (4 images)" in message
  assert "modes RGB (9 images), L (3 images)" in message
  assert "Add --config.data.size=64,64 --config.data.fit=crop --config.data.channels=3 to" in message
  assert "the aspect ratios (width / height) go from 0.75 to 1.33" in message
  assert load(mixed, size=(64, 64), fit="crop", channels=3).shape == (64, 64, 3)


@pytest.mark.parametrize(
  ("sizes", "options"),
  [
    ([(30, 40), (40, 30)], {"size": (64, 64), "fit": "crop"}),
    ([(30, 40), (60, 80), (31, 40)], {"size": (64, 64)}),  # aspect ratios that differ by 3 %
    ([(30, 40), (27, 40)], {"size": (64, 64), "fit": "crop"}),
    ([(30, 40), (30, 40)], {}),
  ],
)
def test_images_are_cropped_only_if_their_aspect_ratios_differ(sizes, options):
  headers = [decoding.Header(height, width, "L", "") for height, width in sizes]
  assert image_sets.conversion(headers) == options
  assert bool(image_sets.on_fit(headers)) == ("fit" in options)


def test_counts_are_in_descending_order_and_a_single_image_is_named(mixed):
  Image.fromarray(photo(8, 8)).save(mixed / "odd.png")
  with pytest.raises(errors.UserError, match=r"8 x 8 \(1 image: odd\.png\); modes"):
    load(mixed)
  with pytest.raises(errors.UserError, match=r"Add --config\.data\.channels=3 to"):
    load(mixed, size=(8, 8))


@pytest.mark.parametrize("fit", image_sets.FITS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_streamed_images_equal_images_in_memory(mixed, fit, channels):
  options = {"size": (16, 20), "fit": fit, "channels": channels}
  held, streamed = (load(mixed, placement=placement, **options) for placement in ("memory", "stream"))
  np.testing.assert_array_equal(all_of(held), all_of(streamed))
  assert held.shape == (16, 20, channels)
  assert held.fingerprint() == streamed.fingerprint()
  assert held.remarks == streamed.remarks
  assert any(f"resized (fit={fit}) to 16 x 20 from" in remark for remark in held.remarks)


def decoded(image, tmp_path, shape, name="x.png", dtype=np.uint8, **options):
  image.save(tmp_path / name)
  return decoding.decode(tmp_path / name, name, shape, decoding.Preparation(**options), dtype)


def test_an_image_of_the_wanted_size_is_unchanged(tmp_path):
  pixels = RNG.integers(0, 256, (20, 30, 3), np.uint8)
  for fit in image_sets.FITS:
    np.testing.assert_array_equal(
      decoded(Image.fromarray(pixels), tmp_path, (20, 30, 3), size=(20, 30), fit=fit), pixels
    )


def test_crop_keeps_the_centre_and_pad_keeps_everything(tmp_path):
  image = Image.fromarray(np.repeat(np.repeat(RNG.integers(1, 256, (8, 16), np.uint8), 4, 0), 4, 1))  # 32 x 64
  crop = decoded(image, tmp_path, (32, 32, 1), size=(32, 32), fit="crop")
  np.testing.assert_array_equal(crop[..., 0], np.asarray(image)[:, 16:48])
  pad = decoded(image, tmp_path, (64, 64, 1), size=(64, 64), fit="pad")
  np.testing.assert_array_equal(pad[16:48, :, 0], np.asarray(image))
  assert not pad[:16].any()
  assert not pad[48:].any()


def test_resizing_is_antialiased(tmp_path):
  stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
  small = decoded(Image.fromarray(stripes), tmp_path, (8, 8, 1), size=(8, 8))
  assert np.abs(small.astype(int) - 127).max() < 12


def test_large_jpeg_is_resized_like_the_whole_image(tmp_path):
  small = Image.fromarray(photo(40, 50))
  found = decoded(small.resize((5000, 4000)), tmp_path, (40, 50, 3), "x.jpg", size=(40, 50))
  assert np.abs(found - np.asarray(small).astype(int)).max() <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
  image, exif = Image.fromarray(photo(16, 24)), Image.Exif()
  exif[0x0112] = orientation
  image.save(tmp_path / f"x.{suffix}", exif=exif)
  with Image.open(tmp_path / f"x.{suffix}") as opened:
    wanted = np.asarray(ImageOps.exif_transpose(opened))
  preparation = decoding.Preparation()
  header = decoding.header(tmp_path / f"x.{suffix}", "x", preparation)
  assert decoding.shape(header, preparation) == wanted.shape
  np.testing.assert_array_equal(decoding.decode(tmp_path / f"x.{suffix}", "x", wanted.shape, preparation), wanted)
  small = decoding.Preparation(size=(6, 4))
  smaller = decoding.decode(tmp_path / f"x.{suffix}", "x", (6, 4, 3), small).astype(int)
  assert np.abs(smaller - np.asarray(Image.fromarray(wanted).resize((4, 6), Image.Resampling.BILINEAR))).max() <= 12


def test_images_are_converted_by_pillow(tmp_path):
  colour = Image.fromarray(photo(9, 7, 4), "RGBA")
  sources = {
    "1": colour.convert("1"),
    "L": colour.convert("L"),
    "LA": colour.convert("LA"),
    "P": colour.convert("RGB").quantize(16),
    "RGB": colour.convert("RGB"),
    "RGBA": colour,
    "CMYK": colour.convert("RGB").convert("CMYK"),
  }
  for mode, image in sources.items():
    name = "x.tif" if mode == "CMYK" else "x.png"
    for channels, target in {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}.items():
      wanted = np.asarray((image.convert("RGB") if mode in ("P", "CMYK") else image).convert(target))
      found = decoded(image, tmp_path, (9, 7, channels), name, channels=channels)
      np.testing.assert_array_equal(found, wanted.reshape(9, 7, channels), err_msg=f"{mode} {target}")
    as_stored = {"1": 1, "L": 1, "LA": 2, "RGBA": 4}.get(mode, 3)
    assert decoded(image, tmp_path, (9, 7, as_stored), name).shape == (9, 7, as_stored)


def test_transparency_of_palette_images_is_read_only_with_an_alpha_channel(tmp_path):
  for number in range(5):
    image = Image.fromarray(photo(6, 6)).quantize(8)
    image.save(tmp_path / f"{number}.png", transparency=bytes([0, 128] + [255] * 6))
  opaque, alpha = load(tmp_path), load(tmp_path, channels=4)
  assert (opaque.shape, alpha.shape) == ((6, 6, 3), (6, 6, 4))
  np.testing.assert_array_equal(opaque.train, alpha.train[..., :3])
  assert {0, 128, 255} >= {*np.unique(alpha.train[..., 3])} != {255}
  assert any("5 images: transparency is not read; set config.data.channels=4" in remark for remark in opaque.remarks)
  assert not any("transparency is not read" in remark for remark in alpha.remarks)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
@pytest.mark.parametrize("value_range", ["unit", "symmetric"])
def test_16_bit_images_are_scaled_to_the_range(tmp_path, suffix, value_range):
  values = RNG.integers(0, 65536, (9, 8, 6), np.uint16)
  values[0, 0, :2] = 0, 65535
  for number, pixels in enumerate(values):
    Image.fromarray(pixels).save(tmp_path / f"{number}.{suffix}")
  for placement in ("memory", "stream"):
    dataset = load(tmp_path, value_range, placement=placement)
    assert dataset.train.dtype == np.float32
    wanted = np.sort(values.ravel()) / 65535
    wanted = wanted if value_range == "unit" else 2 * wanted - 1
    np.testing.assert_allclose(np.sort(all_of(dataset).ravel()), wanted, atol=2e-7)
    assert any("9 images with 16 bits: the values are divided by 65,535" in remark for remark in dataset.remarks)
    assert any("the values of the training examples are from" in remark for remark in dataset.remarks)
  resized = load(tmp_path, value_range, size=(5, 5), channels=3)
  assert resized.shape == (5, 5, 3)
  np.testing.assert_array_equal(resized.train[..., 0], resized.train[..., 2])


def test_8_and_16_bit_images_are_mixed_only_if_channels_are_given(tmp_path):
  for number in range(6):
    pixels = photo(6, 6, 1)
    Image.fromarray(pixels if number % 2 else pixels.astype(np.uint16) * 257).save(tmp_path / f"{number}.png")
  with pytest.raises(
    errors.UserError, match=r"modes I;16 \(3 images\), L \(3 images\)\. Add --config\.data\.channels=1 to"
  ):
    load(tmp_path)
  np.testing.assert_allclose(
    all_of(load(tmp_path, channels=1))[..., 0], np.tile(photo(6, 6, 1) / 255, (6, 1, 1)), atol=1e-6
  )


def test_float_images_keep_their_values_which_must_be_in_the_range(tmp_path):
  values = RNG.normal(size=(9, 4, 6)).astype(np.float32)
  for number, pixels in enumerate(values):
    Image.fromarray(pixels).save(tmp_path / f"{number}.tif")
  dataset = load(tmp_path, "real")
  np.testing.assert_array_equal(np.sort(all_of(dataset).ravel()), np.sort(values.ravel()))
  assert any("floating-point grey images: the values are not scaled" in remark for remark in dataset.remarks)
  assert any(f"from {dataset.train.min():.4g} to {dataset.train.max():.4g}" in remark for remark in dataset.remarks)
  with pytest.raises(errors.UserError, match="outside the range 'unit'"):
    load(tmp_path, "unit")
  Image.fromarray(photo(4, 6, 1)).save(tmp_path / "8bit.tif")
  with pytest.raises(errors.UserError, match=r"different pixel types: F \(9 images\), L \(1 image: 8bit\.tif\)"):
    load(tmp_path, "real", channels=1)


@pytest.fixture
def broken(tmp_path):
  """20 images, of which one is cut, one is empty and one is a text."""
  for number in range(20):
    Image.fromarray(RNG.integers(0, 256, (12, 12), np.uint8)).save(tmp_path / f"{number:02}.png")
  cut = tmp_path / "07.png"
  cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
  (tmp_path / "08.png").write_bytes(b"")
  (tmp_path / "09.png").write_text("no image")
  return tmp_path


@pytest.mark.parametrize("placement", ["memory", "stream"])
def test_all_damaged_files_are_named_at_once_or_left_out(broken, placement):
  with pytest.raises(errors.UserError) as refusal:
    load(broken, placement=placement)
  message = str(refusal.value)
  assert "3 of 20 images cannot be read: " in message
  assert all(f"{broken}/{number}.png: not a readable image" in message for number in ("07", "08", "09"))
  assert "--config.data.on_bad=skip" in message
  dataset = load(broken, placement=placement, on_bad="skip")
  assert len(dataset.train) + len(dataset.test) == 17
  (remark,) = dataset.remarks
  assert "left out 3 of 20 images, which cannot be read" in remark
  assert "07.png" in remark
  for number in ("07", "08", "09"):
    (broken / f"{number}.png").unlink()
  np.testing.assert_array_equal(all_of(load(broken, placement=placement)), all_of(dataset))


def test_files_with_damaged_pixels_are_all_named_when_they_are_decoded(broken):
  for number in ("08", "09"):
    (broken / f"{number}.png").write_bytes((broken / "07.png").read_bytes())
  with pytest.raises(errors.UserError, match=r"3 of 20 images cannot be read: .*07\.png.*08\.png.*09\.png"):
    load(broken)


def test_at_most_ten_damaged_files_are_listed(tmp_path):
  for number in range(30):
    (tmp_path / f"{number:02}.png").touch()
  with pytest.raises(
    errors.UserError, match=r"30 of 30 images cannot be read: .*00\.png.*09\.png.*; and 20 more\. Rep"
  ):
    load(tmp_path)
  with pytest.raises(errors.UserError, match="found 0 images"):
    load(tmp_path, on_bad="skip")


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"size": (0, 4)}, r"config\.data\.size=\(0, 4\): must be \(height, width\)"),
    ({"size": (4, 4, 4)}, r"config\.data\.size=\(4, 4, 4\): must be"),
    ({"size": (10**5, 10**5)}, r"config\.data\.size=\(100000, 100000\): must be"),
    ({"size": (4.0,)}, r"config\.data\.size=\(4\.0,\): must be"),
    ({"size": (4, 4), "fit": "cropp"}, r"config\.data\.fit='cropp' is unknown; did you mean 'crop'"),
    ({"fit": "crop"}, r"config\.data\.fit='crop': must be 'stretch' if config\.data\.size is \(\)"),
    ({"channels": 12}, r"config\.data\.channels=12: must be 0 \(as stored\), 1 .*\.npz"),
    ({"on_bad": "ignore"}, r"config\.data\.on_bad='ignore' is unknown"),
  ],
)
def test_invalid_options_are_refused(tmp_path, options, message):
  with pytest.raises(errors.UserError, match=message):
    load(tmp_path / "absent", **options)


@pytest.mark.parametrize("options", [{"size": (8, 8)}, {"channels": 3}, {"on_bad": "skip"}])
def test_options_of_image_files_are_refused_for_other_sources(options):
  key = next(iter(options))
  with pytest.raises(errors.UserError, match=rf"config\.data\.{key}=.* is used only for config\.data\.name=folder"):
    data.load("digits", "", "unit", **options)


def test_one_number_is_the_side_of_a_square(mixed):
  assert load(mixed, size=(9,), channels=1).shape == (9, 9, 1)


def test_configs_of_earlier_versions_read_images_as_before():
  old = json.loads(json.dumps(configs.as_json(config_of("cnn", "folder"))))
  for key in ("size", "fit", "channels", "on_bad", "exif_orientation"):
    del old["data"][key]
  restored = configs.from_json(old).data
  assert (restored.size, restored.fit, restored.channels, restored.on_bad) == ((), "stretch", 0, "error")
  assert restored.exif_orientation is False
  assert configs.differences(old, configs.as_json(config_of("cnn", "folder"))) == []


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_dropped_alpha_is_not_blended_and_is_named(tmp_path, channels):
  pixels = np.full((5, 6, 4), 200, np.uint8)
  pixels[..., 3] = 0
  for number in range(4):
    Image.fromarray(pixels if number else pixels[..., :3]).save(tmp_path / f"{number}.png")
  dataset = load(tmp_path, channels=channels)
  assert (all_of(dataset)[..., :3] == 200).all()
  assert any("alpha is dropped without blending" in remark for remark in dataset.remarks) == (channels < 4)
