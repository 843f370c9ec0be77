"""`ae_jax.fit` and `ae_jax.configs`: data in every form, config keys as arguments, run folders, and refusals."""

import gc
import json
import pathlib
import pickle
import shutil
import sys
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from conftest import CONFIGS, config_of

import ae_jax
import ae_jax.data
from ae_jax import config as configs
from ae_jax import errors, fitting, overrides
from ae_jax.config import shipped

pytestmark = [pytest.mark.quick_compile, pytest.mark.runs_optax]
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(3, 2, (60, 8))
IMAGES = RANDOM.integers(0, 256, (60, 4, 4), np.uint8)
FRAME = pd.DataFrame(
  {"age": RANDOM.integers(20, 60, 60), "height": X[:, 0], "city": RANDOM.choice(["Rome", "Bonn"], 60)}
)
SMALL = {"model": "dense", "latent": 2, "epochs": 1, "evaluators": (), "verbose": False}


def fit(x=X, labels=None, **options):
  with jax.numpy_rank_promotion("allow"):
    return ae_jax.fit(x, labels, **SMALL | options)


def problem(x, labels=None, model="dense", validation=None, test=None, **changes):
  return fitting.problem(x, labels, model=model, validation=validation, test=test, changes=overrides.dotted(changes))


@pytest.fixture(scope="module")
def run():
  return fit()


class Tensor:
  """A tensor that needs a gradient and lies on an accelerator: NumPy cannot read it."""

  def __init__(self, values, on_host=False):
    self.values, self.on_host, self.dtype = values, on_host, values.dtype

  def detach(self):
    return self

  def cpu(self):
    return Tensor(self.values, True)

  def __array__(self, dtype=None, copy=None):
    if not self.on_host:
      raise TypeError("cannot convert a device tensor")
    return self.values


def as_tensor(values, monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(Tensor=Tensor, bfloat16="bfloat16"))
  return Tensor(values)


