"""The text of squeezed blocks that travels in the hosts' pickles, which load where squeeze_patch is not installed."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from typing import Any

from squeeze_patch import connection, fused_convolution, handing_on
from squeeze_patch.adapters.nvidia import block as block_module
from squeeze_patch.adapters.nvidia import call_arguments, fused_layers

#: the modules whose text stands in front of block.py's, in the place of lines that import from them
_PARTS = (connection, handing_on, fused_convolution, call_arguments, fused_layers)
_IMPORT = re.compile(r"^from squeeze_patch\.[\w.]+ import (?:\([^)]*\)|.*)\n", re.MULTILINE)


@functools.cache
def portable_source() -> str:
    """connection.py, the files of fused inference and block.py as one module, which imports torch and the standard
    library only."""
    return "\n\n".join(_IMPORT.sub("", inspect.getsource(part)) for part in (*_PARTS, block_module))


@functools.cache
def rebuildable_source(host_source: str, base: str) -> str:
    """The host's module as its pickles carry it, with a squeezed subclass of its generator class at the end.

    Cached, so that the generators of one file share one string, which pickle then stores once.
    """
    return (
        f"{host_source}\n\n{portable_source()}\n\n"
        f"class SqueezedGenerator(RebuildSqueezed, {base}):\n"
        f'    """{base} with image squeeze connections, also when it is rebuilt from its init_kwargs."""\n'
    )


def shaped_block(block: Any, shape: Any) -> Any:
    """As `block.shaped_block`; pickles of a squeezed block, where its host makes classes persistent, carry
    `portable_source`."""
    tables = persistence_tables(type(block))
    if tables is not None:
        modules, sources = tables
        modules.setdefault(portable_source(), block_module)
        sources.setdefault(block_module, portable_source())
    return block_module.shaped_block(block, shape)


def persistence_tables(cls: Any) -> Any:
    """The host's tables ({source: module}, {module: source}) of the code in its pickles, None where it has none."""
    known = getattr(cls.__reduce__, "__globals__", {})
    tables = known.get("_src_to_module_dict"), known.get("_module_to_src_dict")
    return None if None in tables else tables


def module_of(cls: Any) -> Any:
    """The module, loaded under its name, in which a class was defined; None where there is none."""
    return sys.modules.get(cls.__module__)
