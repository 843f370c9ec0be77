"""Stubs that the type checks of ae_jax accept."""

import types

from ae_jax.sweep import grid


def stub(cls, **attributes):
  """Returns an instance of a class with these attributes alone; its constructor, which checks them, is not called."""
  instance = object.__new__(cls)
  vars(instance).update(attributes)
  return instance


def stub_member(name, latent, *, axes=(), config=(), **experiment):
  """Returns a `grid.Member` of a latent size whose experiment has these attributes alone, besides its config."""
  member_config = types.SimpleNamespace(model=types.SimpleNamespace(latent=latent), **dict(config))
  return stub(
    grid.Member, name=name, axes=dict(axes), experiment=types.SimpleNamespace(config=member_config, **experiment)
  )
