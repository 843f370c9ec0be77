"""Sweeps over latent sizes, seeds and hyperparameters; the members of a sweep share compiled programs."""

from ae_jax.system import late_modules

__getattr__ = late_modules.importer(__name__, ("fitting",))
