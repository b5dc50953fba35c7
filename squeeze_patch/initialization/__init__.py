"""How a squeezed generator starts: random, from a trained one's weights, or calibrated."""
