"""Training: experiment, optimizers, training step, compiled stages and the loop over epochs."""
