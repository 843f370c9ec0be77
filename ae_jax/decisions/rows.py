"""Measures examples and writes one row per example (name, score, flag and latents) to a CSV, Parquet or npz file."""

import contextlib
import importlib.util
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped

from ae_jax import errors
from ae_jax.data import empty_rows, new_files, new_labels, new_parts, several_files, table_rows
from ae_jax.decisions import scores, store, thresholds
from ae_jax.system import atomic, paths

_LATENTS = "latents"  # name of the array of latent codes in npz files
Column = Shaped[np.ndarray, " examples"]


class Rows(NamedTuple):
  """Rows of the output file, one per example."""

  columns: Mapping[str, Column]  # {column: values}: "name", "score" and, depending on the command, others
  latents: Float32[np.ndarray, "examples ..."]  # [N, *code shape]


class Choice(NamedTuple):
  """Which scores and flags are written to a file of rows."""

  kind: str  # kind of the scores
  threshold: thresholds.Threshold | None  # threshold for this kind; None: the file has no flags
  reason: str  # why the file has no flags; "" if it has flags, or if the run is on pairs, which needs no threshold


def kept_files(run: Any, path: str) -> dict[str, pathlib.Path]:
  """Returns {name for messages: path} of the files and folders to protect from overwriting; `path` is --data or ""."""
  kept = {"the reference statistics of the scores": run.workdir / store.REFERENCE}
  for key, text in {"--data": path, "config.data.path": run.config.data.path}.items():
    files = several_files.named(str(paths.local_path(key, text)), key) if text else []
    names = [key] if len(files) == 1 else [f"file {number} of {key}" for number in range(1, len(files) + 1)]
    kept |= dict(zip(names, map(pathlib.Path, files), strict=True))
  return kept


def is_same(first: pathlib.Path, second: pathlib.Path) -> bool:
  """Returns whether two paths are the same file or folder, even if they are links or spelled differently."""
  return first.resolve() == second.resolve() or (first.exists() and second.exists() and first.samefile(second))


def check(file: pathlib.Path, kept: Mapping[str, pathlib.Path]) -> None:
  """Raises UserError if rows cannot be written to a file.

  The suffix must be known, the folder must exist, the package for the format must be installed, and the file must not
  replace data.

  Args:
    file: The file to write.
    kept: Paths that must not be overwritten; see `kept_files`.
  """
  if file.suffix not in _WRITERS:
    raise errors.UserError(f"--out={file}: must end in {', '.join(_WRITERS)}")
  if not file.parent.is_dir():
    raise errors.UserError(f"--out={file}: the folder {file.parent} does not exist; create it")
  if file.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
    raise errors.UserError(f"--out={file}: Parquet files need pyarrow; run `pip install 'ae_jax[tables]'`")
  for key, source in kept.items():
    if is_same(file, source):
      raise errors.UserError(f"--out={file}: would replace {key} ({source}); write to another file")
    if file.exists() and source.is_dir() and source.resolve() in file.resolve().parents:
      raise errors.UserError(
        f"--out={file}: exists in the folder of {key} ({source}), so it may belong to the data; remove it, or write to "
        "another file"
      )


def read(run: Any, path: str, *, label: str = "", **options: str) -> new_parts.NewFiles:
  """Reads a file or folder of new examples for a run; see `new_files.read` for the options.

  Raises:
    UserError: The data have no labels, but the model of the run needs them or `label` names them; or `new_files.read`
      raises it.
  """
  section = run.config.data.to_dict()
  one_class = section["one_class"]
  normal = None if one_class is None else new_labels.name_of_class(one_class, run.class_names)
  wanted = new_parts.Wanted(run.model.shape, section["range"], run.schema, section, run.record_columns, normal)
  found = new_files.read(path, wanted, label=label, **options)
  if found.no_labels and "label" in run.model.columns:
    raise errors.UserError(f"--data={path}: has no labels, but the model of this run needs them; {found.no_labels}")
  if found.no_labels and label:
    raise errors.UserError(f"--label={label}: is not one label per example of --data={path}; {found.no_labels}")
  return found


def remarks_on_extra(run: Any, found: new_parts.NewFiles, path: str, reads_target: bool) -> list[str]:
  """Returns remarks that name the arrays of targets and masks, and say if a run on pairs gets no targets.

  Args:
    run: A `trained_run.Run`.
    found: The result of `read`.
    path: --data, for messages.
    reads_target: Whether the results depend on targets; otherwise, no remark is about them.
  """
  named = {name: array for name, array in found.extra.items() if reads_target or name != "target"}
  notes = [f"--data={path}: the {name} is the array {array}" for name, array in named.items()]
  if reads_target and _is_of_pairs(run) and "target" not in found.extra:
    notes.append(
      f"--data={path}: has no targets, so the reconstructions are compared with the examples, although the run was "
      "trained on pairs; to compare with targets, save them as `target` beside the examples `x` in an .npz file"
    )
  return notes


def _is_of_pairs(run: Any) -> bool:
  return "test/input_squared_error" in run.metrics  # a metric of runs with targets


def columns_of(run: Any, part: new_parts.Part, path: str) -> dict[str, Column]:
  """Returns the inputs of the model other than the examples, for the methods of the run: {"label": labels} or {}."""
  return {"label": labels_of(run, part, {}, path)} if "label" in run.model.columns else {}


