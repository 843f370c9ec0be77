"""Targets, masks and weights of examples, from the file to the loaded run."""

import functools

import jax
import numpy as np
import pytest
from conftest import OLD_JAX, config_of, learned, run_main, unstudied

import ae_jax
from ae_jax import data, errors, models, objectives
from ae_jax.data import splits
from ae_jax.evaluators import pca, reconstruction
from ae_jax.ops import randomness
from ae_jax.training import steps, train

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]

R = np.random.default_rng(0)
TABLE = (R.normal(size=(80, 3)) @ R.normal(size=(3, 8)) + 5.0).astype(np.float32)
MASK = R.random(TABLE.shape) > 0.2
IMAGES = R.integers(0, 256, (30, 8, 8, 1), np.uint8)
WEIGHTS = R.uniform(0.1, 2.0, 80).astype(np.float32)
KEYS = randomness.example_keys(jax.random.key(0), np.arange(8))

OBJECTIVES = {
  "reconstruction": {},
  "denoising": {"corruption": "masking", "level": 0.3, "alpha": 2.0, "beta": 0.5},
  "sparse": {"penalty": "l1", "weight": 0.1, "target": 0.1},
  "contractive": {"weight": 0.1, "probes": 0},
  "layerwise": {"layer": 0, "corruption": "masking", "level": 0.3},
  "elbo": {"noise": 0.5, "beta": 1.0, "free_bits": 0.0},
}


def saved(folder, **arrays):
  """Writes an archive and returns the first arguments of `data.load`."""
  np.savez(folder / "data.npz", **arrays)
  return "npz", str(folder / "data.npz")


def model_and_objective(name="reconstruction"):
  bottleneck = "gaussian" if name == "elbo" else "identity"
  options = {**config_of("dense", "digits").model, "latent": 3, "widths": (6,), "bottleneck": bottleneck}
  model = models.build(shape=(8,), **options)
  return model, objectives.build(name, model, "real", likelihood="gaussian", **OBJECTIVES[name])


def losses_and_gradients(*cases):
  """Returns (loss, gradient) of each case (name of an objective, batch, keys), all computed by one program."""

  def compute(batches_and_keys):
    results = []
    for (name, *_), (batch, keys) in zip(cases, batches_and_keys, strict=True):
      model, objective = model_and_objective(name)
      variables = model.init(jax.random.key(1))
      (loss, _), gradient = steps.value_and_gradient(
        variables, batch, keys, model=model, objective=objective, microbatches=1
      )
      results.append((loss, gradient))
    return results

  return jax.jit(compute)([(batch, keys) for _, batch, keys in cases])


def batch_of(rows, **columns):
  return {"x": TABLE[rows], "weight": np.ones(len(TABLE[rows]), np.float32), **columns}


def check_close(*cases):
  first, second = losses_and_gradients(*cases)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-5), first, second)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_full_mask_is_no_mask(name):
  masked = batch_of(slice(8), mask=np.ones((8, 8), np.float32))
  check_close((name, batch_of(slice(8)), KEYS), (name, masked, KEYS))


@pytest.mark.parametrize("name", ["reconstruction", "denoising", "sparse", "elbo"])
def test_the_example_as_target_is_no_target(name):
  name_without = "reconstruction" if name == "denoising" else name  # with targets, no noise is added
  targeted = batch_of(slice(8), target=TABLE[:8])
  check_close((name, targeted, KEYS), (name_without, batch_of(slice(8)), KEYS))


@pytest.mark.parametrize("name", ["reconstruction", "denoising", "contractive", "elbo"])
def test_weight_2_is_the_example_twice(name):
  weighted = batch_of(slice(8)) | {"weight": np.float32([2, 1, 1, 2, 1, 1, 1, 1])}
  rows = np.array([0, 0, 1, 2, 3, 3, 4, 5, 6, 7])
  check_close((name, weighted, KEYS), (name, batch_of(rows), KEYS[rows]))


