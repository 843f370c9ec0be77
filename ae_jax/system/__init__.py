"""Process, files and devices: what everything else builds on."""
