"""Declarations of evaluators: misspelt, invalid and duplicate names are refused."""

import difflib
import functools
import importlib
import inspect
import pkgutil
import re
import sys
import types

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from conftest import FAMILIES, ROOT, config_of

from ae_jax import data, errors, evaluators, models
from ae_jax.config import keys
from ae_jax.evaluators import EVALUATORS, Analysis, Evaluator, base, figures, reconstruction
from ae_jax.evaluators.context import EvalContext
from ae_jax.report import run_report, tables, tiles

pytestmark = pytest.mark.quick_compile

ROLES = (
  "per_example",
  "metrics",
  "baselines",
  "analyze",
  "check",
)  # a public function with a similar name should be declared
NOTHING = lambda *arguments: ()


@pytest.fixture
def unchecked():
  """Turns off the runtime type check of the tests, so that the library's own checks of types are reached."""
  jaxtyping.config.update("jaxtyping_disable", True)
  yield
  jaxtyping.config.update("jaxtyping_disable", False)


def undeclared(module, evaluator):
  """Returns the undeclared public functions of a module whose names are close to that of a role."""
  functions = [
    evaluator.per_example,
    evaluator.metrics,
    evaluator.baselines,
    *(part.function for part in evaluator.analyses),
  ]
  return [
    name
    for name, function in vars(module).items()
    if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    if function not in functions and difflib.get_close_matches(name, ROLES, cutoff=0.75)
  ]


def module_of(name):
  return sys.modules[f"ae_jax.evaluators.{name}"]


@pytest.mark.parametrize("name", EVALUATORS)
def test_functions_named_like_a_role_are_declared(name):
  assert EVALUATORS[name] is module_of(name).EVALUATOR
  assert not undeclared(module_of(name), EVALUATORS[name])


@pytest.mark.parametrize("name", ["analyse", "analyze", "metric", "baseline", "per_exemple", "per_examples", "check"])
def test_undeclared_finds_misspelt_roles(name):
  module = types.ModuleType("made")
  for function_name in (name, "fit", "_metric"):
    function = types.FunctionType(NOTHING.__code__, {})
    function.__module__ = "made"
    setattr(module, function_name, function)
  assert undeclared(module, Evaluator("made", baselines=NOTHING)) == [name]
  assert not undeclared(module, Evaluator("made", baselines=getattr(module, name)))


def test_every_module_that_declares_an_evaluator_is_registered():
  names = [info.name for info in pkgutil.iter_modules(evaluators.__path__)]
  declaring = [name for name in names if hasattr(importlib.import_module(f"ae_jax.evaluators.{name}"), "EVALUATOR")]
  assert declaring == sorted(EVALUATORS)
  assert all(EVALUATORS[name].name == name for name in declaring)


def test_every_need_is_used():
  used = {
    need
    for each in EVALUATORS.values()
    for need in (*each.needs, *each.skipped_without, *sum((s.needs for s in each.analyses), ()))
  }
  assert used == set(base.NEEDS)


def test_a_misspelt_field_is_refused():
  with pytest.raises(TypeError, match="analysses"):
    Evaluator("made", analysses=(Analysis(NOTHING),))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({}, "has no function"),
    ({"per_example": NOTHING}, "its values would be dropped; declare metrics"),
    ({"metrics": ["mean"]}, r"metrics=\['mean'\] must be a function"),
    ({"analyses": NOTHING}, "must be a tuple of Analysis"),
    ({"analyses": (NOTHING,)}, "must be a tuple of Analysis"),
    ({"baselines": NOTHING, "needs": "labels"}, r"needs='labels' must be a tuple"),
    (
      {"baselines": NOTHING, "needs": ("label",)},
      "the requirement 'label' in `needs` is unknown; did you mean 'labels'",
    ),
    ({"baselines": NOTHING, "name": "two words"}, "name='two words'"),
    ({"analyses": 2 * (Analysis(NOTHING, needs=("labels",)),)}, "two analyses with `needs` have remark='remark'"),
  ],
)
def test_an_invalid_declaration_is_refused(unchecked, options, message):
  with pytest.raises((TypeError, ValueError), match=message):
    Evaluator(**{"name": "made", **options})


def test_an_analysis_that_is_not_a_function_or_has_an_unknown_need_is_refused(unchecked):
  with pytest.raises(TypeError, match="must be a function"):
    Analysis("analyze")
  with pytest.raises(ValueError, match="did you mean 'posterior'"):
    Analysis(NOTHING, needs=("posteror",))


