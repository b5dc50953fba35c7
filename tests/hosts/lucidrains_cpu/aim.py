"""Logs nothing."""
