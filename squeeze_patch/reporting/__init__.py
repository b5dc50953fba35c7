"""Pages of figures, curves and images for people: one HTML file each, which needs no network."""
