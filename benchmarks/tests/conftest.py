"""The host that is always at hand, and one thread, as in the library's tests; and no time for garbage."""

from tests.conftest import _seed, _settled, _threads_stay, draggan

__all__ = ["_seed", "_settled", "_threads_stay", "draggan"]
