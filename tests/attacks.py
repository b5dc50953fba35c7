"""Further files that would do something when they are loaded: the scan and the loader could read them differently."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
import zlib
from typing import Any, Callable, Dict, List, Tuple

import torch

#: what torch.save wrote before its files were archives begins with
OLDER_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_HEADERS = b"\x80\x02}.\x80\x02N.\x80\x02]."


def word(text: str) -> bytes:
    """BINUNICODE"""
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def call(mark: str) -> bytes:
    return b"cposix\nmkdir\n" + word(mark) + b"\x85R"


def attacks(mark: str, saved: Callable[[], bytes]) -> Dict[str, bytes]:
    """Files that make a folder ``mark``; ``saved`` makes one as torch.save does."""
    make = b"\x80\x02" + call(mark) + b"."
    zeros = b"p" + b"0" * 20
    files = {
        "long numbers in PUT": b"\x80\x04"
        + word("collections")
        + b"p1\n0"
        + word("OrderedDict")
        + b"p2\n0"
        + word("posix")
        + zeros
        + b"1\n0"
        + word("mkdir")
        + zeros
        + b"2\n0g1\ng2\n\x93"
        + word(mark)
        + b"\x85R.",
        "a number with a zero byte in PUT": b"\x80\x02" + call(mark) + b"p1\0x\n.",
        "a frame over a gap": _framed(make),
        "a gap before another directory": _two_directories(saved()),
        "a tar archive whose first name is of torch": _tar_of_torch(make),
        "a gap in a tar archive": _sparse(make),
        "safetensors that are a pickle": b"G"
        + b"\0" * 7
        + b"{0"
        + word('"dtype"')
        + b"0"
        + call(mark)
        + b"0cposix\n!\n."
        + b" " * 80,
        "a tar archive that is a pickle": _entry(call(mark) + b"0.", 1) + b"x".ljust(512, b"\0") + b"\0" * 1024,
        **_attributes(saved()),
        **_entries(mark),
    }
    return files


def _attributes(blob: bytes) -> Dict[str, bytes]:
    """What an attribute is calls _load_from_bytes with bytes that are put together of numbers."""
    numbers = b"(" + b"".join(b"K" + bytes([byte]) for byte in blob) + b"t"
    given = b"cbuiltins\nbytes\n" + numbers + b"\x85R"
    load = b"ctorch.storage\n_load_from_bytes\n"
    start = b"\x80\x04cargparse\nNamespace\n)R"
    bases = b"\x80\x04ccopyreg\n_reconstructor\ncollections\nOrderedDict\n" + start[2:]
    return {
        "a state of an instance": start + b"}" + word("__setstate__") + load + b"sb" + given + b"b.",
        "an attribute append": start + b"}" + word("append") + load + b"sb" + given + b"a.",
        "an attribute extend": start + b"}" + word("extend") + load + b"sb(" + given + b"e.",
        "an attribute add": start + b"}" + word("add") + load + b"sb(" + given + b"\x90.",
        "an attribute out of pairs": start + b"ccollections\nOrderedDict\n]" + word("append") + load + b"\x86a\x85Rb.",
        "an instance as a base": bases.replace(b"collections", b"ccollections", 1) + b"N\x87R.",
        "a function in a list": b"\x80\x04]" + load + b"a.",
    }


def _entries(mark: str) -> Dict[str, bytes]:
    """Two texts for one source."""
    start = b"\x80\x04ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
    good, bad = word("class Generator:\n    pass\n"), word(f"import os\nos.mkdir({mark!r})\n")
    key = word("module_src")
    escaped = b"V" + b"".join(b"\\u%04x" % byte for byte in b"module_src") + b"\n"
    quoted = b"S'module_src'" + b" " * 500 + b"\n"
    easy = b"cdnnlib.util\nEasyDict\n)\x81" + key + good + b"s"
    return {
        "source under a key with escapes": start + b"}(" + key + good + escaped + bad + b"u\x85R.",
        "source under a key in quotes": start + b"}(" + key + good + quoted + bad + b"u\x85R.",
        "source under a computed key": start
        + b"}("
        + key
        + good
        + b"cbuiltins\nstr\n"
        + key
        + b"\x85R"
        + bad
        + b"u\x85R.",
        "source that is set twice": start + b"}(" + (key + good) * 20 + key + bad + b"u\x85R.",
        "source in a state of slots": start + easy + b"N}" + key + bad + b"s\x86b\x85R.",
    }


def _framed(make: bytes) -> bytes:
    """Torch's older form: the frame of its second pickle takes what a scan sees with it."""
    inner = b"M\xe9\x03." + _HEADERS + b"\0" * 20_000
    return OLDER_TORCH + b"\x80\x04\x95" + struct.pack("<Q", len(inner)) + inner + make + b"\x80\x02N.\x80\x02]."


