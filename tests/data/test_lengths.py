"""Series of unequal lengths: padding changes no number."""

import jax
import numpy as np
import pytest
from conftest import config_of

from ae_jax import data, errors
from ae_jax.data import lazy_arrays, lengths
from ae_jax.training import setup, steps

pytestmark = pytest.mark.quick_compile

STEPS = (23, 9, 41, 30)
RANDOM = np.random.default_rng(0)
SERIES = RANDOM.normal(size=(20, 11, 2)) + 3
LENGTHS = RANDOM.integers(4, 12, size=20)


def saved(path, padding, value):
  """Saves `SERIES` with `value` after the end of each series and `padding` more steps."""
  x = np.concatenate([SERIES, np.zeros((20, padding, 2))], 1)
  x[np.arange(11 + padding)[None] >= LENGTHS[:, None]] = value
  arrays = {"x_train": x[:16], "lengths_train": LENGTHS[:16], "x_test": x[16:], "lengths_test": LENGTHS[16:]}
  np.savez(path, **arrays)
  return str(path)


def load(path, **options):
  return data.load("npz", path, "real", kind="series", **options)


@pytest.mark.parametrize("value", [7.0, np.nan])
def test_lengths_become_masks_and_padding_never_matters(tmp_path, value):
  memory, stream = (
    load(saved(tmp_path / "x.npz", 3, value), scale="standard", placement=place) for place in ("memory", "stream")
  )
  other = load(saved(tmp_path / "y.npz", 0, 1.0), scale="standard")
  mask = memory.columns["train"]["mask"]
  np.testing.assert_array_equal(mask.sum(1), np.repeat(LENGTHS[:16, None], 2, 1))
  np.testing.assert_array_equal(memory.train[:, :11], other.train)
  np.testing.assert_array_equal(memory.standardisation.mean, other.standardisation.mean)
  assert (memory.train[~mask] == 0).all()
  np.testing.assert_array_equal(stream.train[:], memory.train)
  np.testing.assert_array_equal(stream.columns["train"]["mask"][:], mask)
  assert any("series of 4 to 11 steps, padded to 14" in remark for remark in memory.remarks)


def loss_and_gradient(path):
  """Returns the loss and the gradient of a recurrent model; its parameters are the same for every length."""
  config = config_of("sequence", "npz")
  config.data.update(path=path, kind="series")
  config.model.update(latent=3, cell="recurrent", widths=(4, 5), strides=(1, 2), attention_width=4)
  experiment = setup.build_experiment(config, 1)
  model, objective = experiment.model, experiment.stages[-1].objective
  assert model.columns == ("mask",)
  columns, weights = data.flat_columns(experiment.dataset, "train", model), np.ones(16, np.float32)
  batch = steps.read_batch(np.arange(16), weights, examples=columns, model=model, value_range="real")
  generator, keys = np.random.default_rng(1), jax.random.split(jax.random.key(0), 16)
  draw = lambda leaf: np.float32(0.3 * generator.normal(size=leaf.shape))
  variables = jax.tree.map(draw, model.abstract_variables())
  return jax.jit(jax.value_and_grad(lambda variables: objective(model, variables, batch, keys)[0]))(variables)


@pytest.mark.runs_optax
def test_padding_of_series_changes_no_loss_and_no_gradient(tmp_path):
  results = [loss_and_gradient(saved(tmp_path / "x.npz", *padding)) for padding in ((0, 0.0), (6, np.nan))]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *results)


@pytest.mark.parametrize("lazy", [False, True])
def test_masks_are_true_until_the_end_of_each_series(lazy):
  x = np.ones((4, 41, 2))
  rows = lazy_arrays.LazyArray(x.shape, x.dtype, lambda indices: x[indices]) if lazy else x
  arrays = {"train": rows, "train_lengths": np.array(STEPS)}
  (remark,) = lengths.to_masks(arrays, "data")
  assert remark == "data: series of 9 to 41 steps, padded to 41; padding does not count in the loss"
  mask = arrays["train_mask"][:]
  assert mask.shape == (4, 41, 2)
  np.testing.assert_array_equal(mask.sum(1), np.array(STEPS)[:, None] * [1, 1])
  assert (np.diff(mask.astype(int), axis=1) <= 0).all()


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"train_lengths": np.array([3, 6, 1])}, r"`lengths_train` is 6 in row 1; lengths are from 1 to 5"),
    ({"train_lengths": np.array([0, 5, 1])}, r"`lengths_train` is 0 in row 0"),
    ({"train_lengths": np.array([5, 5])}, r"`lengths_train` has dtype int64 and shape \[2\]; expected 3 integers"),
    ({"train_lengths": np.ones(3)}, r"`lengths_train` has dtype float64 and shape \[3\]; expected 3 integers"),
    ({"train": np.ones((3, 5, 5, 2))}, "only series have lengths"),
    ({"test": np.ones((3, 5, 2))}, "contains `lengths_train`, but no `lengths_test`"),
    ({"train_mask": np.ones((3, 5, 2))}, "contains both `lengths_train` and a mask"),
  ],
)
def test_invalid_lengths_are_refused(change, message):
  with pytest.raises(errors.UserError, match=message):
    lengths.to_masks({"train": np.ones((3, 5, 2)), "train_lengths": np.array([1, 2, 5]), **change}, "data")
