"""Two generators set side by side: images, features, distributions, latency, memory."""
