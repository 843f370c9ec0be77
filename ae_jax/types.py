"""Type aliases for arrays and pytrees."""

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

AnyArray = jax.Array | np.ndarray
Batch = dict[str, AnyArray]  # named columns: "x" [B, *shape], "weight" [B], and perhaps "label" [B], ...
Columns = dict[str, AnyArray]  # named columns besides "x"
Keys = Key[Array, "batch"]  # one random key for each example
Number = float | jax.Array  # of an objective: a constant, or traced where it is scheduled or swept
Params = PyTree  # parameters: nested dicts of arrays, or of their shapes and dtypes
Scalar = Float[Array, ""]
Step = Int[Array, ""]  # number of optimizer steps so far
