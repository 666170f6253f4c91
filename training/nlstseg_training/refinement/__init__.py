"""Training of the refinement network."""
