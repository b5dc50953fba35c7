"""What is done to a generator in memory: apply, remove, status."""
