"""Hosts' pickles: read with all tensors on the CPU, once the user trusts the file."""

from __future__ import annotations

import contextlib
import importlib
import io
import pickle
import sys
import warnings
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any, Iterator, Optional, Tuple, Union

import torch

from squeeze_patch.adapters import pickle_families
from squeeze_patch.errors import CheckpointError, LostWarning, module_cure

#: readable from Python 3.4 on, as the hosts' own files are
PICKLE_PROTOCOL = 4

PathLike = Union[str, Path]


_host: ContextVar[Optional[Path]] = ContextVar("host", default=None)


class NeverRun(CheckpointError):
    """The pickle is read without running it, trusted or not."""


def host_is_named() -> bool:
    """Whether code is inside of `host_path` with a host."""
    return _host.get() is not None


def read_pickle(source: Path) -> Any:
    """What a trusted pickle holds; reading it runs code that is stored in it.

    Raises:
        NeverRun: it is of a kind that is only read by `stored.read_stored`.
        CheckpointError: the file is not a pickle, or needs a module that is not there.
    """
    try:
        with open(source, "rb") as stream:
            data = _CpuUnpickler(stream).load()
            warn_of_more(source, stream)
            return data
    except ModuleNotFoundError as error:
        raise CheckpointError(f"{source}: {error}. {_cure(error.name)}") from error
    except NeverRun:
        raise
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    except (pickle.UnpicklingError, EOFError, UnicodeDecodeError) as error:
        what = error or "it ends too early"
        raise CheckpointError(f"{source}: this is no readable pickle ({what}); is the download complete?") from error
    except Exception as error:  # whatever the code in the file, or a damaged file, brings about
        raise CheckpointError(f"{source}: the pickle cannot be rebuilt: {type(error).__name__}: {error}") from error


def warn_of_more(source: Path, stream: IO[bytes]) -> None:
    """`LostWarning` where more than padding stands behind the pickle that was read from a file: hosts read that one
    only, and what is written holds no other."""
    at = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    stream.seek(at)
    if any(part.strip(b"\0 \t\r\n") for part in iter(lambda: stream.read(1 << 20), b"")):
        warnings.warn(
            f"{source}: its last {size - at:,} bytes stand behind the pickle, as a second one would: they are not "
            "read, and no file that is made of this one will have them",
            LostWarning,
            stacklevel=3,
        )


@contextlib.contextmanager
def host_path(host: Optional[PathLike]) -> Iterator[None]:
    """Let pickles find the modules of a host's checkout.

    Raises:
        CheckpointError: the folder is no host's checkout, or another host's modules are loaded already.
    """
    if host is None:
        yield
        return
    outer = Path(host).resolve()
    markers = [role.marker for role in pickle_families()]
    folder, marker = _checkout(outer)
    if marker is None:
        raise CheckpointError(
            f"{host}: no {' and no '.join(markers)} in this folder; --host names the folder of a host's checkout"
        )
    loaded = sys.modules.get(marker)
    at = Path(str(getattr(loaded, "__file__", None) or next(iter(getattr(loaded, "__path__", [folder]))))).resolve()
    if loaded is not None and folder not in at.parents and folder != at.parent:
        raise CheckpointError(f"{host}: {marker} of another host is loaded in this process ({at}); use a new process")
    paths = list(dict.fromkeys([str(folder), str(outer)]))
    sys.path[:0] = paths
    importlib.invalidate_caches()
    token = _host.set(folder)
    try:
        yield
    finally:
        _host.reset(token)
        for path in paths:
            with contextlib.suppress(ValueError):  # the host's modules may take it out themselves
                sys.path.remove(path)


def is_checkout(folder: Path) -> bool:
    """Whether a folder can be named as `host_path`'s host."""
    return _checkout(folder)[1] is not None


def _checkout(outer: Path) -> Tuple[Path, Optional[str]]:
    """The folder that a host's modules are imported from, and the module that tells it, None where none does."""
    folder, markers = outer, [role.marker for role in pickle_families()]
    if not any((folder / name).is_dir() for name in markers) and (folder / "src").is_dir():
        folder = folder / "src"  # as some forks keep their modules; others import theirs as src.*
    return folder, next((name for name in markers if (folder / name).is_dir()), None)


class _CpuUnpickler(pickle.Unpickler):
    """Reads tensors to the CPU, wherever they were saved."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _load_on_cpu
        for reason in (role.refuse(module) for role in pickle_families()):
            if reason is not None:
                raise NeverRun(reason)
        return super().find_class(module, name)


def _load_on_cpu(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)


def _cure(module: Optional[str]) -> str:
    known = (role.cure(module or "") for role in pickle_families())
    name = (module or "").split(".")[0]
    general = module_cure(module) or f"Install {name}, or put the folder that has it on PYTHONPATH"
    return next((cure for cure in known if cure), general)
