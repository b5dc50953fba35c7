"""Which sources of the family's classes are known to compute what `body` computes.

Pickles carry the source of their classes. It is not run here; that a class does what its name says is told by a
checksum of its text, without comments and white space. Those below are of the hosts that the tests hold `body` against.
"""

from __future__ import annotations

import hashlib
import re
from typing import Dict, List, Tuple

#: {class or function: checksums of its text}
KNOWN: Dict[str, Tuple[str, ...]] = {
    "normalize_2nd_moment": ("a525be0127af",),
    "modulated_conv2d": ("a33726ddb224",),
    "FullyConnectedLayer": (
        "c80081bd08d6",
        "4325e7cb5a7c",
        "0189c72d290c",
        "3bd8ce73d5df",
    ),
    "MappingNetwork": (
        "735f0be06507",
        "ae6330547d07",
        "eede57ffce27",
        "3ac8cd17791a",
    ),
    "SynthesisLayer": (
        "a728e296fccf",
        "3819702a0619",
    ),
    "ToRGBLayer": (
        "5c3f0f4084e9",
        "a27f8d050d00",
    ),
    "SynthesisBlock": (
        "7b237f16f0b3",
        "aff8e820231e",
    ),
    "SynthesisNetwork": (
        "44d69c9ea20c",
        "c38078acda24",
        "a9a83a98b023",
        "2e03b3b9dcc8",
        "bf34eb3af112",
    ),
    "Generator": (
        "c9e4a92a8ea9",
        "2ee3929e060e",
        "229cb26362dc",
        "ebfae21b07e0",
    ),
}
#: functions that a class calls, by name
CALLED = {
    "SynthesisLayer": ("modulated_conv2d",),
    "ToRGBLayer": ("modulated_conv2d",),
    "MappingNetwork": ("normalize_2nd_moment",),
}


def unknown_parts(source: str, class_name: str) -> List[str]:
    """Those of a class and of the functions that it calls whose text is not a known one."""
    found = definitions(source)
    return [
        name
        for name in (class_name, *CALLED.get(class_name, ()))
        if name in KNOWN and name in {class_name, *found} and checksum(found.get(name, [])) not in KNOWN[name]
    ]


def known_definitions(source: str) -> Tuple[List[str], List[str]]:
    """Classes and functions at the top of a module: (those whose text is a known one, the others)."""
    known: List[str] = []
    others: List[str] = []
    for name, lines in definitions(source).items():
        (known if checksum(lines) in KNOWN.get(name, ()) else others).append(name)
    return known, others


def definitions(source: str) -> Dict[str, List[str]]:
    """{class or function at the top of a module: its lines}."""
    found: Dict[str, List[str]] = {}
    lines: List[str] = []
    for line in source.splitlines():
        start = re.match(r"(?:class|def)\s+(\w+)", line)
        if start:
            lines = found[start.group(1)] = []
        elif line[:1] not in ("", " ", "\t", "#", ")", "]"):
            lines = []
        lines.append(line)
    return found


def checksum(lines: List[str]) -> str:
    """Of a definition, whatever its comments and white space are."""
    kept = []
    for line in lines:
        quoted = "#" in line and re.search(r"['\"]", line.partition("#")[0])
        text = " ".join((line if quoted else line.partition("#")[0]).split())
        kept += [text] if text else []
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()[:12]
