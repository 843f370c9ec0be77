"""Declares the keys that all configs have, each with its default value and a comment."""

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

AUTO = "auto"  # value of config.optimizer.learning_rate for a rate that is chosen at the start of a run
RATE = (float, int, str)  # types of a learning rate, as a type of ml_collections
LABEL = (int, str)  # types of a label or class name, as a type of ml_collections
OWN_DATA = ("npz", "npy", "folder", "hdf5", "arrays")  # names of data sets with arrays or images that the user provides
OWN_TABLES = ("csv", "parquet", "frame")  # names of data sets with tables that the user provides
ANALYSES = ("latent", "probe", "robustness", "generation")  # evaluators of every trained model by default


def base(data: str) -> ConfigDict:
  """Returns a config with the shared keys set to their defaults; a config file adds `model` and changes values.

  Args:
    data: Name of a data set (see `ae_jax.data.load`), for example "mnist" in `--config=cnn:mnist`.
  """
  config = ConfigDict()
  config.seed = 0  # seed of the initialisation, the order of the examples and all noise
  config.epochs = {"mnist_5k": 60, "digits": 60}.get(data, 20)  # number of epochs; small data sets need more
  # Maximum number of examples in a batch. An epoch is split into batches of nearly equal size, so the last batch is not
  # much smaller than the other batches.
  config.batch_size = 64
  _add_data(config, data)
  _add_objective(config)
  _add_optimizer(config)
  _add_warm_start(config)
  # Names of the evaluators to run in addition to "reconstruction". At each evaluation: anomaly, codebook, denoising,
  # posterior, sparsity. Once on the trained model: anomaly, denoising, disentanglement, generation, latent,
  # logistic_pca, probe, robustness.
  config.evaluators = (*ANALYSES, "disentanglement") if data == "factors" else ANALYSES
  config.trackers = ()  # experiment trackers in addition to TensorBoard: mlflow, wandb
  _add_devices(config)
  _add_early_stopping(config)
  config.eval_every_epochs = 1  # epochs between evaluations; the last epoch is always evaluated
  # Epochs between checkpoints. The last epoch is always saved. The model is evaluated before each of these checkpoints.
  config.checkpoint_every_epochs = {"mnist_5k": 30, "digits": 30}.get(data, 5)
  config.log_every_steps = 50  # steps between records of train/loss; each record is the mean loss over these steps
  return config


