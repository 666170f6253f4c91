"""The command line in a process of its own, started and watched; no Slicer, no Qt."""
