"""What a run shows: sentences and pictures."""
