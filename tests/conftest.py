"""Shared by all tests: strict dtype and rank promotion, a temporary cache, fixtures and small configs."""

import contextlib
import gc
import importlib.util
import os
import pathlib
import tempfile

if "PYTEST_XDIST_WORKER" not in os.environ:  # one cache for all workers and their subprocesses
  os.environ["AE_JAX_CACHE"] = tempfile.mkdtemp(prefix="ae_jax-tests-")
os.environ["OMP_NUM_THREADS"] = "1"  # the test processes share the cores

import command_server
import jax
import numpy as np
import pytest
from jax._src import compiler  # the only way to give XLA flags to all programs from now on

import ae_jax
from ae_jax import objectives
from ae_jax.config.keys import ANALYSES
from ae_jax.data import batch_schedule
from ae_jax.report import evaluation
from ae_jax.runs import logs
from ae_jax.system import cache, distributed
from ae_jax.training import train

cache.keep_compiled_programs()  # tests share compiled programs
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)  # tests use one device unless they request more

_mesh = distributed.mesh
distributed.mesh = lambda devices=None: _mesh(jax.devices()[:1] if devices is None else devices)

# Compiled programs stay, so full collections take 0.7 s each and find little: they are ten times rarer than by default.
gc.set_threshold(700, 10, 100)


def pytest_collection_finish():
  """Leaves the imported modules and the collected tests out of full collections."""
  gc.freeze()


OLD_JAX = jax.__version_info__ < (0, 8)  # the version of Colab
ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


# XLA flags with which compilation takes a third of the time, and the programs are slower.
QUICK = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
  "xla_cpu_parallel_codegen_split_count": 1,
}
QUICK |= {} if OLD_JAX else {"xla_cpu_use_fusion_emitters": False}