def _add_data(config: ConfigDict, data: str) -> None:
  """Adds the keys of the data set."""
  config.data = ConfigDict()
  # mnist_5k, digits, factors, npz, npy, hdf5, folder (of images), csv, parquet, breast_cancer, wine, diabetes,
  # heartbeats, ucr, or the name of an image data set in TensorFlow Datasets (TFDS), such as mnist. `ae_jax.fit` sets
  # arrays or frame for data in memory.
  config.data.name = data
  # Path of the file or folder for npz, npy, hdf5, csv, parquet, folder and ucr, or the data folder of TFDS. "":
  # $TFDS_DATA_DIR, or the default folder of TFDS. For csv, parquet and npy also several files, whose rows are
  # concatenated: a.csv,b.csv or a pattern such as 'data/*.csv'.
  config.data.path = ""
  # Value range of the examples: unit [0, 1], symmetric [-1, 1] or real. It determines the output activation.
  config.data.range = "unit"
  # Kind of the examples in npz, npy and hdf5 files: table [N, columns], series [N, T, C], images [N, H, W, C] or
  # volumes [N, D, H, W, C]; auto chooses by the number of axes: 2 table, 3 or 4 images, 5 volumes.
  config.data.kind = "auto"
  # Length of the windows, in time steps, that are cut from a long recording; the windows are the examples. A recording
  # is an array [T, C] in an npz or npy file, or a table (csv, parquet or a DataFrame) whose rows are time steps.
  # Several recordings are several files, or a folder of npy files. The last fifth of each recording is the test set. 0:
  # each row is an example.
  config.data.window = 0
  config.data.stride = 0  # time steps from the start of a window to the start of the next; 0: the length of a window
  # Longest step in time inside a window, as a multiple of the usual (median) step of a table with a column of times.
  # After a longer step a new recording begins, and no window spans it. 0.0: windows span longer steps.
  config.data.max_gap = 0.0
  # Scaling of the examples: none, standard (each column or channel gets mean 0 and standard deviation 1 over the
  # training examples) or quantile (each gets a normal distribution); both need data.range=real. It is stored with the
  # run and applied to new data. Categories, booleans and indicators of tables are not scaled.
  config.data.scale = "none"
  # Placement of the training examples: memory, stream (read during training), or auto (stream if the examples exceed
  # the memory budget).
  config.data.placement = "auto"
  # Memory budget for the training examples in GiB, for the host and for a device. 0: a quarter of the host's memory and
  # a third of an accelerator's memory.
  config.data.budget_gib = 0.0
  # Label or name of the normal class, such as 3 or good. The model is trained only on examples of this class, and test
  # examples of other classes are anomalies. None: train on all classes.
  config.data.one_class = placeholder(LABEL)
  # Augmentations of the training examples, applied in order: "flip" (left to right), {"name": "shift", "pixels": 2}
  # (for images and series), {"name": "crop", "pixels": 2} (pads, then crops), {"name": "brightness", "level": 0.2}.
  config.data.augment = ()
  # Size of the images of a folder, as height,width or as one side of a square: --config.data.size=64,64 resizes them.
  # (): as stored.
  config.data.size = ()
  # How images of another aspect ratio are resized: stretch, crop (keeps the centre) or pad (with zeros).
  config.data.fit = "stretch"
  # Number of channels of the images of a folder: 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha). 0: as
  # stored. With 1 and 3, alpha is dropped without blending: transparent pixels get the colour stored below them. With 2
  # and 4, images without alpha get 1 (opaque).
  config.data.channels = 0
  config.data.on_bad = "error"  # handling of damaged image files of a folder: error, or skip (leave them out)
  config.data.exif_orientation = True  # whether the images of a folder are rotated as their EXIF orientation says
  config.data.follow_links = False  # whether links in a folder to files and folders outside it are followed
  # Size of the patches that are cut from images, as height,width or as one side of a square; the patches are the
  # examples. They do not overlap; pixels that remain at the right and lower edges are not used. (): no patches.
  config.data.patch = ()
  # Name of the array of examples in an npz or hdf5 file or a folder of npy files. "": x_train, or train_images as in
  # MedMNIST.
  config.data.x = ""
  # Name of the array of labels of these examples. "": y_train or train_labels, or no labels if config.data.x is set.
  config.data.y = ""
  # Name of the column of labels in a csv or parquet file. "": no labels.
  config.data.label = ""
  # Kinds of columns of a table, as texts NAME=KIND: numeric, integer, categorical, boolean, date or ignore, such as
  # --config.data.columns="'age=integer','code=categorical'". The kinds of other columns are found from their values.
  config.data.columns = ()
  # Missing values of a table: error (they are refused), mean (replaced by the training mean or the most frequent
  # category; each column with missing training values gets an indicator element), or mask (left out of the loss). For
  # recordings in tables: error or mask.
  config.data.missing = "error"
  config.data.layout = "nhwc"  # order of the axes of images in array files: nhwc (channels last) or nchw

  _add_division(config)


def _add_division(config: ConfigDict) -> None:
  """Adds the keys of the split of the data into a training, a test and a validation set."""
  # How test and validation examples are drawn from the training examples, if the data have no test set or
  # data.validation is set: random; stratified (equal fractions of all classes); group (see data.group); time (the last
  # examples); or auto: group if data.group is set, stratified if there are integer labels, otherwise random. A
  # recording that is cut into windows is always split by time. In ucr, auto and random mean the last fifth of each
  # class.
  config.data.split = "auto"
  # Name of the array (npz, npy, hdf5) or column (csv, parquet) with the group of each training example, such as a
  # patient. Examples of a group are never in two sets, and the column is no input. "": no groups.
  config.data.group = ""
  config.data.test = 0.2  # fraction of the examples that become the test set, at most 10,000, if the data have none
  # Fraction of the training examples that become the validation set, at most 10,000, if the data have none. The best
  # checkpoint, early stopping and sweeps use the validation set if there is one, otherwise the test set. 0.0: none.
  config.data.validation = 0.0
  # True: read a validation set, if there is one: folders val, valid or validation, arrays x_val, x_valid, x_validation
  # or val_images, and the split `validation` of TFDS beside a split `test`. False: do not, as in earlier versions.
  config.data.read_validation = True


