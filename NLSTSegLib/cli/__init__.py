"""The command line: ``nlstseg``, or ``python -m NLSTSegLib``."""
