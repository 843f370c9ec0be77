"""Numerical primitives: convolutions, resizing, losses, random keys and rematerialisation."""
