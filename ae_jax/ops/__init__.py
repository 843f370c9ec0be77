"""Numerical primitives: convolutions, resizing, losses, random keys and rematerialisation."""

from ae_jax.system import late_modules

__getattr__ = late_modules.importer(__name__, ("losses",))
