"""CAT-AE, a sequence autoencoder: series -> states -> context vector by concat attention -> latent code, and back.

The model has 297,746 parameters. It is trained only on normal heartbeats, and its reconstruction error is used to
detect abnormal heartbeats (metric test/auroc). test/squared_error is the mean over normal and abnormal heartbeats.

Results, mean and range of seeds 0 to 2 on two shared CPU cores:

  heartbeats, 60 epochs: test/auroc 0.926 (0.922 to 0.930), PCA with 16 components 0.540, in about 45 s
  ucr, only the training file of ECG5000, 200 epochs: test/auroc 0.998 (0.996 to 0.999), PCA 0.986, in about 20 s

  python -m ae_jax.main --config=configs/sequence.py:ucr --config.data.path=../shared/ucr/ECG5000 --workdir=runs/ecg

PCA is better with fewer components: its best AUROC is 0.602 on heartbeats (4 components; 2 to 32 were tried) and 0.994
on ECG5000 (2 components; 1 to 32 were tried). The 58 normal test beats of ECG5000 are too few to distinguish the two
methods; all 208 abnormal beats are tested. A missing P wave is the hardest anomaly to detect, and an inverted T wave is
the easiest. The recurrent cell trains more slowly: after 10 epochs on heartbeats it has learned little.

The encoder ignores the steps after the end of padded series (config.data.kind, docs/tutorials/tables_and_series.md).
"""

from ml_collections import ConfigDict

from ae_jax.config import base
from ae_jax.config.keys import OWN_DATA

_NORMAL = {"heartbeats": 0, "ucr": 1}  # label of the normal class; 1 in ECG5000


def get_config(data="heartbeats"):
  config = base(data)
  config.epochs = {"heartbeats": 60, "ucr": 200}.get(data, config.epochs)
  config.batch_size = {"ucr": 32}.get(data, config.batch_size)
  config.data.range = "real"
  config.data.kind = "series" if data in OWN_DATA else "auto"
  config.data.one_class = _NORMAL.get(data)
  config.objective.likelihood = "gaussian"
  config.model = ConfigDict()
  config.model.name = "sequence"
  config.model.latent = 16
  config.model.cell = "convolutional"  # convolutional or recurrent (GRUs)
  config.model.widths = (32, 64, 128)  # channels of the convolutional stages, or state sizes of the GRUs
  config.model.strides = (2, 2, 5)  # downsampling in time before each stage: 140 -> 70 -> 35 -> 7 states
  config.model.kernel = 3  # kernel size of the convolutional cell
  config.model.activation = "relu"  # activation of the convolutional cell
  config.model.attention_width = 32
  # identity, relu, sigmoid, tanh, fsq3, fsq5, fsq7 or fsq9 (quantised to 3, 5, 7 or 9 levels), or gaussian (a VAE).
  config.model.bottleneck = "identity"
  config.model.dropout = 0.0  # dropout rate after each hidden layer
  config.optimizer.learning_rate = 4e-3
  config.evaluators = (*config.evaluators, "anomaly") if data in _NORMAL else config.evaluators
  config.eval_every_epochs = 5
  config.checkpoint_every_epochs = 20
  return config
