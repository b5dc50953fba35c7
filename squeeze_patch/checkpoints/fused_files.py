"""Files whose squeezed generators run fused wherever they are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Tuple

from squeeze_patch.adapters.located import Located
from squeeze_patch.checkpoints.generators import generators
from squeeze_patch.checkpoints.io import read, save
from squeeze_patch.checkpoints.pickles import PathLike, host_path
from squeeze_patch.checkpoints.safe_tensors import TensorFile, is_named_so
from squeeze_patch.checkpoints.state_dicts import Archive
from squeeze_patch.checkpoints.targets import check_target
from squeeze_patch.errors import CheckpointError, StateError
from squeeze_patch.progress import Progress
from squeeze_patch.surgery.fuse import fuse_part
from squeeze_patch.surgery.status import status_of_part


@dataclass(frozen=True)
class FusedFile:
    """What `fuse_file` did: the files, and the names of the generators that run fused."""

    source: Path
    target: Path
    generators: Tuple[str, ...]


def holds_squeezed(source: PathLike, *, trust: bool, host: Optional[PathLike] = None) -> bool:
    """Whether every generator in a file is squeezed, and there is one.

    Raises:
        CheckpointError: as for `checkpoints.io.read`.
    """
    with host_path(host):
        states = {status_of_part(G).state for G in generators(read(source, trust=trust)).values()}
    return states == {"squeezed"}


def fuse_file(
    source: PathLike,
    target: PathLike,
    *,
    trust: bool = False,
    host: Optional[PathLike] = None,
    verify: bool = True,
    force: bool = False,
    progress: Optional[Progress] = None,
) -> FusedFile:
    """Write a file of squeezed generators once more, to run fused where it is loaded; see `squeeze_patch.fuse`.

    Raises:
        CheckpointError: the file cannot be read or written, or holds state dicts, which cannot say so.
        StateError: a generator in it is not squeezed.
        ProofError: its images would not stay the same.
    """
    source, target = Path(source), Path(target)
    check_target(source, target, force)
    with host_path(host):
        data = read(source, trust=trust)
        found = generators(data)
        check_holds_whole(source, data, found, "safetensors" if is_named_so(target) else None)
        for name, G in found.items():
            now = status_of_part(G)
            if now.state != "squeezed":
                raise StateError(f"{source}: {name or 'the generator'} is {now}; only squeezed generators run fused")
        for G in found.values():
            fuse_part(G, verify, progress)
        save(data, target, force=force)
    return FusedFile(source, target, tuple(found))


def check_holds_whole(source: Path, data: Any, found: Mapping[str, Located], form: Optional[str]) -> None:
    """Raise `CheckpointError` where the generators are written as state dicts, which do not say how they are to run."""
    of_tensors = form is not None or isinstance(data, TensorFile)
    sites = data.sites if isinstance(data, Archive) else {}
    states = [name for name, G in found.items() if of_tensors or name in sites or G.adapter.pickles is None]
    if states:
        raise CheckpointError(
            f"{source}: {states[0] or 'the generator'} is written as a state dict, which has no place for how it is to "
            "run. Convert it without --fuse (fuse=True), load it, and call squeeze_patch.fuse(G) then"
        )
