"""Layers of series in the layout [C, T, B]: the batch is the contiguous axis, as in `ae_jax.ops.convolutions`."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from ae_jax.ops import convolutions
from ae_jax.types import AnyArray

Signals = Float[AnyArray, "channels time batch"]
OutputSignals = Float[AnyArray, "features new_time batch"]
Steps = Bool[AnyArray, "time batch"]  # True for the steps with an observed value

KERNEL_INIT = nn.initializers.lecun_normal()


class GRU(nn.Module):
  """A gated recurrent unit (GRU) with the initial state `initial` [width, B]: [C, T, B] -> states [width, T, B].

  The result is the same as that of `nn.RNN(nn.GRUCell)`. Here the batch is the contiguous axis, and one matrix product
  multiplies the inputs of all time steps. The parameters of the three gates are in the order reset, update, new.
  """

  width: int

  @nn.compact
  def __call__(
    self, x: Signals, initial: Float[AnyArray, "width batch"], steps: Steps | None = None
  ) -> Float[Array, "width time batch"]:
    """Returns the states; where the mask `steps` is False, the previous state is kept."""
    channels, length, batch = x.shape
    kernel = self.param("kernel", KERNEL_INIT, (channels, 3 * self.width))
    bias = self.param("bias", nn.initializers.zeros, (3, self.width))
    recurrent = [self.param(f"recurrent_{gate}", nn.initializers.orthogonal(), (self.width,) * 2) for gate in "run"]
    recurrent = jnp.concatenate(recurrent, axis=1).T  # [3 * width, width]
    recurrent_bias = self.param("recurrent_bias", nn.initializers.zeros, (self.width,))
    inputs = (kernel.T @ x.reshape(channels, length * batch)).reshape(3, self.width, length, batch)
    inputs = (inputs + bias[..., None, None]).transpose(2, 0, 1, 3)  # [T, 3, width, B]

    def step(h, inputs_and_observed):
      inputs, observed = inputs_and_observed
      from_state = (recurrent @ h).reshape(inputs.shape)
      reset, update = nn.sigmoid(inputs[:2] + from_state[:2])
      new = jnp.tanh(inputs[2] + reset * (from_state[2] + recurrent_bias[:, None]))
      new = new + update * (h - new)
      h = new if observed is None else jnp.where(observed[None], new, h)
      return h, h

    return lax.scan(step, initial, (inputs, steps))[1].swapaxes(0, 1)


class Conv(nn.Module):
  """A convolution with bias and zero padding that keeps the length: [C, T, B] -> [features, T, B]."""

  features: int
  kernel: int

  @nn.compact
  def __call__(self, x: Signals) -> Float[Array, "features time batch"]:
    kernel = self.param("kernel", KERNEL_INIT, (self.kernel, 1, x.shape[0], self.features))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    before = (self.kernel - 1) // 2
    x = jnp.pad(x, ((0, 0), (before, self.kernel - 1 - before), (0, 0)))
    return convolutions.conv(x[:, :, None], kernel)[:, :, 0] + bias[:, None, None]


def fold(x: Signals, stride: int) -> OutputSignals:
  """Concatenates the channels of `stride` successive time steps: [C, T, B] -> [C * stride, ceil(T / stride), B]."""
  channels, length, batch = x.shape
  x = jnp.pad(x, ((0, 0), (0, -length % stride), (0, 0)))
  x = x.reshape(channels, -1, stride, batch).swapaxes(1, 2)
  return x.reshape(channels * stride, -1, batch)


def folded(steps: Steps | None, stride: int) -> Bool[Array, "new_time batch"] | None:
  """Returns True for each group of `stride` steps that contains a True step: [T, B] -> [ceil(T / stride), B]."""
  if steps is None:
    return None
  padded = jnp.pad(steps, ((0, -len(steps) % stride), (0, 0)))
  return padded.reshape(-1, stride, steps.shape[1]).any(1)


def observed_only(x: Signals, steps: Steps | None) -> Signals:
  """Sets signals [C, T, B] to 0 at the time steps where `steps` is False; unchanged if `steps` is None."""
  return x if steps is None else jnp.where(steps[None], x, jnp.zeros((), x.dtype))


def unfold(x: Signals, stride: int) -> OutputSignals:
  """Inverts `fold`: [C * stride, T, B] -> [C, T * stride, B]."""
  channels, length, batch = x.shape
  x = x.reshape(channels // stride, stride, length, batch).swapaxes(1, 2)
  return x.reshape(channels // stride, length * stride, batch)
