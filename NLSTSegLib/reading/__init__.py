"""A CT in and out of files."""

from NLSTSegLib.reading.read import read_ct, read_mask

__all__ = ["read_ct", "read_mask"]
