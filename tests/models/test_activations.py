import numpy as np
import pytest

from ae_jax.models import activations

X = np.linspace(-4, 4, 33)
FORMULAS = {
  "relu": np.maximum(X, 0),
  "gelu": X / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (X + 0.044715 * X**3))),  # Hendrycks & Gimpel 2016, the tanh form
  "silu": X / (1 + np.exp(-X)),
  "elu": np.where(X > 0, X, np.expm1(X)),
  "tanh": np.tanh(X),
  "sigmoid": 1 / (1 + np.exp(-X)),
  "identity": X,
}


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_activation_matches_closed_form(name):
  outputs = activations.choose(name, "activation")(X.astype(np.float32))
  np.testing.assert_allclose(outputs, FORMULAS[name], rtol=1e-5, atol=1e-6)
