"""What is wrong with a CT, before it costs time."""
