"""Reads no image files."""
