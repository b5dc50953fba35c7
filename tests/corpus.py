"""Files that would do something when they are loaded: they make a folder. Loaded only to see that they work."""

from __future__ import annotations

import codecs
import ctypes
import functools
import gzip
import io
import marshal
import operator
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import webbrowser
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import torch

from tests.attacks import attacks


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def payloads(mark: str) -> Dict[str, bytes]:
    """Files that make a folder ``mark`` when they are unpickled."""
    path, run = repr(mark), f"__import__('os').mkdir({mark!r})"
    text = mark.encode()
    make = Call(os.mkdir, mark)
    inner = io.BytesIO()
    torch.save({"x": make}, inner)
    legacy = io.BytesIO()
    torch.save({"x": make}, legacy, _use_new_zipfile_serialization=False)
    found: Dict[str, Any] = {
        "top": make,
        "in a list": [1, make],
        "as a value": {"G_ema": make},
        "as a key": {(1, make): 2},
        "in a set": {1: frozenset([1]), 2: [make]},
        "in an ordered dict": OrderedDict(a=make),
        "eval": Call(eval, run),
        "exec": Call(exec, run),
        "open": Call(io.open, os.path.join(os.path.dirname(mark), "file"), "w"),
        "getattr": Call(getattr, Path, "mkdir"),
        "import": Call(__import__, "this"),
        "nested pickle": Call(pickle.loads, pickle.dumps(make)),
        "nested torch blob": Call(torch.storage._load_from_bytes, inner.getvalue()),
        "nested old torch blob": Call(torch.storage._load_from_bytes, legacy.getvalue()),
        "torch.load": Call(torch.load, "x.pt"),
        "compile": Call(compile, run, "x", "exec"),
        "hooks of a tensor": Call(
            torch._utils._rebuild_tensor_v2, torch.zeros(2).storage(), 0, (2,), (1,), False, OrderedDict(a=make)
        ),
        "state of a tensor": [torch.zeros(2), make],
        "numpy": Call(__import__("numpy").load, "x.npy", None, True),
        "exit": Call(sys.exit, 0),
    }
    files = {name: pickle.dumps(value, protocol=2) for name, value in found.items()}
    files.update({f"{name}, protocol 4": pickle.dumps(value, protocol=4) for name, value in found.items()})
    files["protocol 0"] = b"cposix\nmkdir\n(S" + path.encode() + b"\ntR."
    files["INST"] = b"(S" + path.encode() + b"\niposix\nmkdir\n."
    files["OBJ"] = b"(cposix\nmkdir\nS" + path.encode() + b"\no."
    files["BUILD on a class"] = b"ccollections\nOrderedDict\n}X\x01\x00\x00\x00xI1\nsb."
    files["BUILD on a function"] = b"ctorch.storage\n_load_from_bytes\n}X\x01\x00\x00\x00xI1\nsb."
    files["extension"] = b"\x82\x01."
    files["a call of what was loaded"] = b"ccollections\nOrderedDict\n)R)R."
    files["persistent id"] = b"Px\n."
    files["behind a generator's name"] = b"\x80\x04}\x8c\x05G_ema" + pickle.dumps(make, 4)[2:-1] + b"s."
    files["a name with dots"] = (
        b"\x80\x04\x8c\x05torch\x8c\x0eserialization.os\x93\x8c" + bytes([len(text)]) + text + b"\x85R."
    )
    return files


def short(text: str) -> bytes:
    """SHORT_BINUNICODE"""
    data = text.encode()
    return b"\x8c" + bytes([len(data)]) + data


def calling(module: bytes, name: bytes, argument: str) -> bytes:
    """Protocol 4: a call of a name with one word, without its beginning and end."""
    return short(module.decode()) + short(name.decode()) + b"\x93" + short(argument) + b"\x85R"


