"""Damage to checkpoint files, for `benchmarks.fuzz`: bytes, members of archives, opcodes of pickles and headers of
safetensors. `benchmarks.odd_values` changes what files hold instead.

A mutation takes a base file, all base files, and dice; it returns the damaged bytes and a line that says what was done.
"""

from __future__ import annotations

import io
import json
import pickletools
import random
import re
import struct
import warnings
import zipfile
from typing import Any, Callable, Dict, List, Mapping, Tuple

from benchmarks.corpora import Base
from squeeze_patch.checkpoints.storages import HEADERS, LEGACY

Mutated = Tuple[bytes, str]
Mutation = Callable[[Base, Mapping[str, Base], random.Random], Mutated]

#: numbers that counts, sizes, offsets and indices are replaced by
ODD_NUMBERS = (
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    65535,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 48,
    (1 << 63) - 1,
)
ODD_WORDS = (
    *("", "x", "G_ema", "synthesis", "mapping", "conv1", "weight", "forward", "__class__", "__dict__", "_modules"),
    *("squeeze_plan", "a.b", "module.", "\n\x1b[2J", "\u202e", "\ud800", "9" * 400, "x" * 5000, "../x", "data.pkl"),
    *("torch", "torch.nn.modules.linear", "Linear", "os", "system", "builtins", "getattr", "collections"),
)


def odd_number(dice: random.Random, size: int) -> bytes:
    """Little-endian, of ``size`` bytes."""
    return (dice.choice(ODD_NUMBERS) % (1 << 8 * size)).to_bytes(size, "little")


def bytes_changed(base: Base, others: Mapping[str, Base], dice: random.Random) -> Mutated:
    if dice.random() < 0.08:
        other = others[dice.choice(sorted(others))]
        head, tail = dice.randrange(len(base.data)), dice.randrange(len(other.data))
        return base.data[:head] + other.data[tail:], f"{head} bytes, then {other.name} from {tail}"
    data, lines = base.data, []
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        data, line = _damaged(data, dice)
        lines.append(line)
    return data, "; ".join(lines)


def _damaged(data: bytes, dice: random.Random) -> Mutated:
    """One change to bytes; half of them near an end, where the structure is."""
    if not data:
        return b"\x80", "one byte"
    near = dice.choice((len(data), len(data), min(len(data), 600)))
    place = dice.randrange(near)
    place = len(data) - 1 - place if dice.random() < 0.3 else place
    size = dice.choice((1, 2, 4, 8, 100))
    region = data[place : place + dice.choice((1, 8, 200))]
    after, line = dice.choice(
        (
            (bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :], "flip a bit"),
            (bytes([dice.randrange(256)]) + data[place + 1 :], "set a byte"),
            (odd_number(dice, min(size, 8)) + data[place + min(size, 8) :], "an odd number"),
            (data[place + size :], f"delete {size}"),
            (bytes(dice.randrange(256) for _ in range(size)) + data[place:], f"insert {size}"),
            (b"", "cut off"),
            (region * dice.choice((2, 9)) + data[place + len(region) :], f"repeat {len(region)}"),
        )
    )
    return data[:place] + after, f"{line} at {place}"


# Members of zip archives, with right checksums around them


def members_changed(base: Base, others: Mapping[str, Base], dice: random.Random) -> Mutated:
    if dice.random() < 0.3:
        return _archive_field(base.data, dice)
    members = members_of(base.data)
    name = dice.choice(sorted(members))
    if dice.random() < 0.4:
        name = next(member for member in members if member.endswith("/data.pkl"))
    other = dice.choice(sorted(members))
    kind = dice.choice(("bytes", "bytes", "bytes", "drop", "rename", "twice", "swap", "compress", "byteorder", "more"))
    method, pairs = zipfile.ZIP_STORED, list(members.items())
    if kind == "bytes":
        members[name], line = _damaged(members[name], dice)
        pairs, kind = list(members.items()), line
    elif kind == "drop":
        pairs = [pair for pair in pairs if pair[0] != name]
    elif kind == "rename":
        new = dice.choice((other, name + "x", name.replace("/", "\\"), "data.pkl", "/" + name, name.upper()))
        pairs, kind = [(new if key == name else key, value) for key, value in pairs], f"rename to {new}"
    elif kind == "twice":
        pairs.append((name, members[other]))
    elif kind == "swap":
        members[name], members[other] = members[other], members[name]
        pairs, kind = list(members.items()), f"swap with {other}"
    elif kind == "compress":
        method = dice.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    elif kind == "byteorder":
        pairs = [(key, b"big" if key.endswith("byteorder") else value) for key, value in pairs]
    else:
        pairs.append(
            (dice.choice(("x", name.rpartition("/")[0] + "/more", "y/data.pkl", "")), b"0" * dice.choice((0, 9)))
        )
    return archive_of(pairs, method), f"{name}: {kind}"


