"""Metrics, each with its own check."""
