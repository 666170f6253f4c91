"""What a network is, and how it wants to see a CT."""
