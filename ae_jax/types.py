"""Type aliases for arrays and pytrees."""

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

KINDS = {1: "table", 2: "series", 3: "images", 4: "volumes"}  # number of axes of an example -> kind of the examples

AnyArray = jax.Array | np.ndarray
Batch = dict[str, AnyArray]  # {column: array}: "x" [B, *shape], "weight" [B], and others such as "label" [B]
Columns = dict[str, AnyArray]  # {column: array} without "x"
Keys = Key[Array, "batch"]  # one random key per example
Number = float | jax.Array  # hyperparameter of an objective: a constant, or a tracer if it is scheduled or swept
Params = PyTree  # nested dicts of parameters, or of their shapes and dtypes
LEAST_WEIGHT = 1e-6  # minimum weight of an example; a batch with a smaller total weight contains only padding
Scalar = Float[Array, ""]
Step = Int[Array, ""]  # number of completed optimizer steps
