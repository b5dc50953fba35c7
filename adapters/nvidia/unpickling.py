"""The NVIDIA family's pickles: what they hold, and what they need of a host's checkout."""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, List, Optional, Tuple

import torch

from squeeze_patch.adapters.nvidia import stored
from squeeze_patch.adapters.nvidia.hosted import OF_A_CHECKOUT, missing_module
from squeeze_patch.adapters.nvidia.known_sources import known_definitions
from squeeze_patch.adapters.nvidia.portable import portable_source
from squeeze_patch.adapters.nvidia.tensorflow import NETWORK, TensorFlowFile, network_class, networks_of
from squeeze_patch.adapters.records import Global, Record
from squeeze_patch.adapters.roles import Foreign

#: what the family's pickles name
_USUAL_NAMES = (
    ("torch_utils.persistence", "_reconstruct_persistent_obj"),
    ("dnnlib.util", "EasyDict"),
    ("dnnlib", "EasyDict"),
    ("dnnlib.tflib.network", "Network"),
)
#: functions of the hosts' that call, compile or fetch what their arguments name
_RUNNING_NAMES = tuple(
    (module, name)
    for module, names in {
        "torch_utils.persistence": ("_src_to_module", "import_hook"),
        "torch_utils.custom_ops": ("get_plugin",),
        "dnnlib.util": ("call_func_by_name", "construct_class_by_name", "get_obj_by_name", "open_url"),
        "legacy": ("load_network_pkl", "_LegacyUnpickler"),
    }.items()
    for name in names
)
#: which entry of what they are given is source text that loading runs: torch_utils.persistence compiles the module of
#: every object, dnnlib.tflib that of the function that builds a network
_SOURCE_ENTRIES: Dict[Tuple[str, str], str] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): "module_src",
    ("dnnlib.tflib.network", "Network"): "build_module_src",
}


class NvidiaPickles:
    """The role of files that are pickles: they name modules of the checkout in which they were made."""

    marker = "torch_utils"
    source_entries: FrozenSet[str] = frozenset(_SOURCE_ENTRIES.values())

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

    def judge(self, module: str, name: str) -> Optional[bool]:
        if (module, name) in _USUAL_NAMES:
            return True
        return False if (module, name) in _RUNNING_NAMES else None

    def source_entry(self, module: str, name: str) -> Optional[str]:
        return _SOURCE_ENTRIES.get((module, name))

    def imports_usually(self, module: str) -> bool:
        return module.split(".")[0] in OF_A_CHECKOUT

    def own_source(self) -> str:
        return portable_source()

    def known_definitions(self, source: str) -> Tuple[List[str], List[str]]:
        return known_definitions(source)
