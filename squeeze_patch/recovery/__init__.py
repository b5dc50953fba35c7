"""Self-distillation: a squeezed generator learns the images of the dense one that it came from, without data."""
