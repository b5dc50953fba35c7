"""Hosts' own scripts, run with squeezed generators; what is known of them stands in one file a family."""
