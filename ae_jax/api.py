"""Functions that return a `trained_run.Run`: `load` reads a run folder, `from_torch` converts PyTorch weights."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from ae_jax import config as configs
from ae_jax import configs as named_configs
from ae_jax import errors, models, overrides
from ae_jax.data import ranges, recorded_tables, standardisation
from ae_jax.data import scaling as scalings
from ae_jax.data import schema as schemas
from ae_jax.exporting import hub, torch_layouts
from ae_jax.models import memory
from ae_jax.runs import checkpoints, logs, run_folder
from ae_jax.system import paths
from ae_jax.trained_run import Run

WEIGHTS = ("auto", "ema", "raw")


def make_run(
  variables: models.Variables,
  config: ConfigDict,
  model: models.Model,
  workdir: pathlib.Path,
  step: int,
  *,
  data_description: Mapping[str, Any],
) -> Run:
  """Returns a `Run` with the given variables, and with the metrics in the run folder up to `step`.

  `data_description` is the section "data" of config.json.
  """
  history = [record for record in logs.stream(workdir) if record["step"] <= step]
  metrics = {name: value for record in history for name, value in record.items()}
  class_names, scaling = data_description.get("class_names"), data_description.get("scaling")
  return Run(
    variables,
    config,
    metrics,
    history,
    model,
    step,
    class_names=tuple(class_names) if class_names else None,
    scaling=scalings.Scaling(**scaling) if scaling else None,
    standardisation=standardisation.from_json(data_description.get("standardisation")),
    schema=schemas.from_json(data_description.get("schema")),
    record_columns=recorded_tables.from_json(data_description.get("record_columns")),
    workdir=workdir,
  )


def load(workdir: str | os.PathLike[str], which: str = "last", weights: str = "auto") -> Run:
  """Loads the trained model in a run folder.

  Example:
    >>> run = ae_jax.load("runs/cnn", which="best")
    >>> x_hat = run.reconstruct(images)

  Args:
    workdir: The run folder (`--workdir` of the training), or "hf://user/name" for a run on the Hugging Face hub, which
      is downloaded once ("hf://user/name@revision" for a branch, tag or commit).
    which: "last" for the newest checkpoint, "best" for the checkpoint with the smallest error on the validation set,
      or on the test set if there is no validation set.
    weights: "raw" for the trained parameters, "ema" for their exponential moving averages (`config.ema_decay`), "auto"
      for the averages if the run has them and otherwise the trained parameters. The metrics of the run were measured
      with the parameters that "auto" selects.

  Raises:
    UserError: The folder contains no run or no checkpoint, the checkpoint is damaged, an argument has an unknown value,
      or `weights` is "ema" and the run has no averages.
  """
  if isinstance(workdir, str) and workdir.startswith(hub.SCHEME):
    workdir = hub.download(workdir)
  workdir = paths.local_path("workdir", workdir)
  description = run_folder.read_description(workdir)
  config = configs.from_json(description["config"])
  configs.check_trained(config)
  errors.choose(ranges.INTERVALS, config.data.range, "data.range")
  if weights not in WEIGHTS:
    raise errors.UserError(f"weights={weights!r}: must be one of {', '.join(map(repr, WEIGHTS))}")
  averaged = config.ema_decay > 0
  if weights == "ema" and not averaged:
    raise errors.UserError(f"weights='ema': {workdir} was trained with config.ema_decay=0; use weights='raw'")
  model = models.build(
    shape=description["data"]["shape"],
    compute_dtype=config.compute_dtype,
    labels=description["data"].get("label_values", ()),
    groups=description["data"].get("groups", ()),
    masked=description["data"].get("masked", False),
    value_range=config.data.range,
    **config.model,
  )
  abstract = memory.check_parameters(model)
  with checkpoints.open_folder(workdir / "checkpoints", to_save=False) as opened:
    steps = checkpoints.last_and_best(opened)
    if not steps:
      raise errors.UserError(f"{workdir}: no checkpoint yet; wait until the training has saved one")
    if which not in steps:
      raise errors.UserError(f"which={which!r}: the run has no such checkpoint; use one of {', '.join(steps)}")
    name = "ema_params" if averaged and weights != "raw" else "params"
    wanted = {name: abstract.params} | ({"model_state": abstract.state} if jax.tree.leaves(abstract.state) else {})
    parts = checkpoints.restore_parts(opened, steps[which], wanted)
  variables = models.Variables(parts[name], parts.get("model_state", {}))
  return make_run(variables, config, model, workdir, steps[which], data_description=description["data"])


def from_torch(
  weights: Mapping[str, Any], shape: Sequence[int] = (28, 28, 1), model: str | ConfigDict = "dense", **changes: Any
) -> Run:
  """Converts the weights of a PyTorch autoencoder with dense or convolutional layers to a run.

  Example:
    >>> run = ae_jax.from_torch(torch.load("AutoEncoder.pt"), model__widths=(256,), model__latent=32)
    >>> x_hat = run.reconstruct(images)

  Args:
    weights: A `state_dict` of PyTorch tensors or arrays: the weight and the bias of each layer, in the order in which
      the layers are applied. Their names do not matter.
    shape: Shape of an example with the channels last, such as (28, 28, 1).
    model: A config, or the name of a shipped config, with the same layers as the PyTorch module. Its `data.scale` must
      be "none": the run expects examples in the scaling that the module expects.
    **changes: Config keys with two underscores for the dot, as in `ae_jax.fit`.

  Raises:
    UserError: The weights are not compatible with the layers of the config, the model is not dense or convolutional,
      the config scales the data, or its likelihood is "mixed".
  """
  config = named_configs.get(model) if isinstance(model, str) else model
  config = overrides.apply(config, overrides.dotted(changes))
  errors.choose(ranges.INTERVALS, config.data.range, "data.range")
  if config.data.scale != "none":
    raise errors.UserError(
      f"config.data.scale={config.data.scale!r}: a PyTorch state_dict does not contain the scaling of the "
      "data; pass data__scale='none', and scale the examples before you pass them to the run"
    )
  built = models.build(shape=shape, compute_dtype=config.compute_dtype, value_range=config.data.range, **config.model)
  variables = torch_layouts.to_variables(built, config.model.name, weights)
  if config.objective.likelihood == "mixed":
    raise errors.UserError(
      "config.objective.likelihood='mixed': a PyTorch state_dict does not contain the columns of a table; pass "
      "objective__likelihood='gaussian', and encode the columns before you pass them to the run"
    )
  return Run(variables, config, {}, [], built, 0)
