"""Checkpoint files: read, squeeze every generator inside, write atomically."""

from __future__ import annotations

import contextlib
import importlib
import io
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Dict, Iterator, Mapping, Optional, Tuple, Union

import torch

from squeeze_patch.adapters import locate, reference_name, refusal
from squeeze_patch.checkpoints.io import atomic_write
from squeeze_patch.checkpoints.optimizer_state import follow_all, parameters_of
from squeeze_patch.checkpoints.state_dicts import Archive, is_archive, read_archive
from squeeze_patch.errors import CheckpointError, StateError, UnsupportedModelError
from squeeze_patch.initialization.from_weights import Progress
from squeeze_patch.initialization.registry import check_init
from squeeze_patch.planning.cost import Report, report
from squeeze_patch.planning.planner import Plan
from squeeze_patch.planning.planner import plan as make_plan
from squeeze_patch.surgery.apply import squeeze
from squeeze_patch.surgery.status import Status, status

#: readable from Python 3.4 on, as the hosts' own files are
PICKLE_PROTOCOL = 4

PathLike = Union[str, Path]


@dataclass(frozen=True)
class Conversion:
    """What `convert` did.

    Attributes:
        source, target: the files.
        plan: the Plan of the reference generator; it is stored in the target with every generator.
        generators: names of the generators that were squeezed.
        shared_channels: whether all of them keep the same channels, so that averaging them goes on making sense.
        carried: names of everything that was carried over unchanged.
        cost: parameters and multiply-adds before and after.
        bytes_before, bytes_after: file sizes.
        init: the start that was made, "calibrated", "weights" or "random".
        optimisers: what became of the optimiser states of squeezed generators, a line each.
    """

    source: Path
    target: Path
    plan: Plan
    generators: Tuple[str, ...]
    shared_channels: bool
    carried: Tuple[str, ...]
    cost: Report
    bytes_before: int
    bytes_after: int
    init: str
    optimisers: Tuple[str, ...] = ()


def convert(
    source: PathLike,
    target: PathLike,
    *,
    trust: bool = False,
    host: Optional[PathLike] = None,
    reduction: Optional[float] = None,
    ratio: Optional[float] = None,
    widths: Optional[Mapping[int, int]] = None,
    allocate: str = "uniform",
    init: str = "calibrated",
    force: bool = False,
    progress: Optional[Progress] = None,
) -> Conversion:
    """Squeeze every generator in a checkpoint file and write the result, which the untouched host loads.

    All generators of one shape keep the same channels, chosen on the moving average. The state of a generator's
    optimiser, where the file has it, follows the kept channels. Discriminators, w_avg and everything else are carried
    over as they are. The target appears whole or not at all.

    Args:
        source: a host's pickle, or a file of torch.save with state dicts of a known family.
        target: the file to write.
        trust: loading a host's pickle runs code that is stored in it; True says that you trust the file. Files of
            torch.save that hold tensors and plain values need no trust.
        host: folder of the host's checkout, where the pickle needs modules of it.
        reduction, ratio, widths, allocate, init: as for `squeeze_patch.apply`.
        force: overwrite ``target`` where it exists.
        progress: called with (what, steps done, steps in all).

    Raises:
        CheckpointError: the file cannot be read or written, or holds no generator.
        PlanError, UnsupportedModelError, StateError: as for `squeeze_patch.apply`; nothing is written.
    """
    source, target = Path(source), Path(target)
    check_target(source, target, force)
    with host_path(host):
        data = read(source, trust=trust)
        found = dense_generators(source, data)
        reference = reference_name(found)
        order = [reference, *(name for name in found if name != reference)]
        plans = _plans({name: found[name] for name in order}, allocate, reduction=reduction, ratio=ratio, widths=widths)
        wish = plans[reference]
        check_init(init)
        cost = report(found[reference], wish)
        dense = {name: parameters_of(found[name]) for name in order}
        shared, kept = _squeeze_all(found, plans, init, progress)
        optimisers = follow_all(data, found, dense, kept)
        with atomic_write(target) as stream:
            write(data, stream)
    names = list(data) if isinstance(data, dict) else []
    changed = {*found, *optimisers}
    carried = tuple(str(name) for name in names if name not in changed and data[name] is not None)
    before, after = source.stat().st_size, target.stat().st_size
    lines = tuple(f"{name}: {line}" for name, line in optimisers.items())
    return Conversion(source, target, wish, tuple(order), shared, carried, cost, before, after, init, lines)


