"""Regression checks for repositories that use squeezed generators; docs/checks.md."""
