"""Methods of `trained_run.Run`, one module per subject; each function takes the run as its first argument."""