def _entry(name: bytes, size: int, kind: bytes = b"0", holes: Tuple[Tuple[int, int], ...] = (), real: int = 0) -> bytes:
    """A header of a tar archive, of the oldest form where there are no holes."""
    head = bytearray(512)
    head[: len(name)] = name
    head[100:148] = b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"%011o\0" % 0
    head[148:157] = b" " * 8 + kind
    if holes:
        head[257:265] = b"ustar  \0"
        for index, (start, length) in enumerate(holes):
            head[386 + 24 * index : 410 + 24 * index] = b"%011o\0%011o\0" % (start, length)
        head[483:495] = b"%011o\0" % real
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def _member(name: bytes, data: bytes) -> bytes:
    return _entry(name, len(data)) + data + b"\0" * (-len(data) % tarfile.BLOCKSIZE)


def _tar_of_torch(make: bytes) -> bytes:
    rest = _member(b"storages", make) + _member(b"tensors", b"\x80\x02K\0.") + _member(b"pickle", b"\x80\x02N.")
    return _member(OLDER_TORCH + b"\x80\x02M\xe9\x03." + _HEADERS, b"x") + rest + b"\0" * 1024


def _sparse(make: bytes) -> bytes:
    """The pieces of a pickle, in another order inside the words of a harmless one."""
    first, second = make[:9], make[9:]
    head = b"\x80\x02B" + struct.pack("<I", len(make))
    raw = head + second + first + b"."
    holes = ((len(make), len(head)), (9, len(second)), (0, 9), (len(make) + len(head), 1))
    body = _entry(b"storages", len(raw), b"S", holes, len(raw)) + raw + b"\0" * (-len(raw) % 512)
    return body + _member(b"tensors", b"\x80\x02K\0.") + _member(b"pickle", b"\x80\x02N.") + b"\0" * 1024


def _two_directories(bad: bytes) -> bytes:
    """A good archive with all of a bad one in a member, to which a locator leads in the last comment."""
    stream = io.BytesIO()
    torch.save({"a": [1, 2, 3]}, stream)
    good = zipfile.ZipFile(stream)
    members: List[Tuple[str, bytes]] = [(name, good.read(name)) for name in good.namelist()]
    name = f"{members[0][0].split('/')[0]}/data/0"
    base = sum(30 + len(each.encode()) + len(data) for each, data in members) + 30 + len(name)
    end = bad.rfind(b"PK\x05\x06")
    count, size, offset = struct.unpack_from("<HLL", bad, end + 10)
    body = bytearray(bad[: offset + size])
    at = offset
    while at < offset + size:
        struct.pack_into("<L", body, at + 42, struct.unpack_from("<L", body, at + 42)[0] + base)
        at += 46 + sum(struct.unpack_from("<3H", body, at + 28))
    wide = b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, count, count, size, offset + base)
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, base + len(body), 1)
    return _stored([*members, (name, bytes(body) + wide)], locator)


def _stored(members: List[Tuple[str, bytes]], comment: bytes) -> bytes:
    """An archive, the last row of its directory with a comment."""
    out, rows = b"", b""
    for index, (name, data) in enumerate(members):
        raw, checksum, said = name.encode(), zlib.crc32(data), comment if index == len(members) - 1 else b""
        sizes: Tuple[Any, ...] = (checksum, len(data), len(data), len(raw), 0)
        rows += b"PK\x01\x02" + struct.pack("<6H", 20, 20, 0, 0, 0, 33) + struct.pack("<3L2H", *sizes)
        rows += struct.pack("<3H2L", len(said), 0, 0, 0, len(out)) + raw + said
        out += b"PK\x03\x04" + struct.pack("<5H", 20, 0, 0, 0, 33) + struct.pack("<3L2H", *sizes) + raw + data
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, len(members), len(members), len(rows), len(out), 0)
    return out + rows + end


def wide_archive(limit: Callable[[], None]) -> bytes:
    """As zipfile writes it, with the record for large archives, after ``limit`` lowered what is large."""
    stream = io.BytesIO()
    limit()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"x": 1}, 2))
    return stream.getvalue()
