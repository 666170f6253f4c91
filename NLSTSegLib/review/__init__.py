"""A reader's decisions as data."""
