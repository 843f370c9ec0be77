"""Sweeps over latent sizes, seeds and hyperparameters, whose members share compiled programs."""
