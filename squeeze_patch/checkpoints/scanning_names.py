"""Which names in a pickle are usual, and which are known to run code that the file brings."""

from __future__ import annotations

import _compat_pickle
import functools
import re
import sys
from typing import Dict, FrozenSet, Optional, Tuple

import torch

from squeeze_patch.adapters import pickle_families
from squeeze_patch.checkpoints.scanning_findings import RUNS_CODE, UNKNOWN, USUAL, words

_ARRAYS = frozenset({"_reconstruct", "scalar"})
#: {module: names in it} that make tensors, arrays, plain values and containers, whatever their arguments are
_USUAL: Dict[str, FrozenSet[str]] = {
    "torch": frozenset({"Size", "Tensor", "device", "strided", "sparse_coo", "channels_last", "contiguous_format"}),
    "torch._utils": frozenset(
        {
            "_rebuild_tensor",
            "_rebuild_tensor_v2",
            "_rebuild_tensor_v3",
            "_rebuild_parameter",
            "_rebuild_parameter_with_state",
            "_rebuild_sparse_tensor",
            "_rebuild_qtensor",
            "_rebuild_device_tensor_from_numpy",
        }
    ),
    "torch.storage": frozenset(
        {"_load_from_bytes", "TypedStorage", "UntypedStorage", "_TypedStorage", "_UntypedStorage"}
    ),
    "torch._tensor": frozenset({"_rebuild_from_type_v2"}),
    "torch.jit._pickle": frozenset({"build_intlist", "build_doublelist", "build_boollist", "build_tensorlist"}),
    "torch.nn.parameter": frozenset({"Parameter", "Buffer", "UninitializedParameter"}),
    "torch.serialization": frozenset({"_get_layout"}),
    "collections": frozenset({"OrderedDict", "defaultdict", "Counter", "deque"}),
    "builtins": frozenset(
        {"set", "frozenset", "slice", "complex", "object", "bytearray", "bytes", "int", "float", "bool", "str"}
        | {"list", "dict", "tuple", "range"}
    ),
    "numpy": frozenset({"dtype", "ndarray", "float32", "float64", "int32", "int64", "uint8", "bool_"}),
    "numpy.core.multiarray": _ARRAYS,
    "numpy._core.multiarray": _ARRAYS,
    "numpy.core.numeric": frozenset({"_frombuffer"}),
    "numpy._core.numeric": frozenset({"_frombuffer"}),
    "_codecs": frozenset({"encode"}),
    "copyreg": frozenset({"__newobj__", "_reconstructor"}),
    "argparse": frozenset({"Namespace"}),
}
#: modules that run commands, other code or code of the file, load code, or reach the network, the disk or the process
_RUNNING = words(
    """
    os posix nt subprocess sys importlib imp runpy pkgutil zipimport pty code codeop pdb bdb trace cProfile
    profile timeit doctest pickle _pickle cPickle dill cloudpickle joblib marshal shelve ctypes _ctypes cffi
    socket _socket asyncio multiprocessing threading _thread concurrent signal atexit gc webbrowser urllib
    urllib2 requests http httplib httpx aiohttp ftplib smtplib ssl xmlrpc telnetlib poplib imaplib shutil
    tempfile pip ensurepip venv setuptools distutils site commands popen2 platform linecache inspect sqlite3
    idlelib lib2to3 pydoc tarfile zipfile fileinput mmap resource fcntl winreg msvcrt antigravity this turtle
    tkinter sched nturl2path torch.hub torch.jit torch.ops torch.classes torch.package torch.distributed
    torch.multiprocessing torch.onnx torch.utils.cpp_extension torch.utils.collect_env torch._dynamo
    torch._inductor torch.serialization torch.testing numpy.f2py numpy.distutils numpy.testing numpy.lib.npyio
    numpy.ctypeslib
    """
)
#: names in other modules that do, or that take a program apart
_RUNNING_NAMES: Dict[str, FrozenSet[str]] = {
    "builtins": words(
        """
    eval exec execfile compile open file input raw_input __import__ getattr setattr delattr globals locals vars
    breakpoint reload map filter apply type super help exit quit print memoryview
    """
    ),
    "io": frozenset({"open", "open_code", "FileIO"}),
    "_io": frozenset({"open", "open_code", "FileIO"}),
    "codecs": frozenset({"open"}),
    "types": frozenset({"FunctionType", "LambdaType", "CodeType", "MethodType", "ModuleType"}),
    "functools": frozenset({"partial", "partialmethod", "reduce", "singledispatch"}),
    "_functools": frozenset({"partial", "reduce"}),
    "operator": frozenset({"attrgetter", "methodcaller", "call"}),
    "_operator": frozenset({"attrgetter", "methodcaller", "call"}),
    "torch": frozenset({"load", "compile", "hub", "ops", "classes", "jit", "package"}),
    "torch.storage": frozenset({"_load_from_bytes"}),
    "numpy": frozenset({"load", "fromfile", "memmap", "DataSource", "loadtxt", "genfromtxt", "f2py"}),
    "pathlib": frozenset({"Path.write_text", "Path.write_bytes", "Path.unlink", "Path.mkdir", "Path.rename"}),
}
#: in a chain of attributes, where a module or a function leads on to others
_LEADING_ON = words(
    """
    os sys posix nt subprocess builtins __builtins__ __builtin__ importlib ctypes socket shutil runpy pickle
    marshal eval exec __import__ system popen __globals__ __subclasses__ __code__ __getattribute__ __reduce__
    __reduce_ex__ __mro__ __base__ __bases__ __loader__ __spec__ f_globals f_builtins gi_frame tb_frame
    __init_subclass__
    """
)
_WORDS = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


