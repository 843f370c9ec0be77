"""Values that the config fuzzer assigns to keys: plausible, extreme and wrong ones."""

import numpy as np
from hypothesis import strategies as st

from ae_jax import evaluators, models, objectives
from ae_jax.data import image_sets, ranges, sources
from ae_jax.models import activations, bottlenecks, sequence, unet, upsampling
from ae_jax.objectives import corruptions
from ae_jax.system import distributed
from ae_jax.training import optimizers

_SMALL = sorted(sources.SOURCES.keys() - {"mnist_5k", "heartbeats"})  # training on these two takes minutes

# Plausible texts by name of the key; keys with other names get any of these texts.
KNOWN = {
  "activation": [*activations.ACTIVATIONS],
  "decoder_activation": [*activations.ACTIVATIONS],
  "bottleneck": [*bottlenecks.DETERMINISTIC, "gaussian"],
  "decoder": [*upsampling.LAYERS, "tied"],
  "skips": [*unet.SKIPS],
  "cell": [*sequence.CELLS],
  "likelihood": [*objectives.LIKELIHOODS],
  "corruption": [*corruptions.CORRUPTIONS],
  "penalty": ["l1", "kl"],
  "schedule": [*optimizers.SCHEDULES],
  "range": [*ranges.INTERVALS],
  "compute_dtype": [*models.COMPUTE_DTYPES],
  "parallel": [*distributed.MODES],
  "parallel_state": ["replicated", "sharded"],
  "on_nan": ["stop", "skip", "halve"],
  "placement": ["auto", "memory", "stream"],
  "fit": [*image_sets.FITS],
  "on_bad": [*image_sets.ON_BAD],
  "name": [*models.FAMILIES, *objectives.OBJECTIVES, *optimizers.OPTIMIZERS, *_SMALL],
}
NAMES = sorted({name for names in KNOWN.values() for name in names})

PLAUSIBLE = {
  bool: st.booleans(),
  int: st.integers(1, 9),
  float: st.sampled_from([0.0, 1e-3, 0.05, 0.5, 1.0, 2.0, 1]),
  tuple: st.lists(st.integers(1, 9), max_size=3).map(tuple)
  | st.lists(st.sampled_from([*evaluators.EVALUATORS]), max_size=3).map(tuple),
}
_INTEGERS = [0, -1, -(2**31), 10**3, 10**6, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
_INTEGERS += [2**32, 2**63 - 1, 2**63, 10**30, 10**400, 10**5000]
_TEXTS = ["", " ", "nonsense", "relu\n", "a\nb", "\0", "x" * 3000, "été ☃", "\udc80", "../..", "/", "{}", "%s"]
_TEXTS += ["reluu", "Adam"]
_TUPLES = [(), (0,), (1,), (-1,), (1, 1), (1,) * 50, (8,) * 5000, (2**31 - 1,) * 2, (2**63,), (10**6, 10**6)]
_TUPLES += [(10**5000,), ("a",), ("anomaly", 3), (1.5,), (True,), ((8,),), (None,), ("posterior", "posterior"), ({},)]
_TUPLES += [("sparsity",)]
EXTREME = {
  bool: st.sampled_from([0, 1, "True", None]),
  int: st.sampled_from(_INTEGERS),
  float: st.sampled_from(
    [-0.0, -1.0, 1e-300, 1e-45, 1e-30, 1e10, 1e30, 3.4e38, 1e300, float("nan"), float("inf"), -float("inf"), 10**400]
  ),
  str: st.sampled_from(_TEXTS),
  tuple: st.sampled_from(_TUPLES),
}
_ODD = [None, True, False, 0, 7, -1.5, "", "three", b"bytes", 3j, 1e300, (), print]
_FACTORIES = [list, lambda: [256], dict, lambda: {"name": "adam"}, lambda: {1, 2}, lambda: np.arange(3)]
_FACTORIES += [lambda: np.zeros((3, 30)), lambda: np.float32(0.5), lambda: np.int64(3), lambda: np.array(["a"])]
_FACTORIES += [lambda: slice(3), lambda: range(3), object]  # new objects for each case, because some are mutable
WRONG = st.sampled_from(_ODD) | st.sampled_from(_FACTORIES).map(lambda make: make())


def value(key, old):
  """Returns a strategy of new values for a key whose value is `old`: most plausible, some extreme or wrong."""
  kind = type(old)
  plausible = st.sampled_from(KNOWN.get(key, NAMES)) if kind is str else PLAUSIBLE.get(kind, st.just(old))
  extreme = EXTREME.get(kind, WRONG)
  return st.one_of(*[plausible] * 4, *[extreme] * 2, WRONG)