def test_the_scale_of_the_weights_does_not_matter():
  small = batch_of(slice(8)) | {"weight": np.full(8, 1e-5, np.float32)}
  check_close(("reconstruction", small, KEYS), ("reconstruction", batch_of(slice(8)), KEYS))


def test_masked_elements_of_the_target_do_not_reach_the_gradient():
  mask = MASK[:8].astype(np.float32)
  targets = (TABLE[:8], np.where(MASK[:8], TABLE[:8], np.float32(1e3)))
  cases = [("reconstruction", batch_of(slice(8), mask=mask, target=target), KEYS) for target in targets]
  first, second = losses_and_gradients(*cases)
  jax.tree.map(np.testing.assert_array_equal, first, second)


def test_a_batch_has_the_columns_of_the_data():
  model = models.build(shape=(8, 8, 1), **{**config_of("dense", "digits").model, "widths": (4,), "latent": 2})
  flat = IMAGES.reshape(30, -1)
  columns = {"x": flat, "target": flat[::-1], "mask": flat > 9, "weight": np.arange(30, dtype=np.float32)}
  weights = np.float32([1, 1, 0])
  batch = steps.read_batch(np.array([3, 5, 0]), weights, examples=columns, model=model, value_range="symmetric")
  np.testing.assert_array_equal(batch["weight"], [3, 5, 0])
  np.testing.assert_array_equal(batch["mask"], (IMAGES[[3, 5, 0]] > 9).astype(np.float32))
  plain = steps.read_batch(np.array([26, 24, 29]), weights, examples={"x": flat}, model=model, value_range="symmetric")
  np.testing.assert_array_equal(batch["target"], plain["x"])
  assert [*plain] == ["x", "weight"]


