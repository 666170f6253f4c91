"""A synthetic chest CT."""