def members_of(data: bytes) -> Dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def archive_of(pairs: List[Tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        with zipfile.ZipFile(stream, "w", method) as archive:
            for name, value in pairs:
                archive.writestr(zipfile.ZipInfo(name), value, method)
    return stream.getvalue()


#: {signature: [(offset, size) of the fields behind it]}, of members, of the directory and of its end
_FIELDS = {
    b"PK\x03\x04": [(4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)],
    b"PK\x01\x02": [
        (4, 2),
        (6, 2),
        (8, 2),
        (10, 2),
        (16, 4),
        (20, 4),
        (24, 4),
        (28, 2),
        (30, 2),
        (32, 2),
        (34, 2),
        (42, 4),
    ],
    b"PK\x05\x06": [(4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)],
}


def _archive_field(data: bytes, dice: random.Random) -> Mutated:
    signature = dice.choice(sorted(_FIELDS))
    places = [found.start() for found in re.finditer(re.escape(signature), data)] or [0]
    offset, size = dice.choice(_FIELDS[signature])
    place = dice.choice(places) + offset
    new = odd_number(dice, size)
    return data[:place] + new + data[place + size :], f"field {offset} of {signature!r} at {place} becomes {new.hex()}"


# Opcodes of pickles


def opcodes_changed(base: Base, others: Mapping[str, Base], dice: random.Random) -> Mutated:
    lines = []
    if base.form == "pickle":
        data = without_frames(base.data)
        for _ in range(dice.choice((1, 1, 1, 2))):
            data, line = _opcode(data, dice)
            lines.append(line)
        return data, "; ".join(lines)
    if base.form == "older":
        start, end = main_pickle(base.data)
        changed, line = _opcode(base.data[start:end], dice)
        return base.data[:start] + changed + base.data[end:], line
    members = members_of(base.data)
    name = next(member for member in members if member.endswith("/data.pkl"))
    members[name], line = _opcode(members[name], dice)
    return archive_of(list(members.items())), line


def main_pickle(data: bytes) -> Tuple[int, int]:
    """Where the pickle that counts is in torch's older form."""
    stream = io.BytesIO(data)
    for _ in range(HEADERS):
        for _ in pickletools.genops(stream):
            pass
    start = stream.tell()
    for _ in pickletools.genops(stream):
        pass
    return start, stream.tell()


def operations(data: bytes) -> List[Tuple[Any, Any, bytes]]:
    """(opcode, argument, bytes) of every operation."""
    found = list(pickletools.genops(data))
    ends = [place for _, _, place in found[1:]] + [len(data)]
    return [(opcode, argument, data[place:end]) for (opcode, argument, place), end in zip(found, ends)]


def without_frames(data: bytes) -> bytes:
    """Frames say how long what follows is: a pickle may do without."""
    return b"".join(raw for opcode, _, raw in operations(data) if opcode.name != "FRAME")


_SIMPLE = b"0212N()]}l\x85\x86\x87\x88\x89\x94\x8f\x90\x91Rb\x81\x93saeut.Q"
_INSERTED = [bytes([code]) for code in _SIMPLE] + [
    b"h\x00",
    b"K\x05",
    b"h\xff",
    b"j\xff\xff\xff\x7f",
    b"\x8c\x01x",
    b"q\x00",
]


def _opcode(data: bytes, dice: random.Random) -> Mutated:
    """A pickle with one operation changed; one of a tensor's own pickle inside it, too."""
    steps = operations(data)
    index = dice.randrange(1, len(steps))
    nested = [
        at for at, (_, argument, _) in enumerate(steps) if isinstance(argument, bytes) and argument.startswith(LEGACY)
    ]
    raws = [raw for _, _, raw in steps]
    kind = dice.choice(
        ("argument", "argument", "argument", "word", "word", "drop", "twice", "swap", "insert", "replace")
    )
    if nested and dice.random() < 0.3:
        index = dice.choice(nested)
        inner = steps[index][1]
        start, end = main_pickle(inner)
        changed, line = _opcode(inner[start:end], dice)
        whole = inner[:start] + changed + inner[end:]
        raws[index] = b"B" + struct.pack("<I", len(whole)) + whole
        return b"".join(raws), f"in tensor {nested.index(index)}: {line}"
    if kind in ("argument", "word"):
        fits = [at for at, (_, argument, raw) in enumerate(steps) if _fits(kind, argument, raw)]
        index = dice.choice(fits or [index])
    opcode, argument, raw = steps[index]
    if kind == "argument":
        raws[index] = raw[:1] + odd_number(dice, min(len(raw) - 1, 8)) + raw[9:] if len(raw) > 1 else raw
    elif kind == "word":
        raws[index], argument = _other_word(steps, dice, argument)
    elif kind == "drop":
        raws[index] = b""
    elif kind == "twice":
        raws[index] = raw * dice.choice((2, 3, 2000))
    elif kind == "swap":
        other = dice.randrange(1, len(steps))
        raws[index], raws[other] = raws[other], raws[index]
    elif kind == "insert":
        raws[index] = dice.choice(_INSERTED) + raw
    else:
        raws[index] = dice.choice(_INSERTED) + raw[1:]
    return b"".join(raws), f"{kind} {opcode.name} {str(argument)[:40]!r} at {index}"


def _fits(kind: str, argument: Any, raw: bytes) -> bool:
    return isinstance(argument, str) if kind == "word" else 1 < len(raw) < 200


def _other_word(steps: List[Tuple[Any, Any, bytes]], dice: random.Random, word: Any) -> Tuple[bytes, str]:
    """An operation that pushes another word in the place of ``word``, and both in words."""
    words = [argument for _, argument, _ in steps if isinstance(argument, str) and len(argument) < 100]
    new = dice.choice([*ODD_WORDS, *words[:: max(1, len(words) // 20)]])
    text = new.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(text)) + text, f"{str(word)[:30]} -> {new[:30]}"


# Headers of safetensors


def header_of(data: bytes) -> Tuple[Dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: bytes, rest: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + rest


def headers_changed(base: Base, others: Mapping[str, Base], dice: random.Random) -> Mutated:
    header, rest = header_of(base.data)
    name = dice.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    kind = dice.choice(("shape", "offsets", "dtype", "field", "name", "twice", "words", "length", "text", "drop"))
    odd: Any = dice.choice((-1, 0, 1.5, 1 << 31, 1 << 63, 1 << 70, None, "x", [], {}, True, [[1]]))
    if kind in ("shape", "offsets"):
        numbers = entry["shape" if kind == "shape" else "data_offsets"]
        change = dice.choice(("replace", "append", "reverse", "shift"))
        if change == "replace" and numbers:
            numbers[dice.randrange(len(numbers))] = odd
        elif change == "shift":
            numbers[:] = [number + 4 for number in numbers]
        elif change == "reverse":
            numbers.reverse()
        else:
            numbers.append(odd)
    elif kind == "dtype":
        odd = entry["dtype"] = dice.choice(
            ("F16", "BF16", "F64", "I32", "U8", "BOOL", "F8_E4M3", "F4", "C64", "X", 3, None)
        )
    elif kind == "field":
        entry[dice.choice((*entry, "more"))] = odd
    elif kind in ("name", "drop"):
        del header[name]
        if kind == "name":
            odd = dice.choice((*ODD_WORDS, *header))
            header[odd] = entry
    elif kind == "words":
        key = dice.choice(("format", "squeeze_plan", "x"))
        header["__metadata__"] = dice.choice((odd, {key: odd}, {key: "\ud800"}, {key: "[" * 5000}, {}))
    text = json.dumps(header).encode()
    if kind == "twice":
        text = text[:-1] + b", " + json.dumps({name: entry}).encode()[1:]
    elif kind == "text":
        text, kind = _damaged(text, dice)
    data = with_header(text, rest)
    if kind == "length":
        data = odd_number(dice, 8) + data[8:]
    return data, f"{name}: {kind} {str(odd)[:30]!r}"
