"""CUDA kernels of a host of NVIDIA's family, compiled ahead of time.

    python -m tests.hosts.plugins HOST FOLDER
    SQUEEZE_PLUGINS=FOLDER python -m benchmarks step --device cuda --host ada

HOST is a checkout. Under a torch newer than the host, its own loader may compile the kernels and not find them
afterwards. Compiling needs a CUDA toolkit, but no GPU where TORCH_CUDA_ARCH_LIST says what for ("9.0": H100).
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, Optional

import torch

#: of the hosts, those that have kernels of their own
OPERATIONS = ("bias_act", "upfirdn2d", "filtered_lrelu")
PLUGINS = "SQUEEZE_PLUGINS"


@functools.cache
def compiled(operation: str) -> Optional[Any]:
    """The module of its kernels in the folder SQUEEZE_PLUGINS; None without that variable or a GPU."""
    folder = os.environ.get(PLUGINS)
    if not folder or not torch.cuda.is_available():
        return None
    file = Path(folder) / f"{_name(operation)}.so"
    if not file.is_file():
        return None
    spec = importlib.util.spec_from_file_location(_name(operation), file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compile_all(host: Path, folder: Path) -> None:
    """Those kernels that lie in the host's folder of operations."""
    from torch.utils.cpp_extension import load

    folder.mkdir(parents=True, exist_ok=True)
    for operation in OPERATIONS:
        sources = sorted(str(file) for file in (host / "torch_utils" / "ops").glob(f"{operation}*.c*"))
        if sources:
            load(
                _name(operation),
                sources,
                extra_cuda_cflags=["--use_fast_math"],  # as the hosts do
                build_directory=str(folder),
                verbose=True,
                is_python_module=False,
            )


def _name(operation: str) -> str:
    return f"{operation}_plugin"


if __name__ == "__main__":
    compile_all(Path(sys.argv[1]), Path(sys.argv[2]))
