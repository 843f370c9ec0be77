"""Short definitions of metrics, for readers of a report."""

from collections.abc import Iterable

from ae_jax.report import page, tables

# Metric, or EVALUATOR/METRIC if several evaluators have a metric of this name -> definition.
_DEFINITIONS = {
  "halved": "how many times the learning rate was halved because the training diverged",
  "loss": "the objective that training minimises, per example",
  "squared_error": "squared differences between reconstruction and target, summed over an example; mean over examples",
  "mse": "squared error per element, such as a pixel or a column",
  "psnr": "peak signal-to-noise ratio in decibels, of the mean squared error over all examples; higher is better",
  "input_psnr": "peak signal-to-noise ratio of the input itself, i.e. of doing nothing",
  "nats": "reconstruction loss of an example in nats: a cross-entropy for values in [0, 1]",
  "nats_floor": "cross-entropy of a perfect reconstruction; it is above 0 because values between 0 and 1 are uncertain",
  "pca_squared_error": "squared error of PCA with the size of the latent code",
  "mean_predictor_squared_error": "squared error of predicting the mean training example",
  "input_squared_error": "squared error of the input itself, i.e. of doing nothing",
  "squared_error_over_pca": "squared error divided by that of PCA; below 1, the model is better than PCA",
  "bits_per_dimension": "cross-entropy in bits per element",
  "ssim": "structural similarity of reconstructions and targets; 1 if they are equal",
  "variance_ratio": "variance of the reconstructions divided by that of the targets; near 0, all outputs are equal",
  "saturated": "fraction of outputs that are wrong and at an end of the range of values",
  "column_rmse": "root of the mean squared error of a column, in the unit of the column",
  "column_rmse_over_deviation": "error of a column divided by its standard deviation; 1 is as good as its mean",
  "column_accuracy": "fraction of correct reconstructions of a category",
  "column_accuracy_of_most_frequent": "accuracy of always answering the most frequent category",
  "dead_units": "number of latent units that no test example activates",
  "active_units": "number of latent units with a variance above 0.01 over the test set",
  "participation_ratio": "number of directions in which latent codes vary much; small variances count little",
  "effective_rank": "number of directions in which latent codes vary; small variances count more than in the former",
  "data_dimension_twonn": "estimate of the intrinsic dimension of the data from distances to two neighbours",
  "data_dimension_mle": "estimate of the intrinsic dimension of the data from distances to many neighbours",
  "own_code_squared_error": "squared error if each example is decoded from its own latent code",
  "other_code_squared_error": "squared error if each example is decoded from the code of another example",
  "mean_code_squared_error": "squared error if each example is decoded from the mean code",
  "shuffle_ratio": "error with the code of another example divided by that with the own code; at 1, codes are not used",
  "encoder_lipschitz_max": "largest factor by which the encoder magnifies small changes of a test example",
  "decoder_lipschitz_max": "largest factor by which the decoder magnifies small changes of a latent code",
  "kl": "KL divergence of the posterior from the prior in nats, i.e. the information in the latent code",
  "linear": "test accuracy of a linear classifier of latent codes or of raw examples",
  "knn": "test accuracy of a nearest-neighbour classifier of latent codes or of raw examples",
  "kmeans_nmi": "agreement of clusters of latent codes with the classes; 1 if they are the same",
  "increase": "relative increase of the squared error after a disturbance",
  "memorisation_ratio": "distance to the nearest training example, relative to that of test examples; 0 for copies",
  "frechet_distance": "distance between the distributions of the features of samples and of test examples",
  "generation/precision": "fraction of samples that are near test examples",
  "generation/recall": "fraction of test examples that are near samples",
  "nll": "negative log-likelihood of a test example in nats, from importance sampling",
  "auroc": "probability that an anomaly has a higher score than a normal example; 0.5 for random scores",
  "auprc": "average precision of the scores; `chance AUPRC` for random scores",
  "threshold": "examples with a higher score are flagged as anomalies",
  "anomaly/precision": "fraction of the flagged examples that are anomalies",
  "anomaly/recall": "fraction of the anomalies that are flagged",
  "f1": "harmonic mean of precision and recall",
}


def block(names: Iterable[str]) -> page.Block:
  """Returns a folded table of the definitions of metrics with names such as "latent/shuffle_ratio"."""
  found: dict[str, str] = {}
  for name in names:
    evaluator, _, rest = name.partition("/")
    metric = rest.partition("/")[0]
    for key in (f"{evaluator}/{metric}", metric):
      if key in _DEFINITIONS:
        found[tables.readable(key)] = _DEFINITIONS[key]
  lines = [[metric, definition] for metric, definition in found.items()]
  return page.table([], lines, style="words", folded="What these metrics mean")
