"""The request: what a user asks a squeeze to be. It is made once, where the user's arguments come in, and passed on."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from typing import Any, Dict, Mapping, Optional

from squeeze_patch.errors import PlanError
from squeeze_patch.planning.plans import Plan

ALLOCATIONS = ("uniform", "spectral")
METHODS = ("squeeze", "narrow")


@dataclass(frozen=True)
class Request:
    """How far, and where, a generator is to be squeezed; one of ``reduction``, ``ratio``, ``widths``,
    ``multiply_adds``, ``milliseconds``, ``plan`` and ``like``, or none of them.

    Attributes:
        reduction: share of the parameters to save, 0 to 1; where nothing is asked for: 0.121, the paper's figure.
        ratio: c / q for every block, 1 or more.
        widths: {resolution: q}; blocks that are not named stay dense.
        plan: a Plan that was made before; its widths count.
        like: the Plan of a squeezed relative, with a record of its channels, which are to be kept as well.
        method: "squeeze" = the image squeeze connection; "narrow" = fewer channels behind both convolutions of a block,
            and no excite: the next block reads those that are left. Plans say it themselves.
        multiply_adds: share of the dense generator's multiply-adds that an image may take, 0 to 1.
        milliseconds: that a call for one image may take, measured where the dense generator is.
        allocate: "uniform" = one ratio for all blocks; "spectral" = the same budget, spent where a trained generator's
            images need it; None = not decided yet, see `settled`.

    Raises:
        PlanError: several of them, or one that no generator could be given.
    """

    reduction: Optional[float] = None
    ratio: Optional[float] = None
    widths: Optional[Mapping[int, int]] = None
    plan: Optional[Plan] = None
    allocate: Optional[str] = None
    like: Optional[Plan] = None
    method: str = "squeeze"
    multiply_adds: Optional[float] = None
    milliseconds: Optional[float] = None

    def __post_init__(self) -> None:
        budgets = (self.reduction, self.ratio, self.widths, self.multiply_adds, self.milliseconds)
        given = [value for value in budgets if value is not None]
        elsewise = self.allocate is not None or self.method != "squeeze"
        if self.like is not None and (given or self.plan is not None or elsewise):
            raise PlanError(
                "like says everything; give it alone, without plan, reduction, ratio, widths, allocate, method"
            )
        if not (self.like is None or isinstance(self.like, Plan)):
            raise PlanError(
                f"like has to be a squeezed generator or its Plan, not {type(self.like).__name__}; "
                "squeeze_patch.convert(like=...) takes the path of a file, too"
            )
        if self.like is not None and not self.like.kept:
            raise PlanError(
                "the generator to be like keeps no record of the channels that stayed: it has random layers, or comes "
                "from a bare state dict. Squeeze its dense one again, with a trained start"
            )
        if self.plan is not None and (given or elsewise):
            raise PlanError("give a plan, or a reduction, ratio, widths, allocate or method, not both")
        if not (self.plan is None or isinstance(self.plan, Plan)):
            raise PlanError(f"plan has to be a squeeze_patch.Plan, not {type(self.plan).__name__}; see Plan.from_json")
        if self.allocate not in (None, *ALLOCATIONS):
            raise PlanError(f"allocate has to be one of {', '.join(ALLOCATIONS)}, not {self.allocate!r}")
        if self.method not in METHODS:
            raise PlanError(f"method has to be one of {', '.join(METHODS)}, not {self.method!r}")
        if len(given) > 1:
            raise PlanError("give one of reduction, ratio, widths, multiply_adds and milliseconds, not several")
        self._check_ranges()
        if self.widths is None:
            return
        if not isinstance(self.widths, Mapping):
            raise PlanError(f"widths has to be {{resolution: channels}}, a dict, not {type(self.widths).__name__}")
        object.__setattr__(self, "widths", dict(self.widths))  # the caller's own may change later

    def _check_ranges(self) -> None:
        for name, number in self._numbers().items():
            if number is not None and (not isinstance(number, numbers.Real) or isinstance(number, bool)):
                raise PlanError(f"{name} has to be a number, not {number!r}")
        if self.ratio is not None and not (math.isfinite(self.ratio) and self.ratio >= 1):
            raise PlanError(
                f"ratio is c / q: a number from 1 (all channels kept, excite added) upwards, not {self.ratio}"
            )
        if self.reduction is not None and not self.reduction < 1:
            raise PlanError(
                f"a reduction of {self.reduction:.1%} is out of reach (a reduction is a share: 0.121 means 12.1 %)"
            )
        if self.multiply_adds is not None and not 0 < self.multiply_adds <= 1:
            raise PlanError(
                f"multiply_adds (--budget) is the share of the dense generator's that is left: above 0, up to 1, not "
                f"{self.multiply_adds}"
            )
        if self.milliseconds is not None and not (math.isfinite(self.milliseconds) and self.milliseconds > 0):
            raise PlanError(f"milliseconds (--budget) have to be more than 0 for an image, not {self.milliseconds}")
        if self.widths is not None and self.allocate == "spectral":
            raise PlanError("widths say what each block gets; allocate='spectral' would choose it. Give one of them")

    def _numbers(self) -> Dict[str, Optional[float]]:
        names = ("reduction", "ratio", "multiply_adds", "milliseconds")
        return {name: getattr(self, name) for name in names}

    @property
    def is_default(self) -> bool:
        """Whether nothing was asked for."""
        return self == Request()

    def uniform(self) -> Request:
        """The same budget at one ratio for all blocks; a plan stays what it is."""
        return self if self.plan is not None or self.like is not None else replace(self, allocate="uniform")

    def settled(self, calibrated: bool) -> Request:
        """The same with ``allocate`` decided where the user left it open: "spectral" for a budget that goes with a
        ``calibrated`` start; "uniform" for other starts, which look at no images, and where ratio or widths say it."""
        if self.allocate is not None or self.plan is not None or self.like is not None:
            return self
        is_open = calibrated and self.ratio is None and self.widths is None
        return replace(self, allocate="spectral" if is_open else "uniform")

    def to_dict(self) -> Dict[str, Any]:
        """Plain numbers, strings and dicts of what was asked for, as processes hand it to each other."""
        found: Dict[str, Any] = {"method": self.method}
        found.update({} if self.allocate is None else {"allocate": self.allocate})
        for name, number in self._numbers().items():
            found.update({} if number is None else {name: float(number)})
        if self.widths is not None:
            found["widths"] = {int(resolution): int(width) for resolution, width in self.widths.items()}
        plans = {"plan": self.plan, "like": self.like}
        return {**found, **{name: plan.to_dict() for name, plan in plans.items() if plan is not None}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Request:
        """Inverse of `to_dict`, also after JSON, which knows no whole numbers as keys."""
        plans = {name: Plan.from_dict(data[name]) for name in ("plan", "like") if data.get(name) is not None}
        widths = data.get("widths")
        whole = None if widths is None else {int(resolution): width for resolution, width in widths.items()}
        return cls(**{**data, **plans, "widths": whole})