@contextlib.contextmanager
def _quick_compilation():
  """Compiles with the flags QUICK, in this process and in commands that start meanwhile.

  This process has read $XLA_FLAGS at its first compilation, so JAX adds the flags to the options of each program. They
  are part of the keys of the persistent cache, but not of the caches of `jax.jit` in this process. The profile version
  has no other effect here and is part of their keys: so no other test receives a program that was compiled quickly.
  """
  get_compile_options = compiler.get_compile_options

  def add_flags(*arguments, env_options_overrides=None, **options):
    return get_compile_options(*arguments, env_options_overrides={**(env_options_overrides or {}), **QUICK}, **options)

  flags = [f"--{name}={str(value).lower()}" for name, value in QUICK.items()]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(compiler, "get_compile_options", add_flags)
    patch.setenv("XLA_FLAGS", " ".join([*flags, os.environ.get("XLA_FLAGS", "")]))
    jax.config.update("jax_xla_profile_version", 1)
    try:
      yield
    finally:
      jax.config.update("jax_xla_profile_version", 0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
  """Compiles the programs of tests with the mark `quick_compile`, and of their fixtures, with the flags QUICK.

  Such tests hold to rounding, and compilation takes most of their time. The mark is not for tests of compiled memory,
  of speed, of the caches, or of equal bits in two different programs.
  """
  with _quick_compilation() if item.get_closest_marker("quick_compile") else contextlib.nullcontext():
    return (yield)


def config_of(name, *data):
  """Returns the config `configs/NAME.py:DATA`, or with the default data of that file."""
  spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(*data)


def unstudied(config):
  """Removes the evaluators that analyze the trained model, which take seconds, and returns the config."""
  config.evaluators = tuple(name for name in config.evaluators if name not in ANALYSES)
  return config


def run_command(module, *arguments, cwd=ROOT, **environment):
  """Runs `python -m ae_jax.MODULE`, in a fork of the command server; returns (exit status, stdout, stderr)."""
  environment = {**os.environ, **environment}
  pictures = evaluation.draw is _draw
  return command_server.run(f"ae_jax.{module}", [*map(str, arguments)], cwd, environment, 300, pictures)


def run_main(*flags, **environment):
  """Runs `python -m ae_jax.main`; see `run_command`."""
  return run_command("main", *flags, **environment)


_draw = evaluation.draw
evaluation.draw = lambda *_: None


@contextlib.contextmanager
def with_pictures():
  """Trainings of this process and `run_command` draw pictures. Tests do without, which is a third of a short run."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(evaluation, "draw", _draw)
    yield


@pytest.fixture
def pictures():
  """Trainings of the test draw their pictures; see `with_pictures`."""
  with with_pictures():
    yield


class _Stop(Exception):
  """Ends a training started by `train_until`."""


def train_until(config, workdir, epoch, monkeypatch):
  """Trains a run and stops it by an exception at the beginning of an epoch."""
  original = batch_schedule.BatchSchedule.chunks

  def stop(schedule, number):
    if number == epoch:
      raise _Stop
    return original(schedule, number)

  with monkeypatch.context() as patch:
    patch.setattr(batch_schedule.BatchSchedule, "chunks", stop)
    with pytest.raises(_Stop):
      train.train_and_evaluate(config, workdir)


@pytest.fixture
def eight_devices(monkeypatch):
  """Distributes runs over eight virtual devices."""
  monkeypatch.setattr(
    distributed, "mesh", lambda devices=None: _mesh(jax.devices()[:8] if devices is None else devices)
  )


@pytest.fixture(autouse=True)
def strict_dtypes(request):
  """Forbids implicit dtype promotion, except in tests that run Optax, whose bias correction promotes."""
  if request.node.get_closest_marker("runs_optax"):
    yield
  else:
    with jax.numpy_dtype_promotion("strict"):
      yield


@pytest.fixture
def double_precision():
  """Enables float64 in JAX, by the function of the oldest or of newer supported versions."""
  enable = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
  with enable(True):
    yield


def learned(workdir):
  """Returns the parameters and the records of a run, without the timing metrics."""
  timing = ("images_per_second", "compile_seconds")
  records = [{name: value for name, value in record.items() if name not in timing} for record in logs.read(workdir)]
  return ae_jax.load(workdir).params, records


TINY = {  # a run of one second on 1,438 digits of 8x8 pixels
  "epochs": 3,
  "batch_size": 128,
  "model.latent": 4,
  "model.widths": (16,),
  "checkpoint_every_epochs": 1,
  "log_every_steps": 5,
  "evaluators": (),
}


@pytest.fixture
def tiny():
  """The config configs/dense.py:digits, made small."""
  config = config_of("dense", "digits")
  config.update_from_flattened_dict(TINY)
  return config


def tiny_flags(**others):
  """Returns the flags of ae_jax.main for the same run, with some keys replaced."""
  return [
    "--config=configs/dense.py:digits",
    *(f"--config.{key}={value}" for key, value in {**TINY, **others}.items()),
  ]


@pytest.fixture
def unreliable(monkeypatch):
  """Makes the loss of `reconstruction` NaN in about every fourth step, depending on the key of its first example."""

  class Unreliable(objectives.Objective):
    def __call__(self, model, variables, batch, keys, **options):
      loss, aux = super().__call__(model, variables, batch, keys, **options)
      return loss * jax.numpy.where(jax.random.uniform(keys[0]) < 0.25, jax.numpy.float32(np.nan), 1.0), aux

  monkeypatch.setitem(objectives.OBJECTIVES, "reconstruction", Unreliable)


NOISY = {"name": "denoising", "corruption": "masking", "level": 0.3, "alpha": 1.0, "beta": 0.5}
ELBO = {"name": "elbo", "noise": 1.0, "beta": 1.0, "free_bits": 0.5}
SPARSE = {"name": "sparse", "penalty": "kl", "weight": 1.0, "target": 0.1}

# one config of each model family, and of each objective that depends on the whole batch
FAMILIES = {
  "dense": ({"latent": 4, "widths": (16,)}, NOISY),
  "vae": ({"latent": 4, "widths": (16,)}, ELBO),
  "sparse": ({"latent": 8, "widths": (16,), "bottleneck": "sigmoid"}, SPARSE),
  "cnn": ({"latent": 4, "channels": (3, 4), "decoder_kernels": (3, 2)}, NOISY),
  "unet": ({"latent": 4, "channels": (4, 8)}, NOISY),
  "attention": ({"latent": 4, "patch": 4, "width": 8, "hidden": 8, "heads": 2, "queries": 2, "memory": 2}, NOISY),
  "sequence": ({"latent": 4}, NOISY),
  "vqvae": ({"latent": 3, "channels": (4,), "codebook_size": 8}, {"name": "reconstruction"}),
}


@pytest.fixture
def images():
  """Random uint8 images [7, 12, 10, 1]."""
  return np.random.default_rng(0).integers(0, 256, (7, 12, 10, 1), np.uint8)
