"""Upload of runs to the Hugging Face hub with a model card, and download. Only here is `huggingface_hub` imported."""

import importlib
import json
import pathlib
import re
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

from ae_jax import errors
from ae_jax.data import remarks
from ae_jax.exporting import places
from ae_jax.runs import checkpoints, run_folder

SCHEME = "hf://"
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_FIGURES = {
  "reconstructions": "Test examples and their reconstructions",
  "samples": "Decoded draws from the prior",
  "latent_map": "Latents of test examples",
  "curves": "Errors during training",
}
_METRICS = {
  "test/squared_error": "squared error per test example",
  "test/pca_squared_error": "squared error of PCA with as many latents",
  "test/psnr": "PSNR in dB",
  "test/nats": "negative log-likelihood per test example in nats",
  "probe/accuracy": "accuracy of a linear probe on the latents",
  "anomaly/auroc": "AUROC of the anomaly score",
}
_INTENDED_USE = (
  "Encoding, reconstructing and scoring of examples like the training data. Anomaly scores are large for examples that "
  "differ from them. The model was not evaluated on other data."
)


def push_to_hub(
  run: Any,
  repo: str,
  *,
  private: bool = True,
  token: str | None = None,
  message: str = "Upload a run of ae_jax",
  intended_use: str = _INTENDED_USE,
  license: str = "",
  figures: bool = True,
) -> str:
  """Uploads a run to the Hugging Face hub with a model card, and returns the address of the repository.

  The checkpoints, the metrics, config.json and a model card (README.md) are uploaded. The command line, the folders of
  the data and the notes about the data are removed from config.json. The model card describes the data, the metrics
  and the main figures of the run.

  Example:
    >>> run.push_to_hub("user/digits-autoencoder")
    >>> run = ae_jax.load("hf://user/digits-autoencoder")

  Args:
    run: The run; it must have a run folder.
    repo: Name of the repository, "user/name". It is created if it does not exist.
    private: Whether a new repository is private.
    token: Access token; None for the stored one (`hf auth login`).
    message: Message of the commit.
    intended_use: Text of the section "Intended use" of the model card.
    license: License of the model in the model card, such as "apache-2.0"; "" for none.
    figures: Whether to upload figures, which show test examples.

  Raises:
    UserError: `huggingface_hub` is missing, the name is invalid or contains a revision, the run has no folder, a file
      or the checkpoint of the run is missing, or the upload failed.
  """
  repo, revision = _parsed(repo)
  if revision is not None:
    raise errors.UserError(
      f"{SCHEME}{repo}@{revision}: cannot upload to a revision; pass {repo!r} to upload to the default branch, then "
      "add a tag on the hub"
    )
  if run.workdir is None or not (run.workdir / "checkpoints").is_dir():
    raise errors.UserError("push_to_hub: the run has no run folder; train it with workdir=..., then load it")
  library = _library()
  with tempfile.TemporaryDirectory() as staging:
    _stage(run, pathlib.Path(staging), repo, intended_use=intended_use, license=license, figures=figures)
    with errors.convert_errors(f"{SCHEME}{repo}: the upload failed"):
      api = library.HfApi(token=token)
      api.create_repo(repo_id=repo, private=private, exist_ok=True)
      api.upload_folder(repo_id=repo, folder_path=staging, commit_message=message)
  return f"{SCHEME}{repo}"


def download(address: str) -> pathlib.Path:
  """Downloads a run from "hf://user/name" or "hf://user/name@revision", and returns its local folder.

  Raises:
    UserError: `huggingface_hub` is missing, the address is invalid, or the download failed.
  """
  repo, revision = _parsed(address.removeprefix(SCHEME))
  library = _library()
  with errors.convert_errors(f"{address}: the download failed"):
    return pathlib.Path(library.snapshot_download(repo_id=repo, revision=revision))


def _parsed(name: str) -> tuple[str, str | None]:
  match = _NAME.fullmatch(name) if isinstance(name, str) else None
  if match is None:
    raise errors.UserError(
      f"{SCHEME}{errors.format_key(name)}: must be user/name; ae_jax.load also accepts user/name@revision"
    )
  return match["repo"], match["revision"]


def _library() -> Any:
  try:
    return importlib.import_module("huggingface_hub")
  except ImportError:
    raise errors.UserError("the Hugging Face hub needs huggingface_hub; run `pip install 'ae_jax[hub]'`") from None