@pytest.mark.parametrize("placement", ["memory", "stream"])
@pytest.mark.parametrize(
  ("examples", "options"), [(TABLE, ("real",)), (TABLE, ("real", "standard")), (IMAGES, ("unit",))]
)
def test_the_values_of_masked_elements_never_matter(tmp_path, placement, examples, options):
  mask = R.random(examples.shape) > 0.3
  value_range, scale = (*options, "none")[:2]
  other = examples.copy()
  other[~mask] = np.nan if other.dtype == np.float32 else 255
  zeros = np.where(mask, examples, 0)
  loaded = []
  for number, stored in enumerate((other, zeros)):
    (tmp_path / str(number)).mkdir()
    where = saved(tmp_path / str(number), x_train=stored, mask_train=mask, target_train=stored[:, ::-1][:, ::-1])
    loaded.append(data.load(*where, value_range, scale=scale, placement=placement))
  first, second = loaded
  assert first.fingerprints == second.fingerprints
  assert (first.span, first.scaling) == (second.span, second.scaling)
  np.testing.assert_array_equal(first.train[:], second.train[:])
  if scale == "standard":
    from sklearn.preprocessing import StandardScaler

    rows = ~splits.drawn(len(examples), len(examples) // 5, 0)
    scaler = StandardScaler().fit(np.where(mask, examples, np.nan)[rows])
    np.testing.assert_allclose(first.standardisation.mean, scaler.mean_, rtol=1e-5)
    np.testing.assert_allclose(first.standardisation.deviation, scaler.scale_, rtol=1e-5)
    assert (first.train[:][~first.columns["train"]["mask"][:]] == 0).all()


def test_masks_may_lack_the_axis_of_channels(tmp_path):
  colours = np.repeat(IMAGES, 3, -1)
  mask = R.random((30, 8, 8)) > 0.5
  for stored in (mask, mask[..., None], np.repeat(mask[..., None], 3, -1).astype(float)):
    dataset = data.load(*saved(tmp_path, x_train=colours, x_test=colours, mask_train=stored), "unit")
    assert dataset.column("test", "mask") is None
    np.testing.assert_array_equal(dataset.column("train", "mask"), np.repeat(mask[..., None], 3, -1))


def test_targets_are_converted_with_the_examples(tmp_path):
  bits = IMAGES > 99
  dataset = data.load(*saved(tmp_path, x_train=bits, target_train=~bits), "unit")
  np.testing.assert_array_equal(dataset.columns["train"]["target"], 255 - dataset.train)
  where = saved(tmp_path, x_train=TABLE, target_train=TABLE + 1)
  dataset = data.load(*where, "real", scale="standard")
  np.testing.assert_allclose(
    dataset.columns["test"]["target"], dataset.test + 1 / dataset.standardisation.deviation, atol=1e-5
  )


def test_columns_of_a_record_are_cut_into_windows(tmp_path):
  record, mask = TABLE[:, :2], MASK[:, 0]
  where = saved(tmp_path, x_train=record, mask_train=mask, target_train=-record)
  dataset = data.load(*where, "real", kind="series", window=10, stride=4)
  columns, observed = dataset.columns["train"], np.repeat(mask[4:14, None], 2, -1)
  np.testing.assert_array_equal(columns["mask"][1], observed)
  np.testing.assert_array_equal(columns["target"][1], np.where(observed, -record[4:14], 0))
  where = saved(tmp_path, x_train=record, weight_train=WEIGHTS)
  with pytest.raises(errors.UserError, match="not supported for windows"):
    data.load(*where, "real", kind="series", window=10)


@pytest.mark.parametrize(
  ("arrays", "words"),
  [
    ({"mask_train": MASK[:9]}, "`mask_train` has shape .9, 8.; expected one row per example of `x_train`"),
    ({"mask_train": MASK[:, :3]}, r"`mask_train`: has shape \[80, 3\]; expected \[80, 8\]"),
    ({"mask_train": MASK * 2}, "`mask_train`: has values other than 0 and 1"),
    ({"mask_train": MASK & False}, "`mask_train` is 0 everywhere"),
    ({"weight_train": WEIGHTS * (np.arange(80) != 7)}, "`weight_train` is 0 in row "),
    ({"weight_train": TABLE}, r"`weight_train` has dtype float32 and shape \[80, 8\]; expected one number per example"),
    ({"target_train": TABLE[:, :4]}, "the array of train targets is float32 .4,., but the training examples are"),
    ({"target_train": TABLE, "x_test": TABLE}, "contains target_train, but no target_test"),
    ({"mask_test": MASK}, "`mask_test` has shape .80, 8.; expected one row per example of `x_test`"),
  ],
)
def test_wrong_columns_are_refused(tmp_path, arrays, words):
  with pytest.raises(errors.UserError, match=words):
    data.load(*saved(tmp_path, x_train=TABLE, **arrays), "real")


def dataset_of(test=TABLE, **columns):
  return data.Dataset("made", "real", TABLE, test, None, None, columns={"train": columns, "test": columns})


def test_baselines_count_observed_elements_only():
  dataset = dataset_of(mask=MASK)
  means = np.nanmean(np.where(MASK, TABLE, np.nan), 0)
  expected = np.where(MASK, TABLE - means, 0.0)
  np.testing.assert_allclose(
    reconstruction.mean_predictor_squared_errors(dataset), np.square(expected).sum(1), rtol=1e-4
  )
  np.testing.assert_allclose(pca.mean(pca.training_examples(dataset)), means, rtol=1e-5)
  other = dataset_of(np.where(MASK, TABLE, 1e3).astype(np.float32), mask=MASK)
  for fit in (lambda train: pca.fit(train, 2), lambda train: pca.fit_quantised(train, 8.0)):
    np.testing.assert_array_equal(pca.squared_errors(dataset, fit), pca.squared_errors(other, fit))


def test_the_input_is_a_baseline_of_paired_data():
  baselines = dict(reconstruction.baselines(dataset_of(target=TABLE + 2), models.CodeSpec((2,))))
  assert baselines["test/input_squared_error"] == pytest.approx(8 * 4)
  assert "test/input_psnr" not in baselines  # the values have no fixed range


def test_metrics_are_weighted_by_test_weights():
  values = {"squared_error": np.square(TABLE).sum(1)}
  plain, weighted = (dataset_of(**columns) for columns in ({}, {"weight": WEIGHTS}))
  assert dict(reconstruction.metrics(values, plain))["test/squared_error"] == pytest.approx(
    values["squared_error"].mean()
  )
  result = dict(reconstruction.metrics(values, weighted))
  expected = np.average(values["squared_error"], weights=WEIGHTS)
  assert result["test/squared_error"] == pytest.approx(expected)
  assert result["test/mse"] == pytest.approx(expected / 8)
  masked = dict(reconstruction.metrics(values, dataset_of(mask=MASK)))
  assert masked["test/mse"] == pytest.approx(values["squared_error"].sum() / MASK.sum())


def config_of_table(path, **others):
  config = unstudied(config_of("dense", "npz"))
  config.data.path, config.data.range, config.data.scale = str(path), "real", "standard"
  config.objective.likelihood = "gaussian"
  values = {"epochs": 2, "batch_size": 16, "model.latent": 3, "model.widths": (6,), "log_every_steps": 1}
  config.update_from_flattened_dict(values | {"checkpoint_every_epochs": 1} | others)
  return config


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
  path = tmp_path_factory.mktemp("columns") / "data.npz"
  hidden = np.where(MASK, TABLE, np.nan)
  np.savez(path, x_train=hidden, mask_train=MASK, weight_train=WEIGHTS, target_train=TABLE[:, ::-1])
  return path


def equal_runs(a, b, compare=np.testing.assert_array_equal):
  (params, records), (other, other_records) = a, b
  jax.tree.map(compare, params, other)
  assert [[*record] for record in records] == [[*record] for record in other_records]
  for record, other_record in zip(records, other_records, strict=True):
    compare(np.array([*record.values()]), np.array([*other_record.values()]))


@pytest.fixture(scope="module")
def plain(archive, tmp_path_factory):
  """The run that the tests below repeat in another way."""
  workdir = tmp_path_factory.mktemp("plain") / "run"
  with jax.numpy_dtype_promotion("standard"):
    train.train_and_evaluate(config_of_table(archive), workdir)
    return workdir, learned(workdir)


def test_streaming_resume_and_masked_values_change_nothing(archive, plain, tmp_path):
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  # the XLA of JAX 0.7 compiles weights of examples that are gathered to other roundings than weights that are fed
  compare = close if OLD_JAX else np.testing.assert_array_equal
  equal_runs(plain[1], _run(config_of_table(archive, **{"data.placement": "stream"}), tmp_path / "stream"), compare)
  arrays = dict(np.load(archive))
  np.savez(tmp_path / "other.npz", **arrays | {"x_train": np.where(MASK, TABLE, 1e9)})
  equal_runs(plain[1], _run(config_of_table(tmp_path / "other.npz"), tmp_path / "other"))
  _run(config_of_table(archive, epochs=1, **{"optimizer.schedule": "constant"}), tmp_path / "resumed")
  unbroken = _run(config_of_table(archive, **{"optimizer.schedule": "constant"}), tmp_path / "unbroken")
  resumed = _run(config_of_table(archive, **{"optimizer.schedule": "constant"}), tmp_path / "resumed")
  jax.tree.map(np.testing.assert_array_equal, resumed[0], unbroken[0])


def _run(config, workdir):
  train.train_and_evaluate(config, workdir)
  return learned(workdir)


def test_devices_and_accumulation_change_nothing_but_rounding(archive, plain, tmp_path, eight_devices):
  nearly = functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-4)
  equal_runs(plain[1], _run(config_of_table(archive), tmp_path / "devices"), nearly)
  equal_runs(plain[1], _run(config_of_table(archive, accumulate=2), tmp_path / "accumulated"), nearly)


