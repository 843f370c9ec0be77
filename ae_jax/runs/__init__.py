"""The folder of a run: config, checkpoints, metrics and trackers."""
