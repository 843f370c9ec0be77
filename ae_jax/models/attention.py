"""Attention, softmax(Q K^T / sqrt(d_k)) V (Vaswani et al. 2017, section 3.2), its masks, and the layer with heads."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ae_jax import errors

# Queries that `attend` takes at a time, so that its scores never need more memory than a multiple of the keys.
BLOCK = 128


def scaled_dot_product_attention(query, key, value, mask=None, *, scale=None):
  """What each query gathers, and how it weighs the keys: ([..., N_q, d_v], [..., N_q, N_k]), rows summing to 1.

  `query` is [..., N_q, d_k], `key` [..., N_k, d_k], `value` [..., N_k, d_v]. `mask` is boolean, True where a query may
  look, of a shape that broadcasts to the weights'; a query that may look nowhere has weights and an output of zeros.
  `scale` multiplies the scores: None is 1 / sqrt(d_k), 1.0 leaves them as they are.
  """
  scores = jnp.einsum("...qd,...kd->...qk", query, key) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
  if mask is None:
    weights = jax.nn.softmax(scores, axis=-1)
  else:
    mask = _of_rank(mask, scores.ndim)
    hidden = jnp.asarray(jnp.finfo(scores.dtype).min / 2, scores.dtype)  # finite: no NaN on the way, all masked or not
    weights = jnp.where(mask, jax.nn.softmax(jnp.where(mask, scores, hidden), axis=-1), jnp.zeros((), scores.dtype))
  return jnp.einsum("...qk,...kd->...qd", weights, value), weights


def causal_mask(queries, keys=None):
  """[queries, keys], True where query t may look: at keys 0 ... t. As many keys as queries if not said."""
  return jnp.tril(jnp.ones((queries, queries if keys is None else keys), bool))


def padding_mask(lengths, keys):
  """Lengths [B] -> [B, 1, 1, keys] for all heads and queries of an example, True for its first `length` keys."""
  return (jnp.arange(keys)[None] < lengths[:, None])[:, None, None]


def attend(query, key, value, mask=None, *, scale=None, causal=False, block=BLOCK):
  """The output of `scaled_dot_product_attention` where nobody asks for the weights: [B, N_q, heads, d].

  `query` is [B, N_q, heads, d], `key` and `value` are [B, N_k, heads, d]; `mask` broadcasts to [B, heads, N_q, N_k],
  and `causal` adds `causal_mask` without its N_q * N_k numbers. More than `block` queries are taken a block at a time
  and computed again in the backward pass, so that memory is linear in the length of the sequence.
  """
  mask = None if mask is None else _of_rank(mask, 4)
  if query.shape[1] <= block:
    return _attend_block(query, key, value, mask, 0, scale, causal)
  each = mask is not None and mask.shape[2] > 1  # query has its own row of the mask

  @jax.checkpoint
  def one(part):
    query, rows, first = part
    return _attend_block(query, key, value, rows if each else mask, first, scale, causal)

  rows = _blocks(mask, 2, block) if each else None
  outputs = lax.map(one, (_blocks(query, 1, block), rows, jnp.arange(0, query.shape[1], block)))
  return jnp.moveaxis(outputs, 0, 1).reshape(query.shape[0], -1, *query.shape[2:])[:, : query.shape[1]]


def _attend_block(query, key, value, mask, first, scale, causal):
  """Attention of queries number `first` and on, by the library; the rows that it would spread evenly become zeros."""
  if causal:
    row = first + jnp.arange(query.shape[1])
    below = (row[:, None] >= jnp.arange(key.shape[1])[None])[None, None]
    mask = below if mask is None else mask & below
  if mask is None:
    return jax.nn.dot_product_attention(query, key, value, scale=scale)
  output = jax.nn.dot_product_attention(query, key, value, mask=mask, scale=scale)
  sees = mask.any(-1, keepdims=True).swapaxes(1, 2)  # [B, N_q, heads, 1]
  return jnp.where(sees, output, jnp.zeros((), output.dtype))


def _blocks(x, axis, block):
  """An axis cut into blocks, the last one filled with zeros: [..., N, ...] -> [ceil(N / block), ..., block, ...]."""
  count = -(-x.shape[axis] // block)
  x = jnp.pad(x, [(0, count * block - side if place == axis else 0) for place, side in enumerate(x.shape)])
  return jnp.moveaxis(x.reshape(*x.shape[:axis], count, block, *x.shape[axis + 1 :]), axis, 0)


def _of_rank(mask, rank):
  return mask.reshape(*(1,) * (rank - mask.ndim), *mask.shape)


def check_heads(width, heads):
  """Raises UserError unless the heads divide the width."""
  errors.check_positive("model.heads", heads)
  errors.check(width % heads == 0, "model.heads", heads, f"a divisor of the width, {width}")


class Dense(nn.Dense):
  """`nn.Dense` of tokens, [B, N, inputs] -> [B, N, features], as the product of one matrix of all tokens.

  Of a product with two axes of rows XLA's CPU compiler transposes both factors for the gradient of the weights, which
  takes five times as long.
  """

  def __call__(self, x):
    return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.features)


class MultiHeadAttention(nn.Module):
  """Attention in `heads` subspaces of width / heads numbers each, and an affine map of their outputs side by side.

  Neither queries nor keys have a bias: the softmax takes no notice of a key's. With `qk_norm` both are divided by their
  root mean square within each head and multiplied by a learned scale per number (the RMS form of Dehghani et al. 2023,
  section 2), which bounds the scores. `scaled` divides the scores by sqrt(width / heads).

  The weights are kept, as "weights" [B, heads, N_q, N_k] in the collection "attention", if that is mutable.
  """

  width: int
  heads: int
  scaled: bool = True
  qk_norm: bool = False

  @nn.compact
  def __call__(self, x, memory=None, mask=None, causal=False):
    """Queries [B or 1, N_q, ...] that look at `memory` [B, N_k, ...], or at themselves -> [B, N_q, width].

    `mask` broadcasts to [B, heads, N_q, N_k]; with `causal` query t looks at 0 ... t only. UserError for the heads.
    """
    check_heads(self.width, self.heads)
    memory = x if memory is None else memory
    query, key, value = (
      Dense(self.width, use_bias=False, name=name)(of).reshape(*of.shape[:2], self.heads, self.width // self.heads)
      for name, of in (("query", x), ("key", memory), ("value", memory))
    )
    if self.qk_norm:
      query, key = nn.RMSNorm(name="query_norm")(query), nn.RMSNorm(name="key_norm")(key)
    query = jnp.broadcast_to(query, (memory.shape[0], *query.shape[1:]))  # one set of queries may ask in every example
    scale = None if self.scaled else 1.0
    if self.is_mutable_collection("attention") and not self.is_initializing():
      output = self._with_weights(query, key, value, mask, scale, causal)
    else:
      output = attend(query, key, value, mask, scale=scale, causal=causal)
    return Dense(self.width, name="out")(output.reshape(*output.shape[:2], self.width))

  def _with_weights(self, query, key, value, mask, scale, causal):
    masks = [_of_rank(mask, 4)] if mask is not None else []
    masks += [_of_rank(causal_mask(query.shape[1], key.shape[1]), 4)] if causal else []
    query, key, value = (each.swapaxes(1, 2) for each in (query, key, value))  # [B, heads, N, d]
    mask = functools.reduce(jnp.logical_and, masks) if masks else None
    output, weights = scaled_dot_product_attention(query, key, value, mask, scale=scale)
    self.sow("attention", "weights", weights)
    return output.swapaxes(1, 2)
