"""The host that is always at hand, and one thread, as in the library's tests."""

from tests.conftest import _seed, _threads_stay, draggan

__all__ = ["_seed", "_threads_stay", "draggan"]
