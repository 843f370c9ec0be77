"""CAT-AE, a sequence autoencoder: series -> states -> context vector by concat attention -> latent code, and back.

It is trained on normal heartbeats only, and its reconstruction error is used to detect abnormal ones (test/auroc);
test/squared_error is the mean over both. 297,746 parameters. Results of seeds 0 to 2 on two shared CPU cores:

  heartbeats, 60 epochs: test/auroc 0.926 (0.922 to 0.930), PCA with 16 components 0.540, in about 45 s
  ucr, ECG5000's training file only, 200 epochs: test/auroc 0.999 (0.998 to 0.999), PCA 0.987, in about 20 s

  python -m ae_jax.main --config=configs/sequence.py:ucr --config.data.path=../shared/ucr/ECG5000 --workdir=runs/ecg

PCA is better with fewer components: its best AUROC is 0.602 on heartbeats (4 components; 2 to 32 were tried) and 0.996
on ECG5000 (2 components), whose 58 normal and 41 abnormal test beats are too few to separate the two methods. A missing
P wave is the hardest anomaly, an inverted T wave the easiest. The recurrent cell trains more slowly and has learned
little on heartbeats after 10 epochs.
"""

from ml_collections import ConfigDict

from ae_jax.config import base

_NORMAL = {"heartbeats": 0, "ucr": 1}  # label of the normal class; 1 in ECG5000


def get_config(data="heartbeats"):
  config = base(data)
  config.epochs = {"heartbeats": 60, "ucr": 200}.get(data, config.epochs)
  config.batch_size = {"ucr": 32}.get(data, config.batch_size)
  config.data.range = "real"
  config.data.one_class = _NORMAL.get(data)
  config.objective.likelihood = "gaussian"
  config.model = ConfigDict()
  config.model.name = "sequence"
  config.model.latent = 16
  config.model.cell = "convolutional"  # or "recurrent" (GRUs)
  config.model.widths = (32, 64, 128)  # channels of the stages, or state sizes of the GRUs
  config.model.strides = (2, 2, 5)  # downsampling in time before each stage: 140 -> 70 -> 35 -> 7 states
  config.model.kernel = 3  # of the convolutional cell
  config.model.activation = "relu"  # of the convolutional cell
  config.model.attention_width = 32
  config.model.bottleneck = "identity"  # identity, relu, sigmoid, tanh, fsq3 to fsq9 (levels) or gaussian (a VAE)
  config.model.dropout = 0.0  # dropout rate after each hidden layer
  config.optimizer.learning_rate = 4e-3
  config.evaluators = (*config.evaluators, "anomaly") if data in _NORMAL else config.evaluators
  config.eval_every_epochs = 5
  config.checkpoint_every_epochs = 20
  return config
