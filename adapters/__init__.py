"""Adapters: one folder a host family, found by the generator itself.

Third parties add a family through the entry-point group ``squeeze_patch.adapters`` (each entry point names an `Adapter`
or a function without arguments that returns one), or at run time with `register`.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import Any, Dict, Iterable, List

import torch

from squeeze_patch.adapters.base import Adapter
from squeeze_patch.adapters.content import Sampler
from squeeze_patch.adapters.layers import class_named
from squeeze_patch.adapters.located import Located, Target
from squeeze_patch.adapters.lucidrains.adapter import LUCIDRAINS_ADAPTER
from squeeze_patch.adapters.nvidia.adapter import NVIDIA_ADAPTER
from squeeze_patch.adapters.roles import Pickles
from squeeze_patch.adapters.rosinality.adapter import ROSINALITY_ADAPTER
from squeeze_patch.errors import UnsupportedModelError

GROUP = "squeeze_patch.adapters"

_registered: List[Adapter] = [NVIDIA_ADAPTER, ROSINALITY_ADAPTER, LUCIDRAINS_ADAPTER]
_entry_points_read = False


def register(adapter: Adapter) -> None:
    """Add a family; an adapter of the same name is replaced."""
    _registered[:] = [known for known in _registered if known.name != adapter.name] + [adapter]


def adapters() -> List[Adapter]:
    """Every known adapter: the built-in ones, those of installed entry points, those added by `register`."""
    global _entry_points_read
    if not _entry_points_read:
        for entry_point in _group(entry_points()):
            adapter = _loaded(entry_point)
            if all(known.name != adapter.name for known in _registered):
                register(adapter)
        _entry_points_read = True
    return list(_registered)


def _loaded(entry_point: Any) -> Adapter:
    named, cure = f"{entry_point.name} = {entry_point.value}", "update the distribution that brings it, or uninstall it"
    try:
        found = entry_point.load()
        adapter = found if isinstance(found, Adapter) else found()
    except Exception as error:  # code of a third party: what it raises is anybody's guess
        raise UnsupportedModelError(
            f"the entry point {named} brings no adapter ({type(error).__name__}: {error}): {cure}"
        ) from error
    if not isinstance(adapter, Adapter):
        raise UnsupportedModelError(
            f"the entry point {named} names a {type(adapter).__name__}, not a "
            f"squeeze_patch.adapters.base.Adapter: {cure}"
        )
    return adapter


def _group(points: Any) -> Iterable[Any]:
    if sys.version_info >= (3, 10):
        return points.select(group=GROUP)  # type: ignore[no-any-return]
    return points.get(GROUP, [])  # type: ignore[no-any-return]


def pickle_families() -> List[Pickles]:
    """What families whose files are pickles say of them, one each."""
    return [adapter.pickles for adapter in adapters() if adapter.pickles is not None]


def entry_roles() -> Dict[str, str]:
    """{name of an entry in some family's files: "G" or "G_ema"}; see `Adapter.entries`."""
    return {name: role for adapter in adapters() for name, role in adapter.entries.items()}


def reference_name(names: Iterable[str]) -> str:
    """Which of the generators of a file stands for it, and has channels chosen on it: the moving average, whose weights
    are the smoother ones, or the first."""
    ordered = list(names)
    return next((name for name in ordered if role_of(name) == "G_ema"), ordered[0])


def role_of(name: str) -> str:
    """ "G" or "G_ema" by the name of an entry or, as "g_ema.module", by one of its parts; "" where it says nothing."""
    known = entry_roles()
    return next((known[part] for part in (name, *name.split(".")) if part in known), "")


def search(root: torch.nn.Module) -> Target:
    """The one generator that ``root`` is or holds, or both of a training wrapper that its adapter knows.

    Raises:
        UnsupportedModelError: as for `locate`.
    """
    for adapter in adapters():
        pair = adapter.wrapper.find_ema_pair(root) if adapter.wrapper is not None else []
        if pair:
            return Target(root, tuple(locate(part) for part in pair), adapter.wrapper)
    return Target(root, (locate(root),))


def locate(root: torch.nn.Module) -> Located:
    """The one generator that ``root`` is or holds, with its adapter and its synthesis network.

    Raises:
        UnsupportedModelError: none is found, several are found, or ``root`` wraps it for parallel training.
    """
    if not isinstance(root, torch.nn.Module):
        raise UnsupportedModelError(f"expected a generator (torch.nn.Module), got {type(root).__name__}")
    _refuse_parallel(root)
    found = [(adapter, network) for adapter in adapters() for network in adapter.surgery.find(root)]
    if len(found) == 1:
        return Located.of(root, *found[0])
    if len(found) > 1:
        names = {id(module): name for name, module in root.named_modules()}
        paths = ", ".join(sorted(names[id(network)] or "(itself)" for _, network in found))
        raise UnsupportedModelError(
            f"{type(root).__name__} holds {len(found)} generators ({paths}); pass them one at a time"
        )
    reason = unsupported_reason(root)
    if reason:
        raise UnsupportedModelError(reason)
    classes = sorted({type(module).__name__ for module in root.modules()})
    raise UnsupportedModelError(
        f"no StyleGAN2 generator found in {type(root).__name__}. Classes seen: {', '.join(classes[:12])}"
        f"{', ...' if len(classes) > 12 else ''}. Families known: {', '.join(a.name for a in adapters())}. "
        "Pass G or G_ema itself; another family needs an adapter (squeeze_patch.adapters.register)"
    )


def sampler(root: torch.nn.Module) -> Sampler:
    """How the generator ``root`` is run on latents; also of one that no adapter knows, where it is called as those of a
    known family are.

    Raises:
        UnsupportedModelError: it cannot be run; the message says what to do.
    """
    try:
        found = locate(root)
    except UnsupportedModelError:
        running = (adapter.running for adapter in adapters() if adapter.running is not None)
        known = next((found for role in running for found in [role.sampler_of_unknown(root)] if found), None)
        if known is None:
            raise
        return known
    return found.sampler()


def unsupported_reason(root: torch.nn.Module) -> str:
    """Why something in ``root`` looks like a known family but cannot be squeezed, '' where nothing does."""
    reasons = (adapter.surgery.refuse(root) for adapter in adapters())
    return next((reason for reason in reasons if reason), "")


_PARALLEL = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)


def _is_parallel(module: Any) -> bool:
    """FSDP's by its name: importing it takes a second. One that keeps original parameters looks like the generator."""
    return isinstance(module, _PARALLEL) or (
        isinstance(module, torch.nn.Module) and class_named(module, "FullyShardedDataParallel")
    )


def unwrapped(root: Any) -> Any:
    """What a wrapper for parallel training holds, for those who leave the parameters that it has recorded as they are;
    anything else itself."""
    return root.module if _is_parallel(root) else root


def _refuse_parallel(root: torch.nn.Module) -> None:
    for name, module in root.named_modules():
        if _is_parallel(module):
            where = f"{type(root).__name__}.{name}" if name else "the object"
            raise UnsupportedModelError(
                f"{where} is wrapped in {type(module).__name__}, which has already recorded its parameters. "
                "Squeeze the generator, or remove that, before wrapping it: pass wrapped.module, then wrap it anew"
            )