def labels_of(run: Any, part: new_parts.Part, columns: Mapping[str, Column], path: str) -> Column:
  """Returns the labels of new examples as integers or class names of the run.

  Args:
    run: A `trained_run.Run`.
    part: The examples.
    columns: Inputs of the model, whose labels are converted already; see `columns_of`.
    path: --data, for messages.
  """
  return columns["label"] if "label" in columns else new_labels.in_run(part.labels, run.class_names, f"--data={path}")


def remarks_on(run: Any, part: new_parts.Part, path: str) -> list[str]:
  """Returns remarks on the values of a table: missing values, unknown words and empty rows; `path` is --data."""
  note = empty_rows.note_on(part.x, run.schema, part.names)
  empty = [f"--data={path}: {note}"] if note else []
  return [*table_rows.remarks_on(part.x, run.schema, f"--data={path}"), *empty]


def joined(parts: Sequence[Any]) -> Any:
  """Concatenates parts of examples, which are all arrays or all DataFrames."""
  if isinstance(parts[0], np.ndarray):
    return np.concatenate(parts)
  import pandas as pd  # takes half a second to import

  return pd.concat(parts, ignore_index=True)


def measure(
  run: Any,
  parts: Iterable[tuple[Mapping[str, Column], scores.Inputs]],
  choice: Choice,
) -> Rows:
  """Computes the scores, flags and latents of examples.

  Args:
    run: A `trained_run.Run`.
    parts: Iterable of (columns, inputs): `columns` is copied to the output rows, `inputs` are scored.
    choice: Which score to compute, and the threshold above which an example is flagged.
  """
  kind, threshold, _ = choice
  collected: dict[str, list[Any]] = {}
  for known, inputs in parts:
    found = scores.of_kind(run, inputs, kind, lambda: run.reference)
    measured = {**known, "score": found}
    measured |= {} if threshold is None else {"flag": thresholds.flag(found, threshold.value)}
    if run.schema is not None and run.schema.named:
      measured["largest_error_column"] = _largest_error(run, inputs)
    measured |= {_LATENTS: run.apply("encode", inputs.x, inputs.columns)}
    for name, values in measured.items():
      collected.setdefault(name, []).append(values)
  joined = {name: np.concatenate(values) for name, values in collected.items()}
  latents = joined.pop(_LATENTS)
  return Rows(joined, latents)


def _largest_error(run: Any, inputs: scores.Inputs) -> Column:
  """Returns the column of the table with the largest squared error in each row, in the units of the model; "" for 0."""
  squares = run.schema.by_column(scores.squares(run, inputs).astype(np.float64))
  names = np.array([column.name for column in run.schema.columns])
  return np.where(squares.max(1) > 0, names[squares.argmax(1)], "")


def choose(run: Any, score: str, has_target: bool = False) -> Choice:
  """Returns the kind of the scores, and the threshold of the run if it has this kind and can be used.

  Args:
    run: A `trained_run.Run`.
    score: The kind. "" means the kind of the stored threshold (even if this threshold belongs to other weights), or
      "reconstruction" if there is none.
    has_target: Whether the examples have targets.
  """
  threshold, fault = thresholds.of_run(run, has_target)
  stored = threshold
  if stored is None and run.workdir is not None:
    with contextlib.suppress(errors.UserError):  # a damaged threshold file; `fault` already contains the message
      stored = store.read_threshold(run.workdir)
  kind = score or ("reconstruction" if stored is None else stored.kind)
  scores.choose(kind)
  if threshold is not None and threshold.kind == kind:
    return Choice(kind, threshold, "")
  advice = f"the run has no threshold of {kind} scores; run.set_threshold sets one"
  return Choice(kind, None, fault or ("" if stored is None and _is_of_pairs(run) else advice))


def summary(file: pathlib.Path, rows: Rows, choice: Choice) -> list[str]:
  """Returns lines about a file of rows: the number of rows, the range of the scores, and the number of flagged rows."""
  found, (kind, threshold, reason) = rows.columns["score"], choice
  low, middle, high = np.quantile(found, (0, 0.5, 1))
  lines = [f"{file}: {len(found):,} rows; {kind} scores from {low:.4g} to {high:.4g}, median {middle:.4g}"]
  if threshold is None:
    return [*lines, f"no column flag: {reason}"] if reason else lines
  return [*lines, f"flagged: {np.count_nonzero(rows.columns['flag']):,}, with a {threshold.in_words()}"]


def write(file: pathlib.Path, rows: Rows) -> None:
  """Writes rows to a file; its suffix determines the format (see `check`).

  CSV and Parquet files have the columns `z0`, `z1`, ..., one for each latent. An npz archive has an array `latents`
  [N, *code shape].
  """
  with errors.convert_os_errors(f"--out={file}"), atomic.replace(file) as part:
    _WRITERS[file.suffix](part, rows)


def _frame(rows: Rows) -> Any:
  import pandas as pd  # takes half a second to import

  vectors = rows.latents.reshape(len(rows.latents), -1)
  latents = pd.DataFrame(vectors, columns=[f"z{number}" for number in range(vectors.shape[1])])
  return pd.concat([pd.DataFrame(dict(rows.columns)), latents], axis=1)


def _write_npz(part: pathlib.Path, rows: Rows) -> None:
  with part.open("wb") as file:
    np.savez(file, **{_LATENTS: rows.latents}, **rows.columns)


_WRITERS: dict[str, Callable[[pathlib.Path, Rows], None]] = {
  ".csv": lambda part, rows: _frame(rows).to_csv(part, index=False),
  ".parquet": lambda part, rows: _frame(rows).to_parquet(part, index=False),
  ".npz": _write_npz,
}
