"""The training loop and its folder."""
