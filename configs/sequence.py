"""CAT-AE: a series -> states over time -> one context vector by concat attention -> a code, and back.

Trained on normal heartbeats only, it is judged by how well its reconstruction error tells the others from them; its
test/squared_error is over both. 297,746 parameters. Expect, seeds 0 to 2 on two CPU cores shared with other work:

  heartbeats, 60 epochs: test/auroc 0.926 (0.922 to 0.930), PCA with 16 components 0.540, in about 45 s
  ucr, ECG5000's training file only, 200 epochs: test/auroc 0.999 (0.998 to 0.999), PCA 0.987, in about 20 s

  python -m ae_jax.main --config=configs/sequence.py:ucr --config.data.path=../shared/ucr/ECG5000 --workdir=runs/ecg

PCA does better with fewer components: 0.602 on heartbeats (4 components; of 2 to 32), 0.996 on ECG5000 (2), whose 58
normal and 41 other test beats leave little to tell the two apart. A missing P wave is the hardest anomaly, an inverted
T wave the easiest. The recurrent cell trains slower and has learnt little of heartbeats in 10 epochs.
"""

from ml_collections import ConfigDict

from ae_jax.config import base

_NORMAL = {"heartbeats": 0, "ucr": 1}  # the label of the normal class; ECG5000's is 1


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
  config.model.cell = "convolutional"  # or recurrent: GRUs
  config.model.widths = (32, 64, 128)  # channels of the stages, or states of the GRUs
  config.model.strides = (2, 2, 5)  # how many times become one before each: 140 -> 70 -> 35 -> 7 states
  config.model.kernel = 3  # of the convolutional cell
  config.model.activation = "relu"  # of the convolutional cell
  config.model.attention_width = 32
  config.model.bottleneck = "identity"  # the code: identity, relu, sigmoid, tanh; fsq3 to fsq9: levels; gaussian: a VAE
  config.model.dropout = 0.0  # rate behind each hidden layer in training
  config.optimizer.learning_rate = 4e-3
  config.evaluators = (*config.evaluators, "anomaly") if data in _NORMAL else config.evaluators
  config.eval_every_epochs = 5
  config.checkpoint_every_epochs = 20
  return config
