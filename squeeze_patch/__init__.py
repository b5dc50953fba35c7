"""The image squeeze connection for existing StyleGAN2 generators."""

from pathlib import Path as _Path

# In the source tree adapters/ lies beside this folder; installing puts it inside. Serve both, so that the tree's own
# folder can be imported from, whether squeeze_patch is installed too or not.
_here = _Path(__file__).parent
if not (_here / "adapters").is_dir():
    __path__.append(str(_here.parent))

# The function stands in front of its module; ``from squeeze_patch.compare import ...`` still reaches the module.
from squeeze_patch.compare import Comparison, compare
from squeeze_patch.errors import (
    CheckpointError,
    MeasurementError,
    PlanError,
    RecoveryError,
    SqueezeError,
    StateError,
    UnsupportedModelError,
)
from squeeze_patch.loading import load
from squeeze_patch.planner import Plan, plan
from squeeze_patch.recovery import Recovery, recover
from squeeze_patch.state import Status, status
from squeeze_patch.surgery import apply, remove, squeezed

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "Comparison",
    "MeasurementError",
    "Plan",
    "PlanError",
    "Recovery",
    "RecoveryError",
    "SqueezeError",
    "StateError",
    "Status",
    "UnsupportedModelError",
    "apply",
    "compare",
    "load",
    "plan",
    "recover",
    "remove",
    "squeezed",
    "status",
]
