"""Reports on runs: messages, static images and HTML pages."""
