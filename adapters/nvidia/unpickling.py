"""What the NVIDIA family's pickles need of a host's checkout, and those that only TensorFlow can read."""

from __future__ import annotations

from typing import Any, Optional

import torch

from squeeze_patch.adapters.nvidia import stored
from squeeze_patch.adapters.records import Record

_OF_A_CHECKOUT = ("torch_utils", "dnnlib", "training", "legacy", "pg_modules")


class NvidiaPickles:
    """The role of files that are pickles: they name modules of the checkout in which they were made."""

    marker = "torch_utils"

    def known(self, module: str, name: str) -> Optional[Any]:
        return stored.known(module, name)

    def is_generator(self, value: Any) -> bool:
        return stored.is_generator(value)

    def body_of(self, record: Record) -> torch.nn.Module:
        return stored.body_of(record)

    def stored_of(self, body: torch.nn.Module, record: Record) -> Record:
        return stored.stored_of(body, record)

    def cure(self, module: str) -> Optional[str]:
        name = module.split(".")[0]
        if name == "pkg_resources":
            return "stylegan3 and its relatives need an older setuptools: pip install 'setuptools<81'"
        if name in _OF_A_CHECKOUT:
            return f"The pickle was made in a host's checkout and needs its {name}: name that folder with --host DIR"
        return None

    def refuse(self, module: str) -> Optional[str]:
        if module.split(".")[:2] == ["dnnlib", "tflib"]:
            return (
                "this is a TensorFlow pickle of the original StyleGAN2. Convert it with the host's own legacy.py "
                "(python legacy.py --source=... --dest=...), then convert the result"
            )
        return None
