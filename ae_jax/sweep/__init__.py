"""Sweeps over latent sizes, seeds and hyperparameters; the members of a sweep share compiled programs."""
