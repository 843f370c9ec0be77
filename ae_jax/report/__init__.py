"""Reports on runs: printed messages, PNG images and HTML pages."""
