"""stylegan3 and its relatives import this module of old setuptools for one function."""

from packaging.version import parse as parse_version

__all__ = ["parse_version"]
