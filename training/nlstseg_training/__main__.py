"""``python -m nlstseg_training``: the same as ``nlstseg-train``."""

from nlstseg_training.cli import main

if __name__ == "__main__":
    main()
