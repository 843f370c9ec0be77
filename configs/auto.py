"""Chooses the keys of `dense` for any data: --config=auto:PATH or --config=auto:NAME, with PATH a file or folder.

  ae_jax train --config=auto:measurements.npz
  ae_jax train --config=auto:photos
  ae_jax train --config=auto:digits
  ae_jax train --config=auto:patients.csv --config.epochs=50

The data are read twice: to choose the keys, and to train. The flags of config.data, config.epochs and config.batch_size
count for both. The first printed line is the command with the chosen keys. Missing values of a table are masked, unless
--config.data.missing is given; further lines say so, and name a column that can be the labels.
The model is PCA of the training examples plus a correction by a dense network. experiments/defaults has its results.
"""


def get_config(data="mnist_5k", flags=lambda config: {}):
  from ae_jax import fitting  # imports JAX, for which the listing of configs must not wait

  config, lines = fitting.automatic_config(data, flags)
  for line in lines:
    print(f"auto: {line}", flush=True)
  return config
