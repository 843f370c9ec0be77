"""Untrained runs with random weights for tests of exported files; nothing is compiled to make them."""

import jax
import numpy as np
from conftest import config_of

from ae_jax import models
from ae_jax.trained_run import Run


def made(name="dense", shape=(6, 5, 1), changes=(("latent", 3), ("widths", (8,))), value_range="unit", **options):
  """Returns a run of configs/NAME.py with random weights; `options` are those of `models.build` and of `Run`."""
  config = config_of(name, "digits")
  config.data.range = value_range
  config.model.update(dict(changes))
  built = {key: options.pop(key) for key in ("labels", "groups", "masked") if key in options}
  model = models.build(shape=shape, value_range=value_range, **built, **config.model)
  generator = np.random.default_rng(0)
  abstract = model.abstract_variables()
  scale = lambda shape: np.prod(shape[:-1]) ** -0.5 if len(shape) > 1 else 0.3
  draw = lambda leaf: np.float32(scale(leaf.shape) * generator.normal(size=leaf.shape))
  params = jax.tree.map(draw, abstract.params)
  state = jax.tree.map(lambda leaf: generator.uniform(0.5, 1, leaf.shape).astype(np.float32), abstract.state)
  return Run(models.Variables(params, state), config, {}, [], model, 0, **options)
