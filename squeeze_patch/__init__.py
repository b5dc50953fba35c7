"""The image squeeze connection for existing StyleGAN2 generators."""

from squeeze_patch.errors import CheckpointError, PlanError, SqueezeError, StateError, UnsupportedModelError
from squeeze_patch.planner import Plan, plan
from squeeze_patch.surgery import Status, apply, remove, squeezed, status

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "Plan",
    "PlanError",
    "SqueezeError",
    "StateError",
    "Status",
    "UnsupportedModelError",
    "apply",
    "plan",
    "remove",
    "squeezed",
    "status",
]
