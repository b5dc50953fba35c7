"""Tests that an adapter has to pass, for pytest: see `AdapterContract`. Nothing else in squeeze_patch imports this."""

from __future__ import annotations

from squeeze_patch.errors import MissingPackageError

try:
    import pytest
except ImportError as missing:
    raise MissingPackageError(
        "squeeze_patch.testing needs pytest, which is not installed: pip install pytest"
    ) from missing

# so that a failure shows the values it compared
pytest.register_assert_rewrite("squeeze_patch.testing.contract", "squeeze_patch.testing.shapes_contract")

from squeeze_patch.testing.contract import AdapterContract
from squeeze_patch.testing.trained import float_error, trained

__all__ = ["AdapterContract", "float_error", "trained"]
