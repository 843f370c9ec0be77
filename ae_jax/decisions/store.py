"""Reads and writes threshold.json and reference.npz in a run folder.

Both files can be read without this package. They contain a digest of the weights for which they were written, and are
not used with other weights.
"""

import hashlib
import json
import pathlib

import jax
import numpy as np

from ae_jax import errors, models
from ae_jax.decisions import scores, thresholds
from ae_jax.system import atomic

THRESHOLD, REFERENCE = "threshold.json", "reference.npz"
_DIGITS = 16  # number of hexadecimal digits of a SHA-256 that are kept


def digest(arrays: models.Variables | scores.Reference) -> str:
  """Returns the first `_DIGITS` digits of the SHA-256 of all arrays."""
  found = hashlib.sha256()
  for leaf in jax.tree.leaves(tuple(arrays)):
    found.update(np.ascontiguousarray(leaf).view(np.uint8).data)
  return found.hexdigest()[:_DIGITS]


def write_threshold(workdir: pathlib.Path, threshold: thresholds.Threshold) -> None:
  """Writes threshold.json into a run folder."""
  with errors.convert_os_errors(workdir / THRESHOLD):
    atomic.write_text(workdir / THRESHOLD, json.dumps(threshold.as_json(), indent=2) + "\n")


def read_threshold(workdir: pathlib.Path, weights: str | None = None) -> thresholds.Threshold | None:
  """Reads the threshold in a run folder; returns None if there is none.

  Args:
    workdir: The run folder.
    weights: `digest` of the weights to which the threshold must belong; None accepts any weights.

  Raises:
    UserError: The file is damaged, or belongs to other weights.
  """
  file = workdir / THRESHOLD
  if not file.exists():
    return None
  with errors.convert_errors(f"{file}: cannot be read"):
    stored = json.loads(file.read_text(encoding="utf-8"))
  found = thresholds.from_json(stored if isinstance(stored, dict) else {}, str(file))
  if weights is not None and found.weights != weights:
    raise errors.UserError(
      f"{file}: belongs to the weights of step {found.step}, not to the loaded weights; load that checkpoint, or set "
      "the threshold again"
    )
  if found.kind not in scores.KINDS:
    raise errors.UserError(
      f"{file}: the kind {errors.format_value(found.kind)} is not a kind of score; set the threshold again with one of "
      f"{', '.join(scores.KINDS)}"
    )
  return found


def write_reference(workdir: pathlib.Path, reference: scores.Reference, weights: str) -> None:
  """Writes reference.npz into a run folder; `weights` is the digest of the weights of the run."""
  file = workdir / REFERENCE
  with errors.convert_os_errors(file), atomic.replace(file) as part, part.open("wb") as stream:
    np.savez(stream, weights=np.array(weights), **reference._asdict())


def read_reference(workdir: pathlib.Path, weights: str) -> scores.Reference | None:
  """Reads the reference statistics in a run folder; None if there are none, or if they belong to other weights."""
  file = workdir / REFERENCE
  if not file.exists():
    return None
  with errors.convert_errors(f"{file}: cannot be read"), np.load(file, allow_pickle=False) as stored:
    if str(stored["weights"]) != weights:
      return None
    return scores.Reference(*(stored[name] for name in scores.Reference._fields))
