"""Trains the autoencoders of pythae and PyOD with their defaults on the same data sets.

`pip install pythae pyod torch`, then `python -m experiments.defaults.peers [NAME ...]`. Adds the errors to results.json
after each data set; existing errors are kept. Only the latent size is not a default.
"""

import logging
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from experiments.defaults import run
from experiments.defaults.datasets import DATASETS

Rows = Float[np.ndarray, "rows elements"]


def pythae(train: Rows, test: Rows, latent: int, seed: int) -> Rows:
  """Returns the reconstructions of the test examples by pythae's AE.

  Its decoder ends with a sigmoid, so the values are mapped to [0, 1] by the range of the training examples.
  """
  import torch
  from pythae.models import AE, AEConfig
  from pythae.pipelines import TrainingPipeline
  from pythae.trainers import BaseTrainerConfig

  logging.disable(logging.INFO)
  torch.manual_seed(seed)
  low, span = train.min(), np.ptp(train)
  model = AE(AEConfig(input_dim=(train.shape[1],), latent_dim=latent))
  with tempfile.TemporaryDirectory() as folder:
    config = BaseTrainerConfig(output_dir=folder, seed=seed)
    TrainingPipeline(training_config=config, model=model)(((train - low) / span).astype(np.float32))
  scaled = torch.from_numpy(((test - low) / span).astype(np.float32))
  with torch.no_grad():
    return model.eval().reconstruct(scaled).numpy() * span + low


def pyod(train: Rows, test: Rows, latent: int, seed: int) -> Rows:
  """Returns the reconstructions of the test examples by PyOD's AutoEncoder, which standardises each element."""
  import torch
  from pyod.models.auto_encoder import AutoEncoder

  detector = AutoEncoder(hidden_neuron_list=[64, latent], random_state=seed, verbose=0).fit(train)
  deviation = detector.X_std + 1e-8  # as in PyOD's TorchDataset
  scaled = torch.from_numpy(((test - detector.X_mean) / deviation).astype(np.float32))
  with torch.no_grad():
    return detector.model.eval()(scaled).numpy() * deviation + detector.X_mean


PEERS: dict[str, Callable[[Rows, Rows, int, int], Rows]] = {"pythae": pythae, "PyOD": pyod}


def measure(name: str, peer: str) -> dict:
  """Trains a peer with each seed; returns its squared errors per test example and the seconds of a training."""
  train, test, latent = DATASETS[name]()
  scale = 255 if train.dtype == np.uint8 else 1  # errors of images are in units of the range [0, 1]
  train, test = (x.reshape(len(x), -1).astype(np.float64) / scale for x in (train, test))
  errors, started = [], time.perf_counter()
  for seed in run.SEEDS:
    errors.append(float(np.square(PEERS[peer](train, test, latent, seed) - test).sum(1).mean()))
  return {"errors": errors, "seconds": (time.perf_counter() - started) / len(run.SEEDS)}


def main(names: list[str]) -> None:
  """Trains the peers on the data sets for which they have no result yet, or on those that are named."""
  for name in names or DATASETS:
    for peer in PEERS:
      if names or peer not in run.stored()[name].get("peers", {}):
        measured = measure(name, peer)
        results = run.stored()  # another process may have written meanwhile
        results[name].setdefault("peers", {})[peer] = measured
        run.store(results)
    print(run.row(name, run.stored()[name]), flush=True)


if __name__ == "__main__":
  main(sys.argv[1:])