def test_other_masks_are_other_data(archive, plain, tmp_path):
  np.savez(tmp_path / "data.npz", **dict(np.load(archive)) | {"weight_train": WEIGHTS + 1})
  with pytest.raises(errors.UserError, match="different: weights"):
    train.train_and_evaluate(config_of_table(tmp_path / "data.npz"), plain[0])


def test_paired_denoising_of_demand_a21(tmp_path):
  """`unet` on noisy and clean images: no artificial noise, and PSNR against the clean images."""
  clean = np.repeat(np.repeat(R.integers(0, 256, (40, 4, 4)), 4, 1), 4, 2)
  noisy = np.clip(clean + R.normal(0, 30, clean.shape), 0, 255).astype(np.uint8)
  np.savez(tmp_path / "a21.npz", x_train=noisy, target_train=clean.astype(np.uint8))
  flags = ("--config=unet:npz", f"--config.data.path={tmp_path / 'a21.npz'}", f"--workdir={tmp_path / 'run'}")
  small = (
    "--config.epochs=1",
    "--config.model.channels=4,8",
    "--config.model.latent=4",
    "--config.eval_every_epochs=1",
  )
  status, out, err = run_main(*flags, *small, "--config.evaluators=('denoising','robustness')")
  assert status == 0, err
  assert "the examples are used without artificial noise" in out + err
  run = ae_jax.load(tmp_path / "run")
  held_out = splits.drawn(40, 8, 0)
  mse = np.square((noisy[held_out] - clean[held_out].astype(float)) / 255).mean()
  assert run.metrics["test/input_psnr"] == pytest.approx(-10 * np.log10(mse), rel=1e-4)
  assert not [name for name in run.metrics if "psnr_in" in name]
  score = run.score(noisy[held_out], target=clean[held_out].astype(np.uint8)).mean()
  assert run.metrics["test/squared_error"] == pytest.approx(score, rel=1e-4)
  assert (
    "'denoising' needs a model that reconstructs its input" in (tmp_path / "run/evaluation/values.json").read_text()
  )


