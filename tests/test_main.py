"""The command itself, as a process: what it prints, what it leaves, how it ends."""

import itertools
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import OLD_JAX, ROOT, run_command, run_main

pytestmark = pytest.mark.quick_compile

DENSE = "--config=configs/dense.py:digits"
QUICK = (DENSE, "--config.epochs=2e0", "--config.evaluators=()")


def steps_in(cache):
  """The compiled steps that a cache holds."""
  return sorted(path.name for path in (cache / "xla").glob("jit_train_chunk-*-cache"))


def test_it_trains_says_how_good_and_then_says_it_again(tmp_path):
  cold = {"AE_JAX_CACHE": str(tmp_path / "cache")}
  status, out, err = run_main(*QUICK, "--profile", f"--workdir={tmp_path / 'run'}", **cold)
  missed = lambda line: OLD_JAX and "tensorflow.python.profiler" in line
  assert (status, list(itertools.filterfalse(missed, err.splitlines()))) == (0, [])
  assert len(list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))) == 1
  *_, words, nats, speed, where = out.splitlines()
  assert re.match(
    r"After 2 epochs: squared error [\d.]+ per test example \(baseline: PCA with the same latent size, [\d.]+\)\. ",
    words,
  )
  assert "nats per test example" in nats
  assert "examples/s" in speed
  assert "report.html" in where
  assert "ae_jax.load(" in where
  compiled = steps_in(tmp_path / "cache")
  assert len(compiled) == 1
  status, again, err = run_main(*QUICK, f"--workdir={tmp_path / 'run'}", **cold)
  assert steps_in(tmp_path / "cache") == compiled, "the second process compiled again"
  assert (status, err) == (0, "")
  assert "resuming after epoch 2 of 2" in again
  assert again.splitlines()[-4] == words


@pytest.mark.usefixtures("pictures")
def test_the_default_workdir_says_config_data_and_time(tmp_path):
  status, _, err = run_command("main", f"--config={ROOT}/configs/dense.py:digits", *QUICK[1:], cwd=tmp_path)
  assert (status, err) == (0, "")
  (run,) = (tmp_path / "runs").iterdir()
  assert re.fullmatch(r"dense-digits-\d{8}-\d{6}", run.name)
  assert (run / "pictures" / "reconstructions.png").exists()


def test_help_is_help():
  status, out, err = run_main("--help")
  assert (status, err) == (0, "")
  assert "--config" in out
  assert "configs/cnn.py" in out


def test_importing_the_package_or_asking_for_help_does_not_wait_for_jax():
  code = "import sys, ae_jax, ae_jax.main, ae_jax.config; sys.exit('jax' in sys.modules)"
  assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_every_documented_module_is_reachable_after_importing_the_package():
  reference = (ROOT / "docs" / "reference" / "api.md").read_text()
  names = re.findall(r"^\.\. auto\w+:: ((?:\w+\.)+\w+)", reference, re.MULTILINE)
  assert {"ae_jax.api.load", "ae_jax.training.train.train_and_evaluate"} <= set(names)
  names.sort(key=lambda name: "ae_jax.ops" not in name)  # other modules import this one
  code = "\n".join(["import ae_jax", *names])
  found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
  assert found.returncode == 0, found.stderr


WRONG_INPUT = [
  ((DENSE, "--config.epocs=3"), 'Did you mean "epochs"'),
  ((DENSE, "--config.optimizer.learning_rat=3"), 'Did you mean "learning_rate"'),
  ((DENSE, "--config.epochs=many"), "--config.epochs=many: must be a whole number, such as 1000 or 1e3"),
  ((DENSE, "--config.batch_size=1.5"), "--config.batch_size=1.5: must be a whole number"),
  (("--config=configs/absent.py",), "absent.py"),
  (("--config=auto:absent.csv",), "--config=auto:absent.csv: absent.csv: file or folder not found"),
  ((DENSE, "--config.model.latent=0"), "config.model.latent=0: must be an integer from 1"),
  ((DENSE, "--config.model.widths=(8,-1)"), "config.model.widths=(8, -1)"),
  ((DENSE, "--config.epochs=1e999"), "--config.epochs=1e999: must be a whole number"),
  (("--config=configs/dense.py:mnist_5l",), "did you mean 'mnist_5k'"),
  (("--config=configs/dense.py:npz", "--config.data.path=absent.npz"), "file not found"),
  (("--config=configs/dense.py:mnist",), "tfds build mnist"),
  (("--config=configs/cnn.py:digits", "--config.model.channels=(4,4,4)", "--config.model.decoder_kernels=(3,3,3)",
    "--config.model.decoder_strides=(2,2,2)"), "an image of 8x8 shrinks to 1x1 after 2"),
]  # fmt: skip
WRONG_USAGE = [
  ((), "--config is missing"),
  (("--confg=configs/dense.py",), "Unknown command line flag 'confg'"),
  ((DENSE, "configs/cnn.py"), "unexpected argument 'configs/cnn.py'"),
]


