"""Files of torch.save, read without running code from them, alike in every release of torch."""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path
from typing import IO, Any, Optional, Type

import torch

from squeeze_patch.checkpoints.inert import InertUnpickler
from squeeze_patch.checkpoints.inert_sharing import check_sharing
from squeeze_patch.checkpoints.inert_values import TENSOR_NAMES, UnknownName
from squeeze_patch.checkpoints.storages import (
    LEGACY,
    TOO_LARGE,
    ArchiveStorages,
    CarefulStream,
    Storages,
    check_archive,
    load_legacy,
    read_member,
)
from squeeze_patch.errors import CheckpointError, shortened

ZIP = b"PK\x03\x04"


def is_archive(source: Path) -> bool:
    """Whether torch.save wrote the file, rather than a host's pickle."""
    with open(source, "rb") as stream:
        return stream.read(32).startswith((ZIP, LEGACY))


def load_tensors(source: Path) -> Any:
    """What the file holds, tensors on the CPU: tensors, plain values, and the options of training scripts
    (argparse.Namespace).

    Raises:
        UnknownName: it holds more than that.
        Exception: it is damaged; `fault_in_words` says how.
    """
    return _load(source, _Tensors)


def load_inert(source: Path) -> Any:
    """The same of a file that holds whole modules: what is more than tensors is inert (`inert.load`)."""
    return _load(source, InertUnpickler)


def _load(source: Path, unpickler: Type[InertUnpickler]) -> Any:
    size = source.stat().st_size

    def load(stream: IO[bytes], storages: Storages) -> Any:
        return check_sharing(unpickler(stream, storages, size).load())

    with open(source, "rb") as stream:
        if stream.read(len(LEGACY)) == LEGACY:
            stream.seek(0)
            return load_legacy(CarefulStream(stream, size), size, load)
    with zipfile.ZipFile(source) as archive:
        folder = check_archive(archive, size)
        pickled = io.BytesIO(read_member(archive, f"{folder}data.pkl"))
        return load(pickled, ArchiveStorages(archive, folder))


class _Remembering:
    """A stream whose errors are raised at the end: torch's writer, in C++, may end the process at one (torch 1.13)."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.error: Optional[OSError] = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                self._stream.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        pass  # whoever opened the stream does


def save_tensors(data: Any, stream: IO[bytes], **options: Any) -> None:
    """torch.save, whose failures to write are OSErrors."""
    remembering: Any = _Remembering(stream)
    torch.save(data, remembering, **options)
    if remembering.error is not None:
        raise remembering.error


def check_sums(source: Path) -> None:
    """Read a zip archive once and raise `zipfile.BadZipFile` where a checksum is wrong, or a member is there twice."""
    if not zipfile.is_zipfile(source):
        return
    with zipfile.ZipFile(source) as archive:
        check_archive(archive, source.stat().st_size)
        wrong = archive.testzip()
        if wrong is not None:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {wrong!r}")


def unreadable(source: Path, error: Exception) -> CheckpointError:
    """For a damaged file, whose reading ended with ``error``."""
    return CheckpointError(f"{source}: no readable file of torch.save ({fault_in_words(error)}); is it complete?")


def fault_in_words(error: Exception) -> str:
    """What is wrong with a file whose reading ended with ``error``."""
    if "CRC" in str(error):
        return (
            f"a checksum is wrong ({error}): it was damaged on its way or on the disk, or was written without checksums"
        )
    known = {EOFError: "it ends too early", KeyError: f"it has no {error}", RecursionError: "it is nested too deep"}
    known[MemoryError] = TOO_LARGE
    return shortened(known.get(type(error), error))


class _Tensors(InertUnpickler):
    """Restricted to tensors, plain values and options."""

    def known(self, module: str, name: str) -> Any:
        if (module, name) == ("argparse", "Namespace"):
            return argparse.Namespace
        if (module, name) in TENSOR_NAMES:
            return TENSOR_NAMES[module, name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise UnknownName.of(module, name)