def _stage(run: Any, folder: pathlib.Path, repo: str, *, intended_use: str, license: str, figures: bool) -> None:
  """Writes the files to upload to a folder."""
  description = _public(run_folder.read_description(run.workdir))
  which, metrics = _which(run), run.workdir / "metrics.jsonl"
  if not metrics.exists():
    raise errors.UserError(f"{metrics}: is missing; restore it, or train the run again")
  shutil.copytree(run.workdir / "checkpoints", folder / "checkpoints")
  for marker in (folder / "checkpoints").rglob("commit_success.txt"):
    marker.write_bytes(b"")  # Orbax writes the path of the run folder to it
  shutil.copy(metrics, folder / "metrics.jsonl")
  (folder / "config.json").write_text(json.dumps(description, indent=2), encoding="utf-8")
  shown = {name: text for name, text in _FIGURES.items() if figures and _picture(run, name).exists()}
  if shown:
    (folder / "pictures").mkdir()
  for name in shown:
    shutil.copy(_picture(run, name), folder / "pictures" / f"{name}.png")
  text = card(run, description, shown, repo=repo, which=which, intended_use=intended_use, license=license)
  (folder / "README.md").write_text(text, encoding="utf-8")


def _picture(run: Any, name: str) -> pathlib.Path:
  return run.workdir / "pictures" / f"{name}.png"


def _public(description: Mapping[str, Any]) -> dict[str, Any]:
  """Removes the command line, the folders of the data and the notes about the data from the contents of config.json.

  Notes and faults quote paths and values, possibly truncated, so all of them are dropped.
  """
  data = {key: value for key, value in description["data"].items() if key != "faults"} | {"remarks": []}
  public = {key: value for key, value in description.items() if key != "command"} | {"data": data}
  path, source = public["config"]["data"]["path"], public["config"]["init_from"]
  shared = places.without_folders(public, path, source)
  shared["config"]["data"]["path"] = pathlib.PurePath(path).name
  return shared


def _which(run: Any) -> str:
  """Returns "last" or "best", the checkpoint that the run was loaded from; raises UserError if it is neither."""
  with checkpoints.open_folder(run.workdir / "checkpoints", to_save=False) as opened:
    steps = checkpoints.last_and_best(opened)
  for which in ("last", "best"):
    if steps.get(which) == run.step:
      return which
  raise errors.UserError(
    f"push_to_hub: the run is from step {run.step:,}, but the checkpoints in {run.workdir} are from other steps "
    f"({', '.join(f'{name}: {step:,}' for name, step in steps.items())}); load the run again"
  )


def card(
  run: Any,
  description: Mapping[str, Any],
  figures: Mapping[str, str],
  *,
  repo: str,
  which: str = "last",
  intended_use: str = _INTENDED_USE,
  license: str = "",
) -> str:
  """Returns the model card of a run, Markdown with a YAML header.

  Args:
    run: The run.
    description: Contents of config.json.
    figures: {name of a picture: caption}.
    repo: Name of the repository.
    which: Checkpoint that the run was loaded from, "last" or "best".
    intended_use: Text of the section "Intended use".
    license: License of the model; "" for none.
  """
  config, data = run.config, description["data"]
  examples = remarks.examples_of(data["shape"], len(run.schema.columns) if run.schema else 0)
  header = ["library_name: ae_jax", "tags:", "- autoencoder", "- jax", "- flax", f"- {config.model.name}"]
  header += [f"license: {license}"] if license else []
  rows = [f"| {text} | {run.metrics[name]:.4g} |" for name, text in _METRICS.items() if name in run.metrics]
  address = f'"{SCHEME}{repo}"' + ("" if which == "last" else f', which="{which}"')
  pictures = [f"![{text}](pictures/{name}.png)\n\n{text}.\n" for name, text in figures.items()]
  sections = {
    "Data": f"`{config.data.name}`: {data['train']:,} training and {data['test']:,} test {examples}, "
    f"in the range `{config.data.range}`.",
    "Metrics": "\n".join(["| metric | value |", "|---|---|", *rows]) if rows else "",
    "Training": f"{run.metrics.get('epoch', 0):g} epochs, {run.step:,} steps of {config.batch_size} examples, "
    f"objective `{config.objective.name}`, optimizer `{config.optimizer.name}`, seed {config.seed}.",
    "Intended use": intended_use,
    "Use": f'```python\nimport ae_jax\n\nrun = ae_jax.load({address})\nz = run.encode(examples)\n'
    "x_hat = run.decode(z)\nscores = run.score(examples)\n```",
  }  # fmt: skip
  title = f"# {config.model.name} autoencoder of {config.data.name}"
  text = [f"## {name}\n\n{section}\n" for name, section in sections.items() if section]
  return "\n".join(["---", *header, "---", "", title, "", f"```\n{_summary(run)}\n```", "", *pictures, *text])


def _summary(run: Any) -> str:
  """Returns the summary of a run without the line that names its folder."""
  return "\n".join(line for line in run.summary().splitlines() if not line.startswith("run folder"))
