"""From a mask to findings: outlines, sizes, names."""
