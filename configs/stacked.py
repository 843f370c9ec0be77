"""Stacked denoising autoencoder: layer-wise pretraining, then fine-tuning of all layers.

Each pretraining stage trains one encoder layer and the matching decoder layer to reconstruct the input of the encoder
layer from a masked copy of this input. The last stage fine-tunes all layers. The same training loop runs all stages.

Results, mean and range of seeds 0 to 2 (experiments/shipped_configs):

  mnist_5k, 90 epochs: test/squared_error 9.00 (8.96 to 9.08), PCA 13.91
  mnist,    29 epochs: test/squared_error 3.37 (3.37 to 3.37), PCA 13.19
"""

from ml_collections import ConfigDict

from ae_jax.config import base


def get_config(data="mnist_5k"):
  config = base(data)
  config.model = ConfigDict()
  config.model.name = "dense"
  config.model.latent = 32
  config.model.widths = (512, 256)
  config.model.decoder_widths = ()  # (): config.model.widths in reverse
  config.model.activation = "sigmoid"
  config.model.bottleneck = "identity"
  config.model.tied = False
  config.model.dropout = 0.0  # dropout rate after each hidden layer
  config.model.linear_path = "none"  # none, pca or auto; see configs/dense.py
  masking = {"name": "layerwise", "likelihood": "bernoulli", "corruption": "masking", "level": 0.25}
  config.stages = tuple({"epochs": max(1, config.epochs // 6), "objective": {**masking, "layer": k}} for k in range(3))
  return config