def _add_objective(config: ConfigDict) -> None:
  """Adds the keys of the objective, its schedules and the training stages."""
  config.objective = ConfigDict()
  config.objective.name = "reconstruction"  # reconstruction, denoising, layerwise, sparse, contractive or elbo
  # bernoulli (cross-entropy; needs config.data.range=unit), gaussian (squared error), or mixed (for tables, in nats:
  # gaussian with standard deviation 1 for numbers, cross-entropy for categories and booleans).
  config.objective.likelihood = "bernoulli"
  # Schedules of numeric keys of the objective, such as {"key": "objective.beta", "name": "linear", "start": 0.0,
  # "epochs": 10}: during 10 epochs the value changes from `start` to the value of the key in the config. "steps" may
  # replace "epochs". The names are constant, linear, cosine and cyclic.
  config.schedules = ()
  # Training stages before the main stage, in order. Each is a dict {"epochs": ..., "objective": {...}}. The optimizer
  # state is reset at the start of each stage.
  config.stages = ()


def _add_optimizer(config: ConfigDict) -> None:
  """Adds the keys of the optimizer and of the moving average of the parameters."""
  config.optimizer = ConfigDict()
  config.optimizer.name = "adam"  # adam, nadam, rmsprop, adagrad, sgd, momentum or nesterov
  # Largest learning rate, reached at the end of the warm-up, or auto: a range test at the start of the run chooses it.
  config.optimizer.learning_rate = FieldReference(2e-3, field_type=RATE)
  config.optimizer.schedule = "cosine"  # learning-rate schedule: constant, linear (decays to 0) or cosine (decays to 0)
  config.optimizer.warmup_epochs = 1.0  # number of epochs of linear warm-up of the learning rate
  config.optimizer.weight_decay = 0.0  # decoupled weight decay, as in AdamW
  config.optimizer.clip_norm = 0.0  # gradients with a larger global norm are scaled to this norm; 0: no clipping
  # Decay of the exponential moving average of the parameters, such as 0.999. If it is not 0, the averages are evaluated
  # instead of the parameters. 0: no averages.
  config.ema_decay = 0.0


def _add_warm_start(config: ConfigDict) -> None:
  """Adds the keys of the start from a trained run and of frozen arrays."""
  # Folder of a trained run, or hf://user/name, whose parameters and model state the training starts from. Arrays of
  # equal name and shape are taken; all others are initialised and listed. "": initialise all.
  config.init_from = ""
  # Arrays that are taken from the run, as a regular expression that matches the beginning of their names: encoder, or
  # "encoder|state". "": all.
  config.init_only = ""
  # Arrays that the training does not change, as a regular expression that matches the beginning of their names, such as
  # encoder. "": none.
  config.freeze = ""


def _add_devices(config: ConfigDict) -> None:
  """Adds the keys of precision, devices, memory, non-finite losses and the time limit."""
  # Dtype of the model's arithmetic: float32, or bfloat16 for GPU and TPU. Parameters and losses are always float32.
  config.compute_dtype = "float32"
  config.parallel = "jit"  # data parallelism over all devices: jit (with sharding) or pmap
  # Placement of the parameters and the optimizer state: replicated on each device, or sharded over the devices.
  config.parallel_state = "replicated"
  config.accumulate = 1  # number of microbatches per batch, computed one after the other to save memory
  config.remat = False  # recompute activations in the backward pass to save memory (rematerialisation)
  # Handling of a loss or gradient that is not finite: stop ends the run, skip leaves out the update and counts it, and
  # halve trains the last steps (at most 64) again with half the learning rate, also if the loss rises above 3 times its
  # level.
  config.on_nan = "stop"
  config.max_minutes = 0.0  # time limit in minutes, checked at the end of each epoch; 0: no limit
  # With a time limit: train fewer epochs, so that the training and its learning-rate schedule end within the limit. The
  # speed is measured at the start of the run, and the number of epochs is stored in the run folder. False: the limit
  # cuts the training short.
  config.shorten = False


def _add_early_stopping(config: ConfigDict) -> None:
  """Adds the keys of early stopping, which applies only to single runs; use --halving in sweeps."""
  config.early_stopping = ConfigDict()
  config.early_stopping.metric = ""  # metric to watch, such as validation/squared_error or test/squared_error; "": none
  config.early_stopping.patience = 5  # number of evaluations without an improvement after which training stops
  config.early_stopping.min_change = 0.0  # a change of the metric by this much or less is not an improvement
  config.early_stopping.mode = "min"  # min if the metric should decrease, max if it should increase
