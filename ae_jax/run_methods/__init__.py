"""Methods of `trained_run.Run` by subject; each takes the run as its first argument."""
