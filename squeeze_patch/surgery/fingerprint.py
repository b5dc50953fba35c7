"""Whether a parameter was trained since somebody last looked, whatever changed it and wherever it was moved."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Fingerprint:
    """Tells a trained parameter from one that was only moved to another device or dtype."""

    total: float
    norm: float
    count: int
    dtype: torch.dtype

    @classmethod
    def of(cls, parameter: torch.Tensor) -> Fingerprint:
        if parameter.is_meta:  # it has no values that could change
            return cls(0.0, 0.0, parameter.numel(), parameter.dtype)
        values = parameter.detach().double().flatten()
        places = torch.arange(values.numel(), dtype=torch.float64, device=values.device)
        total = (values * places.cos()).sum()  # other where the same numbers stand in another order
        return cls(total.item(), values.norm().item(), values.numel(), parameter.dtype)

    def same(self, other: Fingerprint) -> bool:
        """Up to the rounding of the narrower dtype: its relative step for most numbers, its absolute one for tiny ones.
        Within one dtype, sums of float64 differ between devices in their last digits."""
        near = 1e-12 * max(self.norm, other.norm)
        if self.dtype != other.dtype:
            coarse = max((torch.finfo(d) for d in (self.dtype, other.dtype)), key=lambda info: info.eps)
            near = coarse.eps * (max(self.norm, other.norm) + coarse.tiny * self.count**0.5)
        return _near(self.norm, other.norm, near) and _near(self.total, other.total, near)


def _near(a: float, b: float, most: float) -> bool:
    """Whether two sums are the same up to ``most``; of numbers that are not finite, whether they are alike."""
    return abs(a - b) <= most or a == b or (a != a and b != b)
