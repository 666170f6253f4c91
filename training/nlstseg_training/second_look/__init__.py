"""Training of the second look: candidates of the first network, cut out and judged in 3D."""
