"""Rematerialisation: gradients that recompute most intermediates to save memory (Chen et al., arXiv 1604.06174)."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core
from jaxtyping import PyTree


def in_segments(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
  """Returns a function with the same results, but with a gradient that recomputes most intermediates.

  The arguments and results are pytrees of arrays. The n operations of the function are split into segments of about
  sqrt(n) operations. The gradient keeps only the values at the boundaries of segments, so the intermediates need about
  the memory of sqrt(n) operations. A loop (`lax.scan`) is a separate segment and keeps the carry of each iteration. All
  other values are computed twice.

  On CPU, only loops need less memory. XLA's CPU compiler recomputes the other segments as early as possible, which
  saves no memory.
  """

  def call(*args: PyTree) -> PyTree:
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    results = _evaluate(program.jaxpr, [*program.consts, *jax.tree.leaves(args)])
    return jax.tree.unflatten(jax.tree.structure(shapes), results)

  return call


def _evaluate(jaxpr: core.Jaxpr, inputs: Sequence[Any]) -> list[Any]:
  values = dict(zip([*jaxpr.constvars, *jaxpr.invars], inputs, strict=True))
  last = _last_uses(jaxpr)
  for start, stop in itertools.pairwise(_cuts(jaxpr.eqns, last)):
    equations = jaxpr.eqns[start:stop]
    has_loop = any(map(_is_loop, equations))
    segment_inputs = [var for equation in equations for var in _variables(equation.invars) if var in values]
    segment_inputs = list(dict.fromkeys(segment_inputs))
    segment_outputs = [var for equation in equations for var in equation.outvars if last.get(var, 0) >= stop]
    equations = list(map(_with_recomputed_body, equations)) if has_loop else equations
    segment = jaxpr.replace(constvars=[], invars=segment_inputs, outvars=segment_outputs, eqns=equations)
    evaluate = lambda *arguments, segment=segment: jax.core.eval_jaxpr(segment, (), *arguments)
    evaluate = evaluate if has_loop else jax.checkpoint(evaluate)
    values |= zip(segment_outputs, evaluate(*(values[var] for var in segment_inputs)), strict=True)
  return [atom.val if isinstance(atom, core.Literal) else values[atom] for atom in jaxpr.outvars]


def _last_uses(jaxpr: core.Jaxpr) -> dict[core.Var, int]:
  """Returns {variable: index of the last equation that uses it}; for results, the number of equations."""
  uses = {var: index for index, equation in enumerate(jaxpr.eqns) for var in _variables(equation.invars)}
  return uses | dict.fromkeys(_variables(jaxpr.outvars), len(jaxpr.eqns))


def _cuts(equations: Sequence[core.JaxprEqn], last: Mapping[core.Var, int]) -> list[int]:
  """Returns the indices of the equations at which segments begin, followed by the number of equations n.

  Each loop is one segment. The length of any other segment is between sqrt(n) and 2 sqrt(n) equations, and its end is
  the position in this range where the fewest array elements are alive. A segment before a loop or at the end of the
  program can be shorter.
  """
  alive, alive_before = 0, [0]  # number of array elements computed before an equation and used by it or later
  ending = [0] * (len(equations) + 1)
  for index, equation in enumerate(equations):
    for var in equation.outvars:
      if var in last:
        alive += var.aval.size  # type: ignore[attr-defined]
        ending[last[var]] += var.aval.size  # type: ignore[attr-defined]
    alive -= ending[index]
    alive_before.append(alive)
  length, cuts = max(1, math.isqrt(len(equations))), [0]
  for index, equation in enumerate(equations):
    if _is_loop(equation):
      cuts += [index, index + 1]
    elif index + 1 - cuts[-1] == 2 * length:
      cuts.append(min(range(cuts[-1] + length, index + 2), key=lambda cut: alive_before[cut]))
  return sorted({*cuts, len(equations)})


def _is_loop(equation: core.JaxprEqn) -> bool:
  return equation.primitive.name == "scan"


def _with_recomputed_body(equation: core.JaxprEqn) -> core.JaxprEqn:
  if not _is_loop(equation):
    return equation
  body = equation.params["jaxpr"]
  recomputed = jax.make_jaxpr(jax.checkpoint(core.jaxpr_as_fun(body)))(*body.in_avals)
  return equation.replace(params={**equation.params, "jaxpr": recomputed, "unroll": 1})


def _variables(atoms: Iterable[Any]) -> list[core.Var]:
  return [atom for atom in atoms if not isinstance(atom, core.Literal)]
