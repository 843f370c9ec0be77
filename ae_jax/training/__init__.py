"""Training: experiment, optimizers, training step, compiled stages and the training loop."""

from ae_jax.system import late_modules

__getattr__ = late_modules.importer(__name__, ("train",))
