"""Training: experiment, optimizers, training step, compiled stages and the training loop."""
