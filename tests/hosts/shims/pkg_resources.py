"""What is still asked of this module, which new setuptools lacks and old setuptools warns of.

stylegan3 and its relatives want one function, and torch 1.13 wants packaging.
"""

import packaging.version
from packaging.version import parse as parse_version

__all__ = ["packaging", "parse_version"]
