"""Decisions about examples: anomaly scores, thresholds, and what they need from the training data."""