def _plans(found: Mapping[str, torch.nn.Module], allocate: str, **wish: Any) -> Dict[str, Plan]:
    """Of every generator; those of one shape get one plan, the first one's."""
    plans: Dict[str, Plan] = {}
    uniform = {name: make_plan(G, **wish) for name, G in found.items()}
    for name, G in found.items():
        twin = next((other for other in plans if uniform[other].same_widths(uniform[name])), None)
        plans[name] = plans[twin] if twin is not None else make_plan(G, allocate=allocate, **wish)
    return plans


def _squeeze_all(
    found: Mapping[str, torch.nn.Module], plans: Mapping[str, Plan], init: str, progress: Optional[Progress]
) -> Tuple[bool, Dict[str, Dict[str, torch.Tensor]]]:
    """Squeeze the generators in the order of ``plans``, all with the first one's channels where their shapes agree.

    Returns:
        whether all agree, {generator: {block: kept channels}}.
    """
    kept: Dict[str, Dict[str, torch.Tensor]] = {}
    shared = True
    order = list(plans)
    for name in order:

        def step(block: str, done: int, total: int, name: str = name) -> None:
            if progress is not None:
                progress(f"{name}.{block}", order.index(name) * total + done, len(order) * total)

        fits = plans[name].same_widths(plans[order[0]])
        shared = shared and fits
        given = kept.get(order[0]) if fits else None
        kept[name] = squeeze(found[name], plans[name], init, kept=given or None, progress=step)
    return shared, kept


def read(source: PathLike, *, trust: bool) -> Any:
    """Load a host's pickle, or a file of torch.save (`Archive`), with all tensors on the CPU.

    Raises:
        CheckpointError: the file is missing, not trusted, not a pickle, or needs a module that is not there.
    """
    source = Path(source)
    if not source.is_file():
        raise CheckpointError(f"{source}: {'this is a folder' if source.is_dir() else 'there is no such file'}")
    if is_archive(source):
        return read_archive(source, trust=trust)
    check_trust(str(source), trust)
    try:
        with open(source, "rb") as stream:
            return _CpuUnpickler(stream).load()
    except ModuleNotFoundError as error:
        raise CheckpointError(f"{source}: {error}. {_cure(error.name)}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    except (pickle.UnpicklingError, EOFError, UnicodeDecodeError) as error:
        what = error or "it ends too early"
        raise CheckpointError(f"{source}: this is no readable pickle ({what}); is the download complete?") from error
    except Exception as error:  # whatever the code in the file, or a damaged file, brings about
        raise CheckpointError(f"{source}: the pickle cannot be rebuilt: {type(error).__name__}: {error}") from error


def check_trust(source: str, trust: bool) -> None:
    """Raise `CheckpointError` unless the user said that the file may run code."""
    if not trust:
        raise CheckpointError(
            f"{source}: loading a host's pickle runs code that is stored in the file. If you trust where it came from, "
            "say so with --trust (in Python: trust=True)"
        )


def write(data: Any, stream: IO[bytes]) -> None:
    """Write what `read` returned, in the file format that it came in."""
    if isinstance(data, Archive):
        data.save(stream)
        return
    pickle.dump(data, stream, protocol=PICKLE_PROTOCOL)


def generators(data: Any) -> Dict[str, torch.nn.Module]:
    """{name: module} of everything in a loaded checkpoint that is, or holds, a generator; '' for a bare module."""
    entries = data.items() if isinstance(data, dict) else [("", data)]
    found = {}
    for name, value in entries:
        if isinstance(value, torch.nn.Module):
            with contextlib.suppress(UnsupportedModelError):
                locate(value)
                found[str(name)] = value
    return found


@dataclass(frozen=True)
class Entry:
    """One network of a file: its class, its parameters, its `Status` if it is a generator that can be squeezed, else
    the adapter's reason why it cannot ('' = it is no generator)."""

    class_name: str
    parameters: int
    status: Optional[Status]
    reason: str


def inspect(source: PathLike, *, trust: bool, host: Optional[PathLike] = None) -> Dict[str, Entry]:
    """{name: Entry} of every network in a file.

    Raises:
        CheckpointError: as for `read`.
    """
    with host_path(host):
        data = read(source, trust=trust)
        found = generators(data)
        result = {}
        for name, value in data.items() if isinstance(data, dict) else [("", data)]:
            if isinstance(value, torch.nn.Module):
                parameters = sum(parameter.numel() for parameter in value.parameters())
                now = status(value) if str(name) in found else None
                reason = "" if now else refusal(value)
                result[str(name)] = Entry(type(value).__name__, parameters, now, reason)
        return result


@contextlib.contextmanager
def host_path(host: Optional[PathLike]) -> Iterator[None]:
    """Let pickles find the modules of a host's checkout.

    Raises:
        CheckpointError: the folder is no host's checkout, or another host's modules are loaded already.
    """
    if host is None:
        yield
        return
    folder = Path(host).resolve()
    if not (folder / "torch_utils").is_dir():
        raise CheckpointError(f"{host}: no torch_utils in this folder; --host names the folder of a host's checkout")
    loaded = sys.modules.get("torch_utils")
    at = Path(str(getattr(loaded, "__file__", None) or next(iter(getattr(loaded, "__path__", [folder]))))).resolve()
    if loaded is not None and folder not in at.parents and folder != at.parent:
        raise CheckpointError(
            f"{host}: torch_utils of another host is loaded in this process ({at}); use a new process"
        )
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))