def test_only_an_evaluator_with_a_new_name_is_registered(unchecked, monkeypatch):
  monkeypatch.setattr(evaluators, "EVALUATORS", dict(EVALUATORS))
  with pytest.raises(TypeError, match="is not an Evaluator; pass the EVALUATOR"):
    evaluators.register(reconstruction)
  with pytest.raises(ValueError, match="another evaluator has the name 'probe'"):
    evaluators.register(Evaluator("probe", baselines=NOTHING))
  evaluator = Evaluator("made", baselines=NOTHING)
  evaluators.register(evaluator)
  assert evaluators.build(("made",), None, dataset_of()) == (reconstruction.EVALUATOR, evaluator)


def model_of(bottleneck):
  config = config_of("dense", "digits")
  config.model.update({**FAMILIES["dense"][0], "bottleneck": bottleneck})
  return models.build(shape=(4, 4, 1), **config.model)


def dataset_of(value_range="unit", labels=(0, 1, 1), train_labels=(0, 0), factors=None, one_class=None, column=""):
  """Returns a data set of two training and three test examples."""
  train, test = (np.full((count, 4, 4, 1), 0.5, np.float32) for count in (2, 3))
  labels, train_labels = (None if each is None else np.array(each) for each in (labels, train_labels))
  values = np.ones((2, 4, 4, 1), bool), np.ones((3, 4, 4, 1), bool)
  splits = zip(("train", "test"), (values if column == "mask" else (train, test)), strict=True)
  columns = {split: {column: rows} for split, rows in splits} if column else {}
  known = {} if factors is None else {"train_factors": np.zeros((2, 1), int), "test_factors": np.zeros((3, 1), int)}
  return data.Dataset("made", value_range, train, test, train_labels, labels, one_class, columns=columns, **known)


CASES = {  # need -> options of `dataset_of`, or a bottleneck: first those that meet it, then those that do not
  "anomalies": ({"one_class": 0}, {"one_class": 0, "labels": (0, 0, 0)}),
  "complete": ({}, {"column": "mask"}),
  "discrete_code": ("fsq5", "identity"),
  "factors": ({"factors": 1}, {}),
  "labels": ({}, {"labels": (0.0, 1.0, 1.0)}),
  "no_targets": ({}, {"column": "target"}),
  "normal_examples": ({"one_class": 0}, {"one_class": 0, "labels": (1, 1, 1)}),
  "one_class": ({"one_class": 0}, {}),
  "posterior": ("gaussian", "identity"),
  "unit_range": ({}, {"value_range": "real"}),
}


@pytest.mark.parametrize("column", ["mask", "target"])
def test_a_skipped_evaluator_leaves_only_a_remark(column):
  model, dataset = model_of("identity"), dataset_of(column=column)
  names = ("denoising", "robustness", "generation", "logistic_pca")
  _, *skipped = evaluators.build(names, model, dataset)
  for name, evaluator in zip(names, skipped, strict=True):
    assert not any((evaluator.per_example, evaluator.metrics, evaluator.baselines))
    ((key, remark),) = evaluator.analyze(EvalContext(types.SimpleNamespace(model=model), dataset))
    assert key == "remark"
    assert remark.startswith(f"skipped: '{name}' needs ")
  assert evaluators.build(names, model, dataset_of())[1:] == tuple(EVALUATORS[name] for name in names)


def model_and_dataset(case):
  options = ({}, case) if isinstance(case, str) else (case, "identity")
  return model_of(options[1]), dataset_of(**options[0])


@pytest.mark.parametrize("need", base.NEEDS)
def test_an_unmet_need_of_an_evaluator_is_refused_and_that_of_an_analysis_becomes_a_remark(need):
  evaluator = Evaluator("made", needs=(need,), baselines=NOTHING)
  needy = Analysis(lambda context: [("result", 1)], needs=(need,), remark="why")
  with_analyses = Evaluator("made", analyses=(needy, Analysis(lambda context: [("other", 2)])))
  for case, met in zip(CASES[need], (True, False), strict=True):
    model, dataset = model_and_dataset(case)
    results = dict(with_analyses.analyze(EvalContext(types.SimpleNamespace(model=model), dataset)))
    with_analyses.check(model, dataset)
    if met:
      evaluator.check(model, dataset)
      assert results == {"result": 1, "other": 2}
      continue
    with pytest.raises(errors.UserError) as refusal:
      evaluator.check(model, dataset)
    assert str(refusal.value) == f"config.evaluators: {results['why']}"
    assert results["why"].startswith("'made' needs ")
    assert "{" not in results["why"]
    assert results["other"] == 2


