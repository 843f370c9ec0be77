"""Runs that exceed the memory are refused before anything is computed; runs that fit are not."""

import math

import jax
import pytest
from conftest import config_of

from ae_jax import errors, models, objectives
from ae_jax.data import placements
from ae_jax.models import cost, memory
from ae_jax.training import optimizers

pytestmark = pytest.mark.runs_optax


def parts_of(name="dense", **options):
  config = config_of(name, "digits")
  model = models.build(**{"shape": (8, 8, 1), **config.model, **options})
  objective = objectives.build(model=model, value_range="unit", **config.objective)
  return model, objective, optimizers.optimizer_factory(**config.optimizer, epochs=1, steps_per_epoch=1)()


def test_check_counts_parameters_gradient_and_both_adam_moments(monkeypatch):
  model, objective, optimizer = parts_of()
  moments = 16 * model.parameter_count()
  monkeypatch.setattr(memory, "available_bytes", lambda: moments)  # without the counters of Adam and the schedule
  with pytest.raises(
    errors.UserError, match=r"^config\.model: parameters, gradient and optimizer state need .* smaller$"
  ):
    memory.check_step(model, objective, optimizer, 1)
  monkeypatch.setattr(memory, "available_bytes", lambda: moments + 8)
  with pytest.raises(errors.UserError, match=r"^config\.batch_size: processing 1 examples at a time needs about"):
    memory.check_step(model, objective, optimizer, 1)


@pytest.mark.parametrize("shards", [1, 4])
def test_only_the_optimizer_state_is_divided_by_the_shards(monkeypatch, shards):
  model, objective, optimizer = parts_of()
  numbers = model.parameter_count()
  needed = 8 * numbers + (8 * numbers + 8) // shards  # parameters and gradient; two moments and two counters
  monkeypatch.setattr(memory, "available_bytes", lambda: needed - 1)
  with pytest.raises(errors.UserError, match=r"^config\.model: parameters, gradient and optimizer state need"):
    memory.check_step(model, objective, optimizer, 1, shards)
  monkeypatch.setattr(memory, "available_bytes", lambda: needed)
  with pytest.raises(errors.UserError, match=r"^config\.batch_size"):
    memory.check_step(model, objective, optimizer, 1, shards)


@pytest.mark.parametrize(("host", "device", "least"), [(800, 1000, 800), (800, 600, 600), (800, math.inf, 800)])
def test_available_memory_is_the_minimum_of_host_and_device(monkeypatch, host, device, least):
  monkeypatch.setattr(placements, "host_bytes", lambda: host)
  monkeypatch.setattr(placements, "device_bytes", lambda: device)
  assert memory.available_bytes() == least


def test_cpu_devices_share_half_the_host_and_an_accelerator_has_its_own_memory(monkeypatch):
  monkeypatch.setattr(placements, "host_bytes", lambda: 800)
  monkeypatch.setattr(placements, "device_bytes", lambda: 1000)
  assert [memory.device_share(devices) for devices in (1, 2, 8)] == [400, 200, 50]
  monkeypatch.setattr(jax, "default_backend", lambda: "cuda")
  assert [memory.device_share(devices) for devices in (1, 8)] == [900, 900]


def test_activation_memory_grows_with_the_rows(monkeypatch):
  model, objective, optimizer = parts_of("cnn")
  step = cost.step_cost(model, objective, optimizer, 8, platform=jax.default_backend())
  needed = step.state_bytes + step.gradient_bytes + 8 * step.activation_bytes
  monkeypatch.setattr(memory, "available_bytes", lambda: needed)
  memory.check_step(model, objective, optimizer, 8)
  with pytest.raises(errors.UserError, match=r"^config\.batch_size: processing 9 examples .* model smaller$"):
    memory.check_step(model, objective, optimizer, 9)


