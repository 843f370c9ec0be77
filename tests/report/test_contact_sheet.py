import numpy as np
import pytest
from PIL import Image

from ae_jax import data
from ae_jax.report import contact_sheet


@pytest.mark.parametrize("shape", [(9, 7, 3), (200, 150, 2), (13,), (20, 2), (4, 5, 6, 1)])
@pytest.mark.parametrize("labels", [None, np.arange(12) % 2, np.linspace(0.5, 1, 12)])
def test_the_picture_shows_examples_of_any_kind(tmp_path, shape, labels):
  arrays = {"x_train": np.random.default_rng(0).random((12, *shape))} | ({} if labels is None else {"y_train": labels})
  np.savez(tmp_path / "a.npz", **arrays)
  kind = "series" if len(shape) == 2 else "auto"
  dataset = data.load("npz", str(tmp_path / "a.npz"), "unit", kind=kind)
  contact_sheet.draw(tmp_path / "out.png", dataset, "examples")
  with Image.open(tmp_path / "out.png") as image:
    assert np.ptp(np.asarray(image)[..., :3]) > 100