@pytest.mark.parametrize("array", ["labels", "train_labels"])
def test_the_labels_need_takes_training_and_test_labels(array):
  need = base.NEEDS["labels"]
  assert need.is_met(None, dataset_of())
  assert not need.is_met(None, dataset_of(**{array: None}))


def test_evaluators_have_distinct_metric_and_baseline_names():
  dataset, keys, metrics = dataset_of(one_class=0, factors=1), jax.random.split(jax.random.key(0), 3), {}
  batch = {"x": jnp.asarray(dataset.test)}
  for bottleneck, other in (("gaussian", "codebook"), ("fsq5", "posterior")):  # no model supports both
    model = model_of(bottleneck)
    chosen = evaluators.build([name for name in EVALUATORS if name != other], model, dataset)
    statistics = evaluators.statistics(chosen, "unit", dataset.span)
    measure = functools.partial(statistics, model)
    shapes = jax.eval_shape(measure, model.abstract_variables(), batch, keys)
    values = {name: np.full((1, *shape.shape), 0.5) for name, shape in shapes.items()}
    metrics |= dict(evaluators.metrics(chosen, 0.0, values, np.ones((1, 3)), dataset))
    baselines = dict(evaluators.baselines(chosen, dataset, model.code))
  paired = dataset_of(one_class=0, column="target")
  baselines |= dict(evaluators.baselines((reconstruction.EVALUATOR,), paired, model.code))
  assert not metrics.keys() & baselines.keys()
  assert {f"test/{name}" for name in reconstruction._BASELINES} <= baselines.keys()
  assert all(any(name.startswith(prefix) for name in baselines) for prefix in tables._BASELINES)
  tile_names = {name for tile in tiles._TILES for name in (tile[0], tile[3]) if name.startswith("test/")}
  assert tile_names <= metrics.keys() | baselines.keys()


def test_a_result_name_that_occurs_twice_is_refused():
  one, two = (
    Evaluator(
      name,
      per_example=lambda *arguments: {"value": jnp.ones(1)},
      metrics=lambda values, dataset: [("test/value", 1.0)],
      baselines=lambda dataset, latent: [("test/baseline", 1.0)],
      analyses=(Analysis(lambda context: [("value", 1)]), Analysis(lambda context: [("value", 2)])),
    )
    for name in ("one", "two")
  )
  context = EvalContext(types.SimpleNamespace(model=None), dataset_of())
  vars(context).update(test_codes=np.ones((1, 1)), train_codes=np.ones((1, 1)))
  calls = [
    lambda: evaluators.statistics([one, two], "unit", None)(None, None, None, None),
    lambda: dict(evaluators.metrics([one, two], 0.0, {}, np.ones((1, 1)), dataset_of())),
    lambda: dict(evaluators.baselines([one, two], dataset_of(), models.CodeSpec((2,)))),
  ]
  for call in calls:
    with pytest.raises(ValueError, match=r"evaluator 'two': another result has the name '.*'"):
      call()
  with pytest.raises(ValueError, match="evaluator 'one': another result has the name 'value'"):
    dict(evaluators.analyses([one], context))


def test_the_report_has_a_section_for_every_evaluator_and_no_other():
  members = [member for section in run_report._SECTIONS.values() for member in section]
  assert sorted(each for each in members if isinstance(each, str)) == sorted(EVALUATORS)
  assert {each for each in members if not isinstance(each, str)} <= set(figures.KINDS.values())


def test_the_config_lists_the_registered_evaluators():
  text = (ROOT / "ae_jax" / "config" / "keys.py").read_text()
  lists = re.search(r"At each evaluation: (.*?)\.\s.*?Once on the trained model:(.*?)\.\n", text, re.DOTALL).groups()
  at_each, once = (set(re.findall(r"\w+", part)) for part in lists)
  others = [each for each in EVALUATORS.values() if each is not reconstruction.EVALUATOR]
  assert at_each == {each.name for each in others if each.metrics}
  assert once == {each.name for each in others if each.analyses}
  assert set(keys.ANALYSES) <= once
