"""Anomaly detection: scores, thresholds, and the reference statistics that they need from the training data."""
