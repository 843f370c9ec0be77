"""Memory for arithmetic: gradients that compute most intermediates again (Chen et al., arXiv 1604.06174)."""

import itertools
import math

import jax
from jax.extend import core


def in_segments(function):
  """The same function of trees of arrays, but its gradient keeps only what passes between segments of its program.

  Of n operations about sqrt(n) make a segment, so that the memory for intermediates is about that of sqrt(n) of them; a
  loop (`lax.scan`) is a segment that keeps what it carries from turn to turn. All else is computed twice.

  XLA's CPU compiler computes again as early as it can, which saves nothing: there only the loops need less memory.
  """

  def call(*args):
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    results = _evaluate(program.jaxpr, [*program.consts, *jax.tree.leaves(args)])
    return jax.tree.unflatten(jax.tree.structure(shapes), results)

  return call


def _evaluate(jaxpr, inputs):
  values = dict(zip([*jaxpr.constvars, *jaxpr.invars], inputs, strict=True))
  last = _last_uses(jaxpr)
  for start, stop in itertools.pairwise(_cuts(jaxpr.eqns, last)):
    equations = jaxpr.eqns[start:stop]
    loops = any(map(_loops, equations))
    given = list(dict.fromkeys(var for each in equations for var in _variables(each.invars) if var in values))
    wanted = [var for each in equations for var in each.outvars if last.get(var, 0) >= stop]
    equations = list(map(_body_recomputed, equations)) if loops else equations
    segment = jaxpr.replace(constvars=[], invars=given, outvars=wanted, eqns=equations)
    evaluate = lambda *arguments, segment=segment: jax.core.eval_jaxpr(segment, (), *arguments)
    evaluate = evaluate if loops else jax.checkpoint(evaluate)
    values |= zip(wanted, evaluate(*(values[var] for var in given)), strict=True)
  return [atom.val if isinstance(atom, core.Literal) else values[atom] for atom in jaxpr.outvars]


def _last_uses(jaxpr):
  """The place of the equation that uses a variable last; their number for a result."""
  uses = {var: place for place, equation in enumerate(jaxpr.eqns) for var in _variables(equation.invars)}
  return uses | dict.fromkeys(_variables(jaxpr.outvars), len(jaxpr.eqns))


def _cuts(equations, last):
  """Where segments begin and end: around each loop, and from there on each time within sqrt(n) where least passes."""
  alive, passing = 0, [0]  # numbers made before a place and used from there on
  ending = [0] * (len(equations) + 1)
  for place, equation in enumerate(equations):
    for var in equation.outvars:
      if var in last:
        alive += var.aval.size
        ending[last[var]] += var.aval.size
    alive -= ending[place]
    passing.append(alive)
  length, cuts = max(1, math.isqrt(len(equations))), [0]
  for place, equation in enumerate(equations):
    if _loops(equation):
      cuts += [place, place + 1]
    elif place + 1 - cuts[-1] == 2 * length:
      cuts.append(min(range(cuts[-1] + length, place + 2), key=lambda cut: passing[cut]))
  return sorted({*cuts, len(equations)})


def _loops(equation):
  return equation.primitive.name == "scan"


def _body_recomputed(equation):
  if not _loops(equation):
    return equation
  body = equation.params["jaxpr"]
  recomputed = jax.make_jaxpr(jax.checkpoint(core.jaxpr_as_fun(body)))(*body.in_avals)
  return equation.replace(params={**equation.params, "jaxpr": recomputed, "unroll": 1})


def _variables(atoms):
  return [atom for atom in atoms if not isinstance(atom, core.Literal)]
