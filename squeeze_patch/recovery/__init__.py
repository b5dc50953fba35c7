"""Self-distillation: a squeezed generator learns the images of the dense one that it came from, without data."""

from squeeze_patch.recovery.distillation import Recovery, recover

__all__ = ["Recovery", "recover"]