def zipped(*members: Tuple[str, bytes], **options: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def saved(value: Any, zipped: bool = True) -> bytes:
    """As torch.save writes it."""
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def stored_object(source: str, name: str = "Generator") -> bytes:
    """An object as the NVIDIA family's hosts store it, with the source of its module."""
    words = {"type": "class", "module_src": source, "class_name": name}
    items = b"".join(
        short(key) + b"X" + struct.pack("<I", len(value.encode())) + value.encode() for key, value in words.items()
    )
    items += short("version") + b"K\x06" + short("state") + b"}"
    return b"\x80\x04ctorch_utils.persistence\n_reconstruct_persistent_obj\n}(" + items + b"u\x85R."


def more_payloads(mark: str) -> Dict[str, bytes]:
    """Further files that only a scan is for."""
    return {
        **_by_function(mark),
        **_by_opcodes(mark),
        **_by_source(mark),
        **_by_archive(mark),
        **_by_place(mark),
        **attacks(mark, lambda: saved(Call(os.mkdir, mark))),
    }


def _by_function(mark: str) -> Dict[str, bytes]:
    run = f"__import__('os').mkdir({mark!r})"
    code = marshal.dumps(compile(run, "x", "exec"))
    found: Dict[str, Any] = {
        "subprocess": Call(subprocess.Popen, ["mkdir", mark]),
        "numpy.load": Call(np.load, "x.npy", None, True),
        "torch.hub": Call(torch.hub.load, "someone/something", "model"),
        "webbrowser": Call(webbrowser.open, "http://localhost:9"),
        "ctypes": Call(ctypes.CDLL, "libc.so.6"),
        "marshal": Call(marshal.loads, code),
        "methodcaller": Call(operator.methodcaller("mkdir"), Path(mark)),
        "partial": Call(functools.partial(os.mkdir, mark)),
        "decode": Call(codecs.decode, "bf.flfgrz", "rot13"),
        "gzip": Call(gzip.decompress, gzip.compress(pickle.dumps(Call(os.mkdir, mark)))),
    }
    files = {
        f"{name}, protocol {protocol}": pickle.dumps(value, protocol)
        for name, value in found.items()
        for protocol in (2, 4)
    }
    by_name = {
        "attrgetter": (b"operator", b"attrgetter", "system"),
        "FunctionType": (b"types", b"FunctionType", ""),
        "pip": (b"pip", b"main", "install"),
        "runpy": (b"runpy", b"run_path", "x.py"),
        "importlib": (b"importlib", b"import_module", "x"),
        "timeit": (b"timeit", b"timeit", run),
        "pty": (b"pty", b"spawn", "sh"),
        "bdb": (b"bdb", b"Bdb", ""),
        "linecache": (b"linecache", b"getlines", "x"),
        "someone's module": (b"somebody.module", b"function", "x"),
        "a host's function": (b"dnnlib.util", b"call_func_by_name", "os.system"),
        "another host's function": (b"torch_utils.persistence", b"_src_to_module", run),
        "cpp_extension": (b"torch.utils.cpp_extension", b"load_inline", "x"),
        "io.open_code": (b"io", b"open_code", "x"),
    }
    files.update({name: b"\x80\x04" + calling(*call) + b"." for name, call in by_name.items()})
    return files


def _by_opcodes(mark: str) -> Dict[str, bytes]:
    argument = short(mark) + b"\x85R."
    os_mkdir = short("os") + short("mkdir")
    line = mark.encode()
    return {
        "names from the memo": b"\x80\x04" + short("mkdir") + b"\x940" + short("os") + b"\x94h\x00\x93" + argument,
        "names from other strings": b"\x80\x04" + short("x") + b"0" + os_mkdir + b"\x93" + argument,
        "a name put together": b"\x80\x04"
        + short("os")
        + b"coperator\nadd\n"
        + short("mk")
        + short("dir")
        + b"\x86R\x93"
        + argument,
        "a name out of bytes": b"\x80\x04" + short("os") + b"c_codecs\ndecode\nC\x05mkdir\x85R\x93" + argument,
        "a name by join": b"\x80\x04"
        + short("os")
        + b"cbuiltins\ngetattr\n"
        + short("")
        + short("join")
        + b"\x86R]("
        + short("mk")
        + short("dir")
        + b"e\x85R\x93"
        + argument,
        "names with dots": b"\x80\x04" + short("torch") + short("serialization.os.mkdir") + b"\x93" + argument,
        "names with dots of a usual module": b"\x80\x04" + short("collections") + short("_sys.modules") + b"\x93.",
        "a chain of getattr": b"\x80\x04cbuiltins\ngetattr\n\x94ctorch\nserialization\n"
        + short("os")
        + b"\x86R\x94h\x00h\x01"
        + short("mkdir")
        + b"\x86R"
        + argument,
        "Python 2's name": b"c__builtin__\neval\n(S'1'\ntR.",
        "a number that pickletools cannot read": b"I0x10\n0cos\nmkdir\n(S'" + line + b"'\ntR.",
        "a word that pickletools cannot read": b"S'\\x4g'\n0cos\nmkdir\n(V" + line + b"\ntR.",
        "OBJ": b"(cos\nmkdir\nV" + line + b"\no.",
        "INST with a tuple": b"(V" + line + b"\nios\nmkdir\n.",
        "NEWOBJ": b"\x80\x02csubprocess\nPopen\nV" + line + b"\n\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04csubprocess\nPopen\n)}\x92.",
        "copyreg's new object": b"\x80\x02ccopy_reg\n__newobj__\ncsubprocess\nPopen\nV" + line + b"\n\x86R.",
        "EXT2": b"\x80\x02\x83\x01\x02.",
        "EXT4": b"\x80\x02\x84\x01\x02\x03\x00.",
        "BINPERSID": b"\x80\x02" + b"X\x01\x00\x00\x00xQ.",
        "BUILD of slots": b"\x80\x02ccollections\nOrderedDict\n(N}X\x01\x00\x00\x00xI1\nstb.",
        "items for a class": b"\x80\x02ccollections\nOrderedDict\nX\x01\x00\x00\x00xI1\ns.",
        "without an end": b"cos\nmkdir\n(V" + line + b"\ntR",
        "broken behind the call": b"cos\nmkdir\n(V" + line + b"\ntR\xff\xff\xff",
        "only named": b"\x80\x02cos\nsystem\n.",
        "computed bytes for torch": b"\x80\x02ctorch.storage\n_load_from_bytes\ncbuiltins\nbytes\n)R\x85R.",
        "a new codec": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xX\x04\x00\x00\x00evil\x86R.",
        "a call through torch's rebuilding": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cos\nmkdir\nNV"
        + line
        + b"\n\x85NtR.",
        "Python's old hook": b"\x80\x02}(X\x01\x00\x00\x00acos\nsystem\nu.",
    }


def _by_source(mark: str) -> Dict[str, bytes]:
    network = "import torch\nfrom torch_utils import persistence\n\n\n@persistence.persistent_class\n"
    network += "class Generator(torch.nn.Module):\n    pass\n"
    lines = {
        "import os": f"import os\nos.mkdir({mark!r})\n",
        "import inside a function": f"def f():\n    import os\n    os.mkdir({mark!r})\n\nx = f()\n",
        "__import__": f"x = __import__('os').mkdir({mark!r})\n",
        "exec": f"exec({f'import os; os.mkdir({mark!r})'!r})\n",
        "what cannot be parsed": "def f(:\n",
        "torch's os": f"x = torch.serialization.os.mkdir({mark!r})\n",
        "getattr": "x = getattr(torch, 'ser' + 'ialization')\n",
        "builtins": "x = __builtins__['ev' + 'al']\n",
        "subclasses": "x = ().__class__.__base__.__subclasses__()\n",
        "urllib": "from urllib.request import urlopen\n",
        "decoding": "import base64, zlib, marshal\n",
        "a decorator": "@eval\ndef f():\n    pass\n",
        "writing": f"x = open({mark!r}, 'w')\n",
        "torch.load": "x = torch.load('x.pt')\n",
        "cpp_extension": "import torch.utils.cpp_extension\n",
        "a class's body": "class A:\n    for i in range(3):\n        pass\n",
        "threads": "import threading\nthreading.Thread(target=print).start()\n",
        "atexit": "import atexit\n",
        "globals": "globals()['x'] = 1\n",
        "another module": "import somebody\n",
        "changing torch": "torch.nn.Module.forward = None\n",
    }
    files = {f"source: {name}": stored_object(network + text) for name, text in lines.items()}
    files["source that is computed"] = (
        b"\x80\x04ctorch_utils.persistence\n_reconstruct_persistent_obj\n}"
        + short("module_src")
        + b"cos\ngetcwd\n)Rs\x85R."
    )
    files["source that is nowhere"] = b"\x80\x04ctorch_utils.persistence\n_reconstruct_persistent_obj\n)R."
    files["source in the original StyleGAN2's objects"] = (
        b"\x80\x02cdnnlib.tflib.network\nNetwork\n)\x81}"
        + b"X\x10\x00\x00\x00build_module_src"
        + b"X\x09\x00\x00\x00import os"
        + b"sb."
    )
    loose = f"import os\n\n\ndef build():\n    if True:\n        return os.mkdir({mark!r})\n\n\nclass A:\n    pass\n"
    files["text that reads like source"] = pickle.dumps({"code": loose}, 4)
    return files


def _by_archive(mark: str) -> Dict[str, bytes]:
    make = pickle.dumps(Call(os.mkdir, mark), 2)
    good, bad = saved({"x": torch.zeros(2)}), saved({"x": Call(os.mkdir, mark)})
    harmless = pickle.dumps({"x": 1}, 2)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        member = tarfile.TarInfo("pickle")
        member.size = len(make)
        archive.addfile(member, io.BytesIO(make))
    disagreeing = bytearray(zipped(("a/data.pkl", harmless)))
    disagreeing[30:40] = b"b/data.pkl"
    objects = io.BytesIO()
    np.save(objects, np.array([Call(os.mkdir, mark)], dtype=object), allow_pickle=True)
    files = {
        "torch.save": bad,
        "torch.save, older format": saved({"x": Call(os.mkdir, mark)}, zipped=False),
        "another member": zipped(("a/data.pkl", harmless), ("a/extra.pkl", make)),
        "a member of no telling name": zipped(("a/data.pkl", harmless), ("a/data/0", make)),
        "a packed member": zipped(("a/data.pkl", make), compression=zipfile.ZIP_DEFLATED),
        "an archive in an archive": zipped(("a/data.pkl", harmless), ("b.pt", bad)),
        "a name that leads out": zipped(("../../x.py", b"")),
        "an absolute name": zipped(("/etc/x", b"")),
        "a name with a drive": zipped(("C:\\x", b"")),
        "two headers": bytes(disagreeing),
        "a pickle and an archive": make + good,
        "a harmless pickle and an archive": harmless + bad,
        "an archive behind something": b"\0" * 100 + bad,
        "an archive and more": good + make,
        "TorchScript": zipped(
            ("a/data.pkl", harmless), ("a/code/x.py", b"def f(): pass"), ("a/constants.pkl", harmless)
        ),
        "compiled code": zipped(("a/data.pkl", harmless), ("a/x.pyc", b"\0" * 16)),
        "tar": tar.getvalue(),
        "objects of NumPy": objects.getvalue(),
        "objects of NumPy in an archive": zipped(("x.npy", objects.getvalue())),
        "a pickle in the first name of a tar archive": make.ljust(257, b"\0") + b"ustar" + b"\0" * 250,
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive2:
        archive2.writestr("a/data.pkl", harmless)
        info = zipfile.ZipInfo("a/data.pkx")
        archive2.writestr(info, make)
    files["two members of one name"] = stream.getvalue().replace(b"a/data.pkx", b"a/data.pkl")
    return files


def _by_place(mark: str) -> Dict[str, bytes]:
    make, harmless = Call(os.mkdir, mark), pickle.dumps({"x": 1}, 4)
    inner: Any = make
    for _ in range(4):
        inner = Call(torch.storage._load_from_bytes, saved(inner, zipped=False))
    blob = saved(make, zipped=False)
    places: List[Any] = [
        Call(torch.storage._load_from_bytes, blob),
        {"G": {"x": [1, (2, Call(torch.storage._load_from_bytes, saved(make)))]}},
        {"x": blob},
        inner,
        {"x": pickle.dumps(make, 0)},
        {"x": bytearray(pickle.dumps(make, 4))},
    ]
    files = {
        f"inside, {index}, protocol {p}": pickle.dumps(value, p)
        for index, value in enumerate(places)
        for p in (2, 4, 5)
    }
    files["a second pickle"] = harmless + pickle.dumps(make, 4)
    files["a third pickle of protocol 0"] = harmless + harmless + pickle.dumps(make, 0)
    files["behind the end and a gap"] = harmless + b"\0\0\0" + pickle.dumps(make, 4)
    files.update({f"protocol {p}": pickle.dumps({"x": [make]}, p) for p in range(6)})
    files["a large file"] = pickle.dumps({"x": b"\0" * 5_000_000, "y": make}, 4)
    return files
