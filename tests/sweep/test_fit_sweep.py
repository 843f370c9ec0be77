"""`ae_jax.fit_sweep`: members, the best run, the table, the plot, and refusals."""

import jax
import numpy as np
import pytest

import ae_jax

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(3, 2, (60, 3)) @ RANDOM.normal(size=(3, 8))
SMALL = {"model": "dense", "epochs": 1, "evaluators": (), "model__widths": 16, "verbose": False}


def fit_sweep(**options):
  with jax.numpy_rank_promotion("allow"):
    return ae_jax.fit_sweep(X, **SMALL | options)


@pytest.fixture(scope="module")
def sweep():
  return fit_sweep(latents=(1, np.int64(2)), seeds=2)


def test_the_table_has_a_row_for_each_member_and_the_best_has_the_smallest_error(sweep):
  assert sweep.table.index.tolist() == [f"latent={k},seed={s}" for k in (1, 2) for s in (0, 1)]
  best = sweep.table["squared_error"].idxmin()
  assert sweep.best.metrics["test/squared_error"] == sweep.table.loc[best, "squared_error"]
  assert f"latent={sweep.best.config.model.latent},seed={sweep.best.config.seed}" == best
  assert sweep.load("latent=2,seed=1").encode(X).shape == (60, 2)
  with pytest.raises(ValueError, match="did you mean 'latent=2,seed=0'"):
    sweep.load("latent=2,sed=0")


def test_a_member_equals_the_run_of_fit(sweep):
  with jax.numpy_rank_promotion("allow"):
    run = ae_jax.fit(X, latent=2, seed=1, **SMALL)
  np.testing.assert_allclose(sweep.load("latent=2,seed=1").encode(X), run.encode(X), atol=1e-5)


def test_the_plot_shows_the_curve_of_each_setting_beside_pca(sweep, tmp_path):
  figure = sweep.plot()
  labels = [line.get_label() for line in figure.axes[0].lines]
  assert labels[:2] == ["autoencoder", "baseline: PCA with the same latent size"]
  figure.savefig(tmp_path / "sweep.png")
  assert sweep.answer in figure.get_suptitle().replace("\n", " ")


def test_the_plot_and_the_page_have_the_unit_of_scaled_data(sweep):
  assert sweep.plot().axes[0].get_ylabel().endswith(",\nin squared standard deviations")
  assert "Squared errors are in squared standard deviations." in (sweep.workdir / "report.html").read_text()


def test_a_grid_varies_config_keys_and_a_folder_is_continued(tmp_path, capfd):
  options = {"seeds": [3], "grid": {"optimizer__learning_rate": [1e-3, 1e-2]}, "workdir": tmp_path / "sweep"}
  sweep = fit_sweep(**options)
  assert sweep.table["optimizer.learning_rate"].tolist() == [1e-3, 1e-2]
  assert sweep.table["seed"].tolist() == [3, 3]
  assert capfd.readouterr() == ("", "")
  fit_sweep(**options, verbose=True)
  assert "2 of them trained already" in capfd.readouterr().out
  with pytest.raises(ValueError, match="different: examples"):
    ae_jax.fit_sweep(X + 1, **SMALL | options)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"latents": (2, 2)}, "latents=.*lists the number 2 twice"),
    ({"latents": ("a",)}, "latents=.*must be one or more numbers"),
    ({"seeds": 0}, "seeds=0: must be one or more seeds"),
    ({"latents": (2.5,)}, "must be an integer"),
    ({"grid": {"learning_rate": (1e-3,)}}, "did you mean 'optimizer.learning_rate'"),
    ({"grid": {"seed": (1, 2)}}, "is already an axis"),
    ({"grid": {"optimizer__learning_rate": (1e-3,)}, "optimizer__learning_rate": 1e-2}, "rate=0.01: is given twice"),
    ({"seeds": [1, 2], "seed": 3}, "seed=3: is given twice"),
    ({"batchsize": 3}, "did you mean 'batch_size'"),
  ],
)
def test_invalid_axes_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    fit_sweep(**options)
