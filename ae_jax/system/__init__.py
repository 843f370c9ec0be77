"""Utilities for devices, signals, memory and files, which do not depend on the rest of the package."""
