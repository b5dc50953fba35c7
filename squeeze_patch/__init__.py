"""The image squeeze connection for existing StyleGAN2 generators."""

import importlib as _importlib
import importlib.util as _util
import sys as _sys
from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any
from typing import List as _List


class _AdaptersOfTheSourceTree:
    """Finds squeeze_patch.adapters where adapters/ lies beside this folder, as in the source tree; installing puts it
    inside. Nothing else beside this folder (tests, benchmarks) becomes importable as a part of squeeze_patch."""

    folder = _Path(__file__).parent.parent / "adapters"

    @classmethod
    def find_spec(cls, name: str, _path: _Any = None, _target: _Any = None) -> _Any:
        if name != f"{__name__}.adapters":
            return None
        return _util.spec_from_file_location(
            name, cls.folder / "__init__.py", submodule_search_locations=[str(cls.folder)]
        )


if not (_Path(__file__).parent / "adapters").is_dir():
    _sys.meta_path.insert(0, _AdaptersOfTheSourceTree)

from squeeze_patch.errors import (
    CheckpointError,
    ConfigError,
    LabelsError,
    LabelsWarning,
    LostWarning,
    MeasurementError,
    MissingPackageError,
    PlanError,
    ProofError,
    RecoveryError,
    ScriptError,
    SqueezeError,
    StateError,
    UnprovedWarning,
    UnsupportedModelError,
)
from squeeze_patch.version import __version__ as __version__

if _TYPE_CHECKING:
    from squeeze_patch.checkpoints.convert import Conversion, convert
    from squeeze_patch.checkpoints.load import load
    from squeeze_patch.checkpoints.scanning import Scan, scan
    from squeeze_patch.checks.outcome import CheckReport, Outcome
    from squeeze_patch.checks.runner import check
    from squeeze_patch.conditioning import labels
    from squeeze_patch.evaluation.compare import Comparison, compare
    from squeeze_patch.planning.planner import plan
    from squeeze_patch.planning.plans import Plan
    from squeeze_patch.recovery.distillation import Recovery, recover
    from squeeze_patch.surgery.apply import apply, squeezed
    from squeeze_patch.surgery.fuse import fuse, unfuse
    from squeeze_patch.surgery.remove import remove
    from squeeze_patch.surgery.status import Status, kept_channels, status

#: {module: its public names}, imported when a name is asked for first: to import squeeze_patch takes milliseconds, and
#: who squeezes does not wait for what reads files, compares or checks
_MODULES = {
    "checkpoints.convert": ("Conversion", "convert"),
    "checkpoints.load": ("load",),
    "checkpoints.scanning": ("Scan", "scan"),
    "checks.outcome": ("CheckReport", "Outcome"),
    "checks.runner": ("check",),
    "conditioning": ("labels",),
    "evaluation.compare": ("Comparison", "compare"),
    "planning.planner": ("plan",),
    "planning.plans": ("Plan",),
    "recovery.distillation": ("Recovery", "recover"),
    "surgery.apply": ("apply", "squeezed"),
    "surgery.fuse": ("fuse", "unfuse"),
    "surgery.remove": ("remove",),
    "surgery.status": ("Status", "kept_channels", "status"),
}
_LATER = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> _Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_importlib.import_module(_LATER[name]), name)
    globals()[name] = value
    return value


def __dir__() -> _List[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "CheckReport",
    "CheckpointError",
    "Comparison",
    "ConfigError",
    "Conversion",
    "LabelsError",
    "LabelsWarning",
    "LostWarning",
    "MeasurementError",
    "MissingPackageError",
    "Outcome",
    "Plan",
    "PlanError",
    "ProofError",
    "Recovery",
    "RecoveryError",
    "Scan",
    "ScriptError",
    "SqueezeError",
    "StateError",
    "Status",
    "UnprovedWarning",
    "UnsupportedModelError",
    "apply",
    "check",
    "compare",
    "convert",
    "fuse",
    "kept_channels",
    "labels",
    "load",
    "plan",
    "recover",
    "remove",
    "scan",
    "squeezed",
    "status",
    "unfuse",
]