@pytest.mark.parametrize(
  ("flags", "status", "message"),
  [(flags, 1, message) for flags, message in WRONG_INPUT] + [(flags, 2, message) for flags, message in WRONG_USAGE],
)
def test_a_mistake_is_met_with_one_line(tmp_path, flags, status, message):
  workdir = tmp_path / "run"
  ended, out, err = run_main(*flags, f"--workdir={workdir}", TFDS_DATA_DIR=str(tmp_path / "no sets"))
  assert ended == status
  assert message in err
  assert (len(err.splitlines()), out) == (1, "")
  assert not workdir.exists()


def test_a_workdir_that_cannot_be_one_is_refused(tmp_path):
  (tmp_path / "file").touch()
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "thesis.tex").touch()
  for name, message in {
    "file": "cannot be written",
    "file/below": "cannot be written",
    "full": "holds 'thesis.tex'",
  }.items():
    status, out, err = run_main(*QUICK, f"--workdir={tmp_path / name}")
    assert (status, len(err.splitlines()), out) == (1, 1, "")
    assert message in err
  assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "thesis.tex"]


@pytest.mark.parametrize("text", ["import nothing_of_that_name", "def get_config(data='x'):\n  return {}", "x = ("])
def test_a_config_file_that_is_none_is_met_with_one_line(tmp_path, text):
  (tmp_path / "bad.py").write_text(text)
  status, out, err = run_main(f"--config={tmp_path}/bad.py")
  assert (status, len(err.splitlines()), out) == (1, 1, "")


def test_a_config_file_with_an_error_in_it_is_named_in_one_line(tmp_path):
  (tmp_path / "bad.py").write_text("def get_config():\n  return 1 / 0\n")
  status, out, err = run_main(f"--config={tmp_path}/bad.py")
  assert (status, len(err.splitlines()), out) == (1, 1, "")
  assert "division by zero" in err


def test_a_default_latent_size_larger_than_the_rows_of_a_table_is_reduced_and_one_of_the_user_is_refused(tmp_path):
  np.savez(tmp_path / "mine.npz", x_train=np.random.default_rng(0).normal(size=(40, 13)))
  flags = ("--config=configs/dense.py:npz", f"--config.data.path={tmp_path}/mine.npz", "--config.evaluators=()")
  flags += ("--config.data.range=real", "--config.objective.likelihood=gaussian", f"--workdir={tmp_path / 'run'}")
  status, out, err = run_main(*flags, "--config.epochs=1")
  assert (status, err) == (0, "")
  assert "config.model.latent=4: chosen, because the default of 32 is larger than the 13 elements" in out
  status, out, err = run_main(*flags, "--config.epochs=2")
  assert (status, err) == (0, "")
  assert "config.model.latent=4: as chosen at the start of the run" in out
  status, out, err = run_main(*flags, "--config.model.latent=32", "--config.epochs=1")
  assert (status, out) == (1, "")
  assert "config.model.latent=32: larger than the 13 elements" in err


def test_the_users_own_images_train(tmp_path):
  np.savez(tmp_path / "mine.npz", x_train=np.random.default_rng(0).integers(0, 256, (40, 47, 61, 3), np.uint8))
  flags = ("--config=configs/cnn.py:npz", f"--config.data.path={tmp_path}/mine.npz", "--config.epochs=1")
  few = ("--config.batch_size=16", "--config.evaluators=()")
  status, out, err = run_main(*flags, *few, f"--workdir={tmp_path / 'run'}")
  assert (status, err) == (0, "")
  assert "32 training and 8 test examples of shape 47 x 61 x 3" in out
