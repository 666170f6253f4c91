"""Writing a result to files."""
