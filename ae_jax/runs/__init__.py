"""Run folders: config, checkpoints, metrics, and copies of the metrics for experiment trackers."""
