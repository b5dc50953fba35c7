"""Adapters: one file a host family, found by the generator itself.

Third parties add a family through the entry-point group ``squeeze_patch.adapters`` (each entry point names an
`Adapter` subclass, constructed without arguments) or at run time with `register`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Dict, Iterable, List, Optional, Tuple

import torch

from squeeze_patch.adapters.base import Adapter
from squeeze_patch.adapters.content import Sampler
from squeeze_patch.adapters.lucidrains.adapter import LucidrainsAdapter
from squeeze_patch.adapters.nvidia.adapter import NvidiaAdapter
from squeeze_patch.adapters.rosinality.adapter import RosinalityAdapter
from squeeze_patch.errors import UnsupportedModelError

GROUP = "squeeze_patch.adapters"

_registered: List[Adapter] = [NvidiaAdapter(), RosinalityAdapter(), LucidrainsAdapter()]
_entry_points_read = False


def register(adapter: Adapter) -> None:
    """Add a family; an adapter of the same name is replaced."""
    _registered[:] = [known for known in _registered if known.name != adapter.name] + [adapter]


def adapters() -> List[Adapter]:
    """Every known adapter: the built-in ones, those of installed entry points, those added by `register`."""
    global _entry_points_read
    if not _entry_points_read:
        _entry_points_read = True
        for entry_point in _group(entry_points()):
            adapter = entry_point.load()()
            if all(known.name != adapter.name for known in _registered):
                register(adapter)
    return list(_registered)


def _group(points: Any) -> Iterable[Any]:
    if sys.version_info >= (3, 10):
        return points.select(group=GROUP)  # type: ignore[no-any-return]
    return points.get(GROUP, [])  # type: ignore[no-any-return]


def roles() -> Dict[str, str]:
    """{name of an entry in some family's files: "G" or "G_ema"}; see `Adapter.roles`."""
    return {name: role for adapter in adapters() for name, role in adapter.roles.items()}


def reference_name(names: Iterable[str]) -> str:
    """Which of the generators of a file stands for it, and has channels chosen on it: the moving average, whose weights
    are the smoother ones, or the first."""
    ordered, known = list(names), roles()
    return next((name for name in ordered if known.get(name) == "G_ema"), ordered[0])


@dataclass(frozen=True)
class EmaPair:
    """A generator inside a training wrapper and its moving average, each with its mapping network."""

    adapter: Adapter
    average: torch.nn.Module
    trained: torch.nn.Module


def together(root: torch.nn.Module) -> Optional[EmaPair]:
    """The two generators of a training wrapper that its adapter knows to belong together, None where there is none."""
    for adapter in adapters():
        parts = adapter.together(root)
        if parts:
            average, trained = parts
            return EmaPair(adapter, average, trained)
    return None


def locate(root: torch.nn.Module) -> Tuple[Adapter, torch.nn.Module]:
    """The one generator that ``root`` is or holds.

    Returns:
        its adapter and its synthesis network.

    Raises:
        UnsupportedModelError: none is found, several are found, or ``root`` wraps it for parallel training.
    """
    if not isinstance(root, torch.nn.Module):
        raise UnsupportedModelError(f"expected a generator (torch.nn.Module), got {type(root).__name__}")
    _refuse_wrappers(root)
    found = [(adapter, network) for adapter in adapters() for network in adapter.find(root)]
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        names = {id(module): name for name, module in root.named_modules()}
        paths = ", ".join(sorted(names[id(network)] or "(itself)" for _, network in found))
        raise UnsupportedModelError(
            f"{type(root).__name__} holds {len(found)} generators ({paths}); pass them one at a time"
        )
    reason = refusal(root)
    if reason:
        raise UnsupportedModelError(reason)
    classes = sorted({type(module).__name__ for module in root.modules()})
    raise UnsupportedModelError(
        f"no StyleGAN2 generator found in {type(root).__name__}. Classes seen: {', '.join(classes[:12])}"
        f"{', ...' if len(classes) > 12 else ''}. Families known: {', '.join(a.name for a in adapters())}. "
        "Pass G or G_ema itself; another family needs an adapter (squeeze_patch.adapters.register)"
    )


def sampler(root: torch.nn.Module) -> Sampler:
    """How the generator ``root`` is run on latents. One that no adapter knows is called as NVIDIA's are.

    Raises:
        UnsupportedModelError: it cannot be run; the message says what to do.
    """
    try:
        adapter, network = locate(root)
    except UnsupportedModelError as unknown:
        try:
            return NvidiaAdapter().sampler(root, root)
        except UnsupportedModelError:
            raise unknown from None
    return adapter.sampler(root, network)


def refusal(root: torch.nn.Module) -> str:
    """Why something in ``root`` looks like a known family but cannot be squeezed, '' where nothing does."""
    return next((reason for adapter in adapters() for reason in [adapter.refuse(root)] if reason), "")


def _refuse_wrappers(root: torch.nn.Module) -> None:
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    for name, module in root.named_modules():
        if isinstance(module, wrappers):
            where = f"{type(root).__name__}.{name}" if name else "the object"
            raise UnsupportedModelError(
                f"{where} is wrapped in {type(module).__name__}, which has already recorded its parameters. "
                "Squeeze the generator before wrapping it: squeeze_patch.apply(wrapped.module), then wrap it anew"
            )
