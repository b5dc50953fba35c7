"""The NVIDIA family's pickles: what they hold, and what they need of a host's checkout."""

from __future__ import annotations

from typing import Any, Optional

import torch

from squeeze_patch.adapters.nvidia import stored
from squeeze_patch.adapters.nvidia.hosted import missing_module
from squeeze_patch.adapters.nvidia.tensorflow import NETWORK, TensorFlowFile, network_class, networks_of
from squeeze_patch.adapters.records import Global, Record
from squeeze_patch.adapters.roles import Foreign


class NvidiaPickles:
    """The role of files that are pickles: they name modules of the checkout in which they were made."""

    marker = "torch_utils"

    def known(self, module: str, name: str) -> Optional[Any]:
        return network_class() if Global(module, name) == NETWORK else stored.known(module, name)

    def is_generator(self, value: Any) -> bool:
        return stored.is_generator(value)

    def body_of(self, record: Record) -> torch.nn.Module:
        return stored.body_of(record)

    def stored_of(self, body: torch.nn.Module, record: Record) -> Record:
        return stored.stored_of(body, record)

    def foreign(self, data: Any) -> Optional[Foreign]:
        networks = networks_of(data)
        return None if networks is None else TensorFlowFile(networks)

    def cure(self, module: str) -> Optional[str]:
        return missing_module(module)

    def refuse(self, module: str) -> Optional[str]:
        if module.split(".")[:2] == ["dnnlib", "tflib"]:
            return "this is a TensorFlow pickle, and nothing in one is ever run"
        if module == "tfutil":
            return "this is a TensorFlow pickle of ProGAN, which has no image skip connection to replace"
        return None
