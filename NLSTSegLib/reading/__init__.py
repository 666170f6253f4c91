"""A CT in and out of files."""