def test_imputation_of_demand_a22(tmp_path):
  """Hidden elements of a table of rank 3 are imputed better than by the column mean."""
  table = (R.normal(size=(400, 3)) @ R.normal(size=(3, 13))).astype(np.float32) * 10 + 100
  mask = R.random(table.shape) > 0.2
  np.savez(tmp_path / "a22.npz", x_train=np.where(mask, table, np.nan), mask_train=mask)
  options = {"epochs": 80, "model.widths": (), "optimizer.learning_rate": 0.02, "batch_size": 64}
  config = config_of_table(tmp_path / "a22.npz", eval_every_epochs=80, checkpoint_every_epochs=80, **options)
  train.train_and_evaluate(config, tmp_path / "run")
  run = ae_jax.load(tmp_path / "run")
  imputed = run.impute(np.where(mask, table, np.nan))
  np.testing.assert_array_equal(imputed, run.impute(np.where(mask, table, 0), mask))
  np.testing.assert_array_equal(imputed[mask], table[mask])
  means = np.nanmean(np.where(mask, table, np.nan), 0)
  error, baseline = (np.square(guess - table)[~mask].mean() for guess in (imputed, np.broadcast_to(means, table.shape)))
  assert error < 0.5 * baseline
  held_out = splits.drawn(400, 80, 0)
  scores = run.score(np.where(mask, table, np.nan)[held_out], mask=mask[held_out])
  assert run.metrics["test/squared_error"] == pytest.approx(scores.mean(), rel=1e-4)
  with pytest.raises(errors.UserError, match="NaN"):
    run.score(np.where(mask, table, np.nan))
