"""What is measured of a model: generators of (name, value)."""
