"""Latents, and places in tensors, that are the same on every machine and with every torch: numpy promises that the
stream of `RandomState` stays as it is."""

from __future__ import annotations

import base64
import math
import zlib
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Tuple

import numpy as np
import torch

from squeeze_patch.adapters.content import Sampler
from squeeze_patch.errors import ConfigError


def fixed_latents(G: Sampler, n: int, seed: int = 0) -> Tuple[torch.Tensor, torch.Tensor]:
    """z [n, z_dim], standard normal, and c [n, c_dim], one class an image in turn; float32, on the CPU."""
    z = np.random.RandomState(seed).randn(n, G.z_dim).astype(np.float32)
    c = torch.zeros([n, G.c_dim])
    if G.c_dim:
        c[torch.arange(n), torch.arange(n) % G.c_dim] = 1
    return torch.from_numpy(z), c


def fixed_styles(n: int, num_ws: int, w_dim: int, seed: int = 0) -> torch.Tensor:
    """Styles [n, num_ws, w_dim], standard normal, one of its own for every layer; float32, on the CPU."""
    return torch.from_numpy(np.random.RandomState(seed).randn(n, num_ws, w_dim).astype(np.float32))


@dataclass(frozen=True)
class Amount:
    """Of images that are worth their time: as many as make ``pixels``, but ``fewest`` to ``most``."""

    pixels: int
    fewest: int
    most: int

    def at(self, resolution: int) -> int:
        """Images of ``resolution`` pixels squared."""
        return max(self.fewest, min(self.most, self.pixels // resolution**2))


#: no sample has more numbers
LARGEST = 2**20


@dataclass(frozen=True)
class Sample:
    """Some numbers of a tensor, at places that its size and ``seed`` decide.

    Attributes:
        shape: of the tensor.
        peak: its largest absolute value.
        values: float32 [count], all of it where it has no more.
    """

    shape: Tuple[int, ...]
    peak: float
    values: np.ndarray[Any, np.dtype[np.float32]]

    @classmethod
    def of(cls, tensor: torch.Tensor, count: int) -> Sample:
        """At most ``count`` numbers of ``tensor``."""
        flat = tensor.detach().float().cpu().reshape(-1)
        if flat.numel() > count:
            flat = flat[torch.from_numpy(np.random.RandomState(0).randint(0, flat.numel(), count, dtype=np.int64))]
        peak = float(tensor.detach().float().abs().max()) if tensor.numel() else 0.0
        return cls(tuple(tensor.shape), peak, flat.numpy())

    def apart(self, other: Sample) -> float:
        """`difference` over the lower of both peaks: one that is too high in a file lets nothing pass."""
        apart = self.difference(other)
        return apart / max(min(self.peak, other.peak), 1e-30) if apart else 0.0

    def difference(self, other: Sample) -> float:
        """Largest absolute difference, inf where shapes differ or a number is not finite."""
        if self.shape != other.shape or self.values.shape != other.values.shape:
            return float("inf")
        if not self.values.size:
            return 0.0
        apart = np.abs(self.values.astype(np.float64) - other.values.astype(np.float64)).max()
        return float(apart) if np.isfinite(apart) else float("inf")

    def squared_error(self, other: Sample) -> float:
        """Mean over the sample of the squared differences; inf where shapes differ."""
        if self.shape != other.shape or self.values.shape != other.values.shape:
            return float("inf")
        return float(np.square(self.values.astype(np.float64) - other.values.astype(np.float64)).mean())

    def to_dict(self) -> Dict[str, Any]:
        """For JSON: float32, little endian, compressed, base64."""
        packed = base64.b64encode(zlib.compress(self.values.astype("<f4").tobytes(), 9)).decode("ascii")
        return {"shape": list(self.shape), "peak": self.peak, "values": packed}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sample:
        """Inverse of `to_dict`; `ConfigError` where it is damaged."""
        try:
            shape, peak = tuple(int(side) for side in data["shape"]), float(data["peak"])
            size = math.prod(shape)
            unpack = zlib.decompressobj()
            raw = unpack.decompress(base64.b64decode(data["values"], validate=True), 4 * min(size, LARGEST) + 1)
            values = np.frombuffer(raw, dtype="<f4").astype(np.float32)
            if not unpack.eof or len(values) > size or bool(size) != bool(len(values)):
                raise ValueError(f"{len(values)} numbers of {size}")
            if not (0 <= peak < math.inf and np.isfinite(values).all()):  # a limit of infinity lets everything pass
                raise ValueError("a number is not finite")
            return cls(shape, peak, values)
        except (AttributeError, KeyError, TypeError, ValueError, zlib.error) as error:
            raise ConfigError(f"a sample in the baseline is damaged ({error})") from error


#: sums of a `sketch`
PROJECTIONS = 4


def sketch(tensor: torch.Tensor) -> Tuple[float, ...]:
    """Sums of a tensor's numbers with random signs: their differences tell how far two tensors are apart, in the
    root mean square over such sums (Achlioptas 2003)."""
    flat = tensor.detach().cpu().double().reshape(-1).numpy()
    random = np.random.RandomState(0)
    sums = []
    for _ in range(PROJECTIONS):
        bits = np.frombuffer(random.bytes(flat.size // 8 + 1), dtype=np.uint8)
        signs = np.unpackbits(bits)[: flat.size].astype(bool)
        sums.append(float(flat[signs].sum() - flat[~signs].sum()))
    return tuple(sums)
