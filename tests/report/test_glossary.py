"""Definitions of metrics in a report."""

import made_runs

from ae_jax.evaluators import results
from ae_jax.report import glossary, run_report, tables


def test_only_the_metrics_of_the_run_are_defined_and_equal_names_have_their_evaluator():
  names = ["test/squared_error", "latent/shuffle_ratio", "robustness/squared_error/shift_1", "unheard/of"]
  block = glossary.block([*names, "generation/precision/mixture", "anomaly/precision"])
  metrics = [metric for metric, _ in block["lines"]]
  assert metrics == ["squared error", "shuffle ratio", "generation / precision", "anomaly / precision"]
  assert len({definition for _, definition in block["lines"]}) == 4


def test_a_report_has_the_definitions_of_its_metrics_in_words_of_its_tables(tmp_path):
  folder = made_runs.make(tmp_path / "a", found=[("latent/shuffle_ratio", 2.0)])
  assert results.read(folder).values == {"latent/shuffle_ratio": 2.0}
  run_report.write(folder)
  text = (folder / "report.html").read_text()
  assert "What these metrics mean" in text
  assert text.count(tables.readable("shuffle_ratio")) == 2  # value and definition
  assert "at 1, codes are not used" in text
