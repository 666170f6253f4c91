"""From a canonical CT to a probability volume."""
