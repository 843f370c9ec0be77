"""Evaluation contexts with random weights and made data, and fakes of the library's classes."""

import types

import jax
import numpy as np
from conftest import FAMILIES, config_of

from ae_jax import api, data, models
from ae_jax.evaluators import context as contexts
from ae_jax.evaluators import figures, generation


def images(count, seed=0, shape=(4, 4, 1)):
  return np.random.default_rng(seed).uniform(size=(count, *shape)).astype(np.float32)


def context_of(train, test, name="dense", labels=True, one_class=None, value_range="unit", **options):
  """Returns a context whose model has random weights; the labels are 0, 1, 2, 0, ..."""
  config = config_of(name, "digits")
  config.data.range = value_range
  config.model.update({**FAMILIES[name][0], **options})
  labels_of = (np.arange(len(split)) % 3 if labels else None for split in (train, test))
  dataset = data.Dataset("made", value_range, train, test, *labels_of, one_class)
  model = models.build(shape=dataset.shape, **config.model)
  generator = np.random.default_rng(0)
  normal = lambda leaf: generator.normal(size=leaf.shape).astype(np.float32) / leaf.shape[0] ** 0.5
  variables = jax.tree.map(normal, model.abstract_variables())
  return contexts.EvalContext(api.Run(variables, config, {}, [], model, 0), dataset)


def fake(kind, **attributes):
  """Returns an instance of a subclass of `kind` whose attributes are these; no constructor is called."""
  declared = {name: staticmethod(value) if callable(value) else value for name, value in attributes.items()}
  return object.__new__(type(f"Fake{kind.__name__}", (kind,), declared))


def fake_run(model, apply, seed=0, **attributes):
  """Returns a run of a fake model, with the functions of `apply` (method, array, given)."""
  config, variables = types.SimpleNamespace(seed=seed), models.Variables({})
  return fake(api.Run, **{"config": config, "variables": variables, "model": model, "apply": apply, **attributes})


def fake_model(latent=2, **others):
  """Returns what analyses need of a model whose code is a vector of real numbers, without columns or skips."""
  declared = {"code": models.CodeSpec((latent,)), "columns": (), "labels": ()}
  declared |= {"has_posterior": False, "has_skips": False}
  return fake(models.Model, **{**declared, **others})


def analyze(context, analyze=generation.analyze):
  results = list(analyze(context))
  assert len(dict(results)) == len(results)
  for name, value in results:
    assert isinstance(
      value, int | float | str | figures.ExampleRows | figures.Gallery | figures.Explorer | figures.Lines
    )
    assert isinstance(value, int | float | str) or "/" not in name
  return dict(results)