FORMS = {
  "float32": lambda x, _: x.astype(np.float32),
  "list": lambda x, _: x.tolist(),
  "jax": lambda x, _: jnp.asarray(x, jnp.float32),
  "tensor": as_tensor,
  "dataframe": lambda x, _: pd.DataFrame(x),
  "columns": lambda x, _: {f"column_{i}": column for i, column in enumerate(x.T)},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_data_gives_the_same_data_set(form, monkeypatch):
  expected, found = problem(X)[1], problem(FORMS[form](X, monkeypatch))[1]
  np.testing.assert_allclose(found.train, expected.train, atol=1e-5)
  np.testing.assert_allclose(found.test, expected.test, atol=1e-5)


def test_the_range_is_chosen_for_the_values_unless_it_is_set():
  assert problem(IMAGES)[0].data.range == "unit"
  assert problem(IMAGES / 255)[0].data.range == "unit"
  assert problem(X / 20)[0].data.range == "symmetric"
  config, dataset = problem(X)
  assert (config.data.range, config.data.scale, config.objective.likelihood) == ("real", "standard", "gaussian")
  assert "config.data.range='real'" in dataset.remarks[0]
  np.testing.assert_allclose(dataset.train.mean(0), np.zeros(8), atol=1e-5)
  assert problem(X, data__range="real")[0].data.scale == "none"
  with pytest.raises(ValueError, match=r"ae_jax.fit: .* outside the range 'unit'"):
    problem(X, data__range="unit")
  with pytest.raises(errors.UserError, match="outside the range 'unit'"):
    problem(X, model=ae_jax.configs.get("dense"))  # a config of the user is complete
  assert problem(RANDOM.normal(size=(20, 12, 2)))[0].data.kind == "series"


def test_a_latent_size_above_the_number_of_elements_is_reduced_unless_it_is_set():
  config, dataset = problem(X)
  assert config.model.latent == 2
  assert "config.model.latent=2" in dataset.remarks[0]
  assert problem(X, model__latent=9)[0].model.latent == 9
  assert problem(X, model="sparse")[0].model.latent == ae_jax.configs.get("sparse").model.latent


def test_the_data_of_the_user_are_not_changed():
  x, before = X.copy(), ae_jax.configs.get("dense")
  problem(x, model=before, data__range="real", data__scale="standard", objective__likelihood="gaussian")
  np.testing.assert_array_equal(x, X)
  assert before.to_dict() == ae_jax.configs.get("dense").to_dict()


def test_validation_and_test_sets_are_examples_or_shares():
  _, dataset = problem(X, [0, 1] * 30, validation=X[:10], test=(X[:5], [1] * 5))
  assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [60, 10, 5]
  assert dataset.test_labels.tolist() == [1] * 5
  _, dataset = problem(X, validation=0.25, test=0.5)
  assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [23, 7, 30]


@pytest.mark.parametrize("labels", ["city", FRAME["city"], FRAME["city"].tolist(), FRAME["city"].to_numpy(object)])
def test_labels_are_a_column_or_one_per_example(labels):
  _, dataset = problem(FRAME, labels)
  assert dataset.class_names == ("Bonn", "Rome")
  assert dataset.schema.elements == (2 if isinstance(labels, str) else 5)
  kept = np.setdiff1d(np.arange(60), dataset.split.rows["test"])
  assert [dataset.class_names[label] for label in dataset.train_labels] == FRAME["city"].iloc[kept].tolist()


def test_files_and_data_sets_are_named(tmp_path):
  FRAME.to_csv(tmp_path / "x.csv", index=False)
  for path in (tmp_path / "x.csv", str(tmp_path / "x.csv")):
    config, dataset = problem(path, "city")
    assert (config.data.name, config.data.label, dataset.shape) == ("csv", "city", (2,))
  np.savez(tmp_path / "x.npz", x_train=IMAGES)
  assert problem(tmp_path / "x.npz", model="cnn")[0].data.path == str(tmp_path / "x.npz")
  assert problem("digits")[0].to_dict() == config_of("dense", "digits").to_dict()


def test_arguments_are_config_keys():
  config, _ = problem(
    IMAGES,
    model__widths=[64, 32],
    batch_size=np.int64(16),
    epochs=3.0,
    evaluators="latent",
    optimizer__schedule="linear",
  )
  assert (config.model.widths, config.batch_size, config.epochs) == ((64, 32), 16, 3)
  assert (config.evaluators, config.optimizer.schedule) == (("latent",), "linear")
  noisy = {
    "name": "denoising",
    "likelihood": "bernoulli",
    "corruption": "masking",
    "level": 0.3,
    "alpha": 1.0,
    "beta": 0.5,
  }
  assert problem(IMAGES, objective=noisy)[0].objective.level == 0.3
  assert problem(X, objective=noisy | {"likelihood": "laplace"})[0].objective.likelihood == "laplace"
  optimizer = ae_jax.configs.get("dense").optimizer.to_dict() | {"learning_rate": 0.5}
  assert problem(X, model="auto", optimizer=optimizer)[0].optimizer.to_dict() == optimizer


REFUSED = {
  "did you mean 'batch_size'": (X, {"batchsize": 3}),
  "did you mean 'optimizer__learning_rate'": (X, {"learning_rate": 3}),
  "did you mean 'dense'": (X, {"model": "dens"}),
  "config.batch_size='3': must be int": (X, {"batch_size": "3"}),
  "cannot be set, because x determines it": (X, {"data__name": "digits"}),
  "is given twice": (X, {"model__latent": 3}),
  "optimizer__name='sgd': conflicts with optimizer=, which sets the whole section": (
    X,
    {"optimizer": {"learning_rate": 0.1}, "optimizer__name": "sgd"},
  ),
  "data__validation=0.3: is given twice": (X, {"validation": 0.1, "data__validation": 0.3}),
  "data__label='age': is given twice": (FRAME, {"labels": "city", "data__label": "age"}),
  "data={'range': 'unit'}: cannot be set, because x determines it": (X, {"data": {"range": "unit"}}),
  "the data are passed as x; remove this part": (X, {"model": "cnn:mnist"}),
  "expects images or series": (X, {"model": "cnn"}),
  "inhomogeneous": ([[1], [1, 2]], {}),
  "x: has type NoneType": (None, {}),
  "x: is a single value": (3.0, {}),
  "config.data.layout=nchw": (np.zeros((9, 3, 8, 8)), {}),
  "config.data.missing=mean": (np.full((9, 3), np.nan), {}),
  "at least 3 examples": (X[:0], {}),
  "one label per example of `x`": (X, {"labels": [1, 2]}),
  "2 labels for 60 rows": (FRAME, {"labels": [1, 2]}),
  "did you mean 'city'": (FRAME, {"labels": "cit"}),
  "pass one label per example": (X, {"labels": "city"}),
  "labels: the values have mixed types": (X, {"labels": [None, "a"] * 30}),
  "labels: the values have mixed types, or": (X, {"labels": [1, "a"] * 30}),
  "labels: the values have mixed types, or some": (X, {"labels": [1.0, np.nan] * 30}),
  "labels: the values have mixed types, or some are missing": (FRAME, {"labels": [1, "a"] * 30}),
  "x: is a masked array": (np.ma.masked_greater(X, 3), {}),
  "the validation examples have 2 columns": (X, {"validation": X[:, :2]}),
  "two columns 'a'": (pd.DataFrame(X[:, :2], columns=["a", "a"]), {}),
  "did you mean 'digits'": ("digts", {}),
  "file or folder not found": (pathlib.Path("photos"), {}),
  "label arrays are accepted only if x is an array": ("digits", {"labels": [1, 2]}),
  "pass a fraction such as validation=0.1": ("digits", {"validation": X}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_trained_is_refused_in_one_line(message):
  x, options = REFUSED[message]
  with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
    fit(x, **options)
  assert message in str(caught.value)


def test_a_temporary_folder_lives_as_long_as_the_run_and_nothing_is_printed(capfd):
  run = fit()
  folder = run.workdir
  assert capfd.readouterr() == ("", "")
  assert (folder / "report.html").exists()
  del run
  gc.collect()
  assert not folder.exists()


def test_a_temporary_folder_with_a_checkpoint_is_kept_after_an_error(monkeypatch):
  def fail(*args, **options):
    raise KeyboardInterrupt

  monkeypatch.setattr("ae_jax.training.train._analyze", fail)
  with pytest.raises(KeyboardInterrupt) as caught:
    fit()
  folder = pathlib.Path(caught.value.__notes__[0].split("'")[1])
  assert ae_jax.load(folder).step == 1
  shutil.rmtree(folder)


def test_names_of_tensorflow_datasets_have_versions_and_configs():
  for name in ("mnist:3.0.1", "emnist/letters", "emnist/letters:3.*.*"):
    assert fitting._stored(name, {})[0].name == name
  for path in ("no/such/folder", "photos.zip", "./photos"):
    with pytest.raises(errors.UserError, match="file or folder not found"):
      fitting._stored(path, {})


def test_a_run_folder_is_loaded_continued_and_bound_to_its_data(tmp_path, capfd):
  folder = tmp_path / "run"
  fit(workdir=folder)
  capfd.readouterr()
  run = fit(workdir=str(folder), epochs=2, verbose=True)
  assert "resuming after epoch 1" in capfd.readouterr().out
  assert run.step == 2
  np.testing.assert_array_equal(ae_jax.load(folder).encode(X), run.encode(X))
  stored = json.loads((folder / "config.json").read_text())
  assert stored["config"]["data"]["name"] == "arrays"
  assert stored["data"]["fingerprint"] == problem(X)[1].fingerprint()
  with pytest.raises(errors.UserError, match="different: examples"):
    fit(X + 1, workdir=folder, epochs=2)
  with pytest.raises(errors.UserError, match=r"pass them again to ae_jax\.fit"):
    ae_jax.data.load(**run.config.data.to_dict())


def test_a_run_is_pickled_and_trained_in_a_thread(run):
  copy = pickle.loads(pickle.dumps(run))
  np.testing.assert_array_equal(copy.encode(X), run.encode(X))
  runs = []
  thread = threading.Thread(target=lambda: runs.append(fit()))
  thread.start()
  thread.join()
  np.testing.assert_array_equal(runs[0].encode(X), run.encode(X))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_configs_are_named_as_on_the_command_line(file):
  for data in ((), ("digits",)):
    config = ae_jax.configs.get(":".join([file.stem, *data]))
    assert config.to_dict() == config_of(file.stem, *data).to_dict()
    configs.check(config)
  assert config.to_dict() == ae_jax.configs.get(str(file), "digits").to_dict()
  with pytest.raises(AttributeError, match="Did you mean"):
    config.epoch = 3


def test_a_folder_may_contain_the_extension_of_a_config(tmp_path):
  folder = tmp_path / ".pyenv" / "my.pyt:hon"
  folder.mkdir(parents=True)
  shutil.copy(next(file for file in CONFIGS if file.stem == "dense"), folder / "mine.py")
  expected = ae_jax.configs.get("dense:digits").to_dict()
  assert ae_jax.configs.get(f"{folder}/mine.py:digits").to_dict() == expected
  assert ae_jax.configs.get(f"{folder}/mine.py", "digits").to_dict() == expected
  assert shipped.split(f"{folder}/mine.py:x.py") == (f"{folder}/mine.py", "x.py")


def test_an_unknown_config_is_refused():
  assert "cnn" in ae_jax.configs.names()
  with pytest.raises(ValueError, match="did you mean 'cnn'"):
    ae_jax.configs.get("cn:mnist")