def judge_name(module: str, name: str, protocol: int) -> Tuple[str, str]:
    """(level, why) of importing ``name`` from ``module``, and calling it, in a pickle of that protocol."""
    if protocol < 3:  # Python maps the names of its releases before 3.0
        module, name = _mapped(module, name)
    for role in pickle_families():  # each time: another family may have been registered
        usual = role.judge(module, name)
        if usual is not None:
            return (USUAL, "") if usual else (RUNS_CODE, "runs what its arguments say")
    return _judged(module, name)


@functools.lru_cache(maxsize=4096)
def _judged(module: str, name: str) -> Tuple[str, str]:
    """As `judge_name`, of a name of which no family knows anything."""
    if name in _USUAL.get(module, ()) or _is_of_torch(module, name):
        return USUAL, ""
    if runs_code(module, name):
        return RUNS_CODE, "can run commands or code, or reaches files, the network or the process"
    return UNKNOWN, f"loading imports {module.split('.')[0]}"


def runs_code(module: str, name: str) -> bool:
    """Whether a name is known to run what it is given, or to lead on to what does."""
    parts = f"{module}.{name}".split(".")
    prefixes = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    if prefixes & _RUNNING or name in _RUNNING_NAMES.get(module, ()):
        return True
    if parts[0] in _RUNNING_NAMES and any(
        ".".join(parts[count:]) in _RUNNING_NAMES.get(".".join(parts[:count]), ()) for count in range(1, len(parts))
    ):
        return True
    return any(part in _LEADING_ON for part in parts[1:])


def is_name(module: str, name: str) -> bool:
    """Whether both could be names in Python."""
    return bool(_WORDS.fullmatch(module) and _WORDS.fullmatch(name))


def source_entry(module: str, name: str) -> Optional[str]:
    """The entry of an argument, or of a state, that is source text which loading runs, else None."""
    return next(filter(None, (role.source_entry(module, name) for role in pickle_families())), None)


def source_entries() -> FrozenSet[str]:
    """All that `source_entry` may say."""
    return frozenset(entry for role in pickle_families() for entry in role.source_entries)


def _mapped(module: str, name: str) -> Tuple[str, str]:
    if (module, name) in _compat_pickle.NAME_MAPPING:
        return _compat_pickle.NAME_MAPPING[module, name]
    return _compat_pickle.IMPORT_MAPPING.get(module, module), name


def _is_of_torch(module: str, name: str) -> bool:
    """Types of numbers, storages, and classes of torch.nn that this release of torch has."""
    if module in ("torch", "torch.cuda") and re.fullmatch(r"[A-Z]\w*Storage", name):
        return True
    if module == "torch":
        return isinstance(getattr(torch, name, None), torch.dtype)
    if not f"{module}.".startswith("torch.nn.modules."):
        return False
    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and issubclass(found, torch.nn.Module) and "." not in name