def test_large_images_can_be_made_smaller(monkeypatch):
  large = parts_of("dense", shape=(512, 1024, 1))
  monkeypatch.setattr(memory, "_activation_bytes", lambda *_: 2**60)
  with pytest.raises(errors.UserError, match=r"config\.data\.size=128,256, or cut .* config\.data\.patch=256$"):
    memory.check_step(*large, 1)


@pytest.mark.parametrize("options", [{"latent": 2**31 - 1}, {"widths": (2**31 - 1,) * 100}, {"widths": (2**18, 2**18)}])
def test_terabytes_are_refused_before_allocation(options):
  with pytest.raises(errors.UserError, match=r"^config\.model: [\d,]+ parameters need"):
    memory.check_step(*parts_of(**options), 64)


def test_default_configs_fit_this_device():
  assert 2**28 < memory.available_bytes() < 2**50
  for name in ("dense", "cnn", "unet", "attention", "vae", "contractive"):
    memory.check_step(*parts_of(name), 64)
  jax.clear_caches()


FULL = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 844800 bytes")
SMALLER = "reduce config.batch_size, raise config.accumulate, set config.remat=True, or make the model smaller"


def sentence_of(error):
  with pytest.raises(errors.UserError) as refusal, memory.explain_out_of_memory():
    raise error
  return str(refusal.value)


def test_out_of_memory_becomes_a_user_error_and_other_errors_pass_through():
  where = "config.batch_size, config.model: the device is out of memory"
  assert sentence_of(FULL) == f"{where} (RESOURCE_EXHAUSTED: Out of memory allocating 844800 bytes); {SMALLER}"
  for other in (jax.errors.JaxRuntimeError("INTERNAL: something else"), RuntimeError("something else")):
    with pytest.raises(type(other), match="something else"), memory.explain_out_of_memory():
      raise other


@pytest.mark.parametrize("platform", ["gpu", "cuda", "rocm"])
def test_out_of_memory_on_a_gpu_names_its_memory_other_processes_and_the_flag(monkeypatch, platform):
  monkeypatch.setattr(jax, "default_backend", lambda: platform)
  monkeypatch.setattr(placements, "device_bytes", lambda: 3 * 2**29)
  for error in (FULL, jax.errors.JaxRuntimeError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory")):
    assert sentence_of(error).endswith(
      f"{SMALLER}. This process can use 1.5 GiB of the GPU: end other processes on it, which nvidia-smi lists, or "
      "change --gpu_memory (in Python, XLA_CLIENT_MEM_FRACTION)"
    )


def test_a_gpu_that_is_full_when_jax_starts_is_explained(monkeypatch):
  def start():
    raise RuntimeError("Unable to initialize backend 'cuda': RESOURCE_EXHAUSTED")

  monkeypatch.setattr(jax, "default_backend", start)
  with pytest.raises(errors.UserError, match=r"can use no memory of the GPU: end other processes"):
    memory.explain_out_of_memory()(start)()


@pytest.mark.parametrize(
  ("name", "shape", "rows"),
  [
    ("cnn", (64, 64, 3), 32),
    ("unet", (64, 64, 3), 16),
    ("vqvae", (256, 256, 3), 4),
    ("attention", (28, 28, 1), 256),
    ("cnn", (140, 2), 936),
    ("dense", (28, 28, 1), None),
  ],
)
def test_fewer_rows_of_larger_examples_fit_the_cache(name, shape, rows):
  assert models.rows_in_cache(name, shape) == rows


@pytest.mark.parametrize(
  ("rows", "microbatches"), [(1, 1), (64, 1), (65, 1), (100, 2), (128, 2), (250, 5), (251, 1), (256, 4)]
)
def test_microbatches_fit_the_cache_on_cpu(rows, microbatches):
  assert memory.microbatches(rows, in_cache=64) == microbatches
  assert rows % microbatches == 0
  assert memory.microbatches(rows, in_cache=None) == 1
  assert memory.microbatches(4 * rows, in_cache=None, least=4) == 4
