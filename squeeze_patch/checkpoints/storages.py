"""The numbers of tensors, as torch.save stores them: members of a zip archive, or, before torch 1.6 and inside other
pickles, one behind the other. What a file claims is held against what it has before any of it is allocated.
"""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from dataclasses import dataclass
from typing import IO, Any, Callable, Dict, Optional, Tuple

import torch

#: what the older form begins with: a pickled magic number
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
#: pickles in front of the one that counts there: the magic number, the protocol, sizes of C's integers
HEADERS = 3
#: {class of a storage: what it holds}
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
#: a file may make four times its size of itself, and this: torch.save compresses nothing, other tools little
GENEROUS = 1 << 24
CHUNK = 1 << 24
TOO_LARGE = "there is not enough memory for it"

#: (key, dtype, numbers) -> the storage of that key
Storages = Callable[[str, torch.dtype, int], "Storage"]
#: the unpickler of a stream, with the storages that it names
Unpickling = Callable[[IO[bytes], Storages], Any]


@dataclass(frozen=True)
class Storage:
    """``count`` numbers of one kind, [count], as views of which tensors are stored; None while they are unread."""

    count: int
    numbers: Optional[torch.Tensor]


class CarefulStream:
    """A file that is asked for no more than it has, by the methods that unpicklers call: Python makes room for what is
    asked for before it reads.

    Args:
        stream: it.
        size: its bytes.
    """

    def __init__(self, stream: Any, size: int) -> None:
        self._stream, self._size = stream, size
        self.readline, self.readinto, self.tell, self.seek = stream.readline, stream.readinto, stream.tell, stream.seek

    def read(self, count: int) -> bytes:
        """As far as there are as many bytes; ``count`` is not negative."""
        if count > CHUNK:  # a look at the place takes time
            count = min(count, max(0, self._size - self._stream.tell()))
        data: bytes = self._stream.read(count)
        return data


def storage_of(pid: Any, storages: Storages) -> Storage:
    """What a pickle of torch.save refers to: ("storage", dtype, key, device, numbers, ...)."""
    good = isinstance(pid, tuple) and 5 <= len(pid) <= 6 and pid[0] == "storage"
    if not (good and isinstance(pid[1], torch.dtype) and isinstance(pid[2], str) and isinstance(pid[4], int)):
        raise pickle.UnpicklingError("a reference to something else than a storage")
    if pid[4] < 0 or any(part is not None for part in pid[5:]):
        raise pickle.UnpicklingError("a storage of an impossible size, or a part of another one")
    return storages(pid[2], pid[1], pid[4])


class ArchiveStorages:
    """Those of a zip archive; every checksum is verified by reading.

    Args:
        archive: it.
        folder: the name in it under which torch.save put everything.
    """

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self._archive, self._folder = archive, folder
        self._read: Dict[str, torch.Tensor] = {}  # one of a key, so that tensors that share numbers go on sharing them

    def __call__(self, key: str, dtype: torch.dtype, count: int) -> Storage:
        if key not in self._read:
            self._read[key] = _numbers(read_member(self._archive, f"{self._folder}data/{key}"))
        if len(self._read[key]) != count * size_of(dtype):
            raise pickle.UnpicklingError(f"storage {key} has {len(self._read[key]):,} bytes, not {count:,} numbers")
        return Storage(count, self._read[key].view(dtype))


def read_member(archive: zipfile.ZipFile, name: str) -> bytearray:
    """A member of an archive, of the size that the archive declares.

    Raises:
        KeyError: there is no such member.
        zipfile.BadZipFile: its checksum is wrong.
    """
    info = archive.getinfo(name)
    data = bytearray()
    with archive.open(info) as stream:
        while len(data) < info.file_size:
            chunk = stream.read(min(CHUNK, info.file_size - len(data)))
            if not chunk:
                raise EOFError
            data += chunk
        stream.read(1)  # the checksum is looked at when the end is met
    return data


def check_archive(archive: zipfile.ZipFile, size: int) -> str:
    """Look at the names and sizes of an archive of ``size`` bytes, before anything of it is read.

    Returns:
        the name under which torch.save put everything, "" or with a slash at its end.

    Raises:
        zipfile.BadZipFile: it is none of torch.save's, has a name twice, or claims to hold much more than it is long.
    """
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if len(set(names)) != len(names):
        raise zipfile.BadZipFile("it has two members of one name")
    if sum(info.file_size for info in infos) > GENEROUS + 4 * size:
        raise zipfile.BadZipFile("it claims to hold much more than it is long")
    if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in infos):
        # bz2 and lzma unpack without bound
        raise zipfile.BadZipFile("it is packed in another way than torch.save packs")
    pickles = [name for name in names if name == "data.pkl" or (name.count("/") == 1 and name.endswith("/data.pkl"))]
    if len(pickles) != 1:
        raise zipfile.BadZipFile("a zip archive, but not one of torch.save")
    folder = pickles[0][: -len("data.pkl")]
    order = f"{folder}byteorder"
    if order in names and bytes(read_member(archive, order)) != b"little":
        raise zipfile.BadZipFile("its numbers are stored in another byte order")
    return folder


def load_legacy(stream: Any, size: int, unpickling: Unpickling) -> Any:
    """What the older form holds in ``size`` bytes: behind the header the pickle, the keys of its storages, and these.

    The keys say nothing of types, so that the pickle is read twice: for the types, and with the numbers at hand.
    """
    for _ in range(HEADERS):
        _skip_pickle(stream)
    start = stream.tell()
    kinds: Dict[str, Tuple[torch.dtype, int]] = {}

    def note(key: str, dtype: torch.dtype, count: int) -> Storage:
        if kinds.setdefault(key, (dtype, count)) != (dtype, count) or count * size_of(dtype) > size:
            raise pickle.UnpicklingError(f"storage {key} has an impossible size")
        return Storage(count, None)

    unpickling(stream, note)
    keys = unpickling(stream, note)
    if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys) and set(keys) == kinds.keys()):
        raise pickle.UnpicklingError("its storages are other ones than those it names")
    found: Dict[str, torch.Tensor] = {}
    for key in keys:
        dtype, count = kinds[key]
        stored, data = stream.read(8), bytearray(count * size_of(dtype))  # no more than the file is long
        if int.from_bytes(stored, "little") != count or key in found or _fill(stream, data) < len(data):
            raise EOFError
        found[key] = _numbers(data)
    stream.seek(start)
    return unpickling(stream, lambda key, dtype, count: Storage(count, found[key].view(dtype)))


def _fill(stream: Any, data: bytearray) -> int:
    """Read so many bytes; how many there were."""
    return int(stream.readinto(data))


def _skip_pickle(stream: IO[bytes]) -> None:
    for _ in pickletools.genops(stream):
        pass


def _numbers(data: bytearray) -> torch.Tensor:
    """Bytes, as a tensor: [n]."""
    return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty([0], dtype=torch.uint8)


def size_of(dtype: torch.dtype) -> int:
    """Bytes of one number."""
    return torch.empty([0], dtype=dtype).element_size()
