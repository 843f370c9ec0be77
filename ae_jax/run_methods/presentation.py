"""Methods of `trained_run.Run` that show a run: history, summary, report and display in notebooks."""

import base64
import html
import math
import pathlib
from typing import Any

from ae_jax import errors
from ae_jax.data import remarks, standardisation

_FIGURES = ("curves", "reconstructions", "latent_map")  # figures that notebooks show, if they exist
_METRICS = {"test/squared_error": "squared error per test example", "test/pca_squared_error": "of PCA"}


def history(run: Any) -> Any:
  """Returns the records of metrics.jsonl as a DataFrame with the columns step and epoch, and a column per metric."""
  import pandas as pd  # takes half a second to import

  return pd.DataFrame(run.records)


def report(run: Any) -> pathlib.Path:
  """Returns the path of the report, an HTML page.

  Raises:
    UserError: There is no report, for example because the run folder was deleted.
  """
  page = None if run.workdir is None else run.workdir / "report.html"
  if page is None or not page.exists():
    raise errors.UserError(
      f"report: {page or 'the run folder'} does not exist; pass workdir= to ae_jax.fit, which otherwise deletes the "
      "report together with the Run"
    )
  return page


def summary(run: Any) -> str:
  """Returns a few lines of text about the model, the data, the training and the test error."""
  config, model = run.config, run.model
  examples = remarks.examples_of(model.shape, len(run.schema.columns) if run.schema else 0)
  lines = [
    f"{config.model.name} autoencoder of {config.data.name}, {examples}",
    f"latent code: {' x '.join(map(str, model.code.shape))}; {model.parameter_count():,} parameters",
  ]
  epochs = run.metrics.get("epoch", math.nan)
  lines.append(f"trained for {epochs:g} epochs, {run.step:,} steps")
  if all(name in run.metrics for name in _METRICS):
    unit = standardisation.squared_unit(config.data.scale, run.schema)
    errors_of = "; ".join(f"{words}: {run.metrics[name]:.4g}" for name, words in _METRICS.items())
    lines.append(f"{errors_of}, {unit}" if unit else errors_of)
  return "\n".join(lines if run.workdir is None else [*lines, f"run folder: {run.workdir}"])


def representation(run: Any) -> str:
  """Returns the summary in one line, for `repr`; the default repr would print all arrays."""
  return f"<Run: {'; '.join(summary(run).splitlines())}>"


def in_notebook(run: Any) -> str:
  """Returns the summary and the main figures as HTML."""
  folder = pathlib.Path() if run.workdir is None else run.workdir / "pictures"
  files = [folder / f"{name}.png" for name in _FIGURES if run.workdir is not None]
  pictures = [
    f'<img style="max-width: 100%" src="data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}">'
    for file in files
    if file.exists()
  ]
  return "\n".join([f"<pre>{html.escape(summary(run))}</pre>", *pictures])