class _CpuUnpickler(pickle.Unpickler):
    """Reads tensors to the CPU, wherever they were saved."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _load_on_cpu
        if module.split(".")[:2] == ["dnnlib", "tflib"]:
            raise CheckpointError(
                "this is a TensorFlow pickle of the original StyleGAN2. Convert it with the host's own legacy.py "
                "(python legacy.py --source=... --dest=...), then convert the result"
            )
        return super().find_class(module, name)


def _load_on_cpu(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)


def _cure(module: Optional[str]) -> str:
    name = (module or "").split(".")[0]
    if name == "pkg_resources":
        return "stylegan3 and its relatives need an older setuptools: pip install 'setuptools<81'"
    if name in ("torch_utils", "dnnlib", "training", "legacy", "pg_modules"):
        return f"The pickle was made in a host's checkout and needs its {name}: name that folder with --host DIR"
    return f"Install {name}, or name the host's checkout with --host DIR"


def check_target(source: Path, target: Path, force: bool) -> None:
    """Raise `CheckpointError` where ``target`` cannot or must not be written."""
    if target.is_dir() or not target.parent.is_dir():
        what = "this is a folder" if target.is_dir() else f"there is no folder {target.parent}"
        raise CheckpointError(f"{target}: {what}; the target has to be a file in a folder that exists")
    if target.exists() and source.exists() and target.samefile(source):
        raise CheckpointError(f"{target}: source and target are the same file; the dense checkpoint would be lost")
    if target.exists() and not force:
        raise CheckpointError(f"{target}: the file exists; --force overwrites it")


def dense_generators(source: Path, data: Any) -> Dict[str, torch.nn.Module]:
    """The generators of a loaded checkpoint, each object once.

    Raises:
        CheckpointError, UnsupportedModelError: there is none; the adapter's reason where there is one.
        StateError: one is squeezed already.
    """
    found = generators(data)
    if not found:
        entries = data.items() if isinstance(data, dict) else [("", data)]
        seen = ", ".join(f"{name or 'file'}: {type(value).__name__}" for name, value in entries)
        for _, value in entries:
            if isinstance(value, torch.nn.Module) and refusal(value):
                raise UnsupportedModelError(f"{source}: {refusal(value)}")
        raise CheckpointError(f"{source}: no generator in this file that can be squeezed (it holds {seen})")
    for name, generator in found.items():
        now = status(generator)
        if now.state != "dense":
            raise StateError(f"{source}: {name or 'the generator'} is squeezed already ({now}); convert a dense file")
    return {name: G for name, G in found.items() if name == _first_name(found, G)}


def _first_name(found: Mapping[str, torch.nn.Module], generator: torch.nn.Module) -> str:
    """One object may stand under several names; the reference's name goes first."""
    return reference_name([name for name, other in found.items() if other is generator])
