"""How scripts of rosinality's repository build their generators: by the class Generator of its model.py."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any, Callable

import torch

from squeeze_patch.training.common import PrepareStart


class RosinalityScripts:
    """The role of scripts: everything beside model.py that builds a Generator."""

    def hook_training(self, module: Any, prepare: PrepareStart) -> bool:
        return False  # its scripts are run as they are, by `squeeze_patch.training.run`

    def hook_generators(self, folder: Path, squeeze: Callable[[torch.nn.Module], Any]) -> bool:
        if not (folder / "model.py").is_file():
            return False
        generator_class = getattr(importlib.import_module("model"), "Generator", None)
        if not isinstance(generator_class, type):
            return False
        build = generator_class.__init__  # type: ignore[misc]

        @functools.wraps(build)
        def build_squeezed(self: Any, *args: Any, **kwargs: Any) -> None:
            build(self, *args, **kwargs)
            whole = type(self) is generator_class  # a subclass goes on building
            if whole:
                squeeze(self)

        generator_class.__init__ = build_squeezed  # type: ignore[misc]
        return True
