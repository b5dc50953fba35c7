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
        generator_class.__init__ = generator_class.__init__  # type: ignore[misc]  # its own, also where it inherits one
        _squeeze_built(generator_class, squeeze)
        begin = generator_class.__init_subclass__  # of this class; those of its subclasses are told theirs

        def begin_subclass(cls: Any, /, **kwargs: Any) -> None:
            getattr(begin, "__func__", lambda _cls, **more: begin(**more))(cls, **kwargs)
            _squeeze_built(cls, squeeze)

        generator_class.__init_subclass__ = classmethod(begin_subclass)  # type: ignore[assignment]
        return True


def _squeeze_built(cls: Any, squeeze: Callable[[torch.nn.Module], Any]) -> None:
    """Have instances of a class of generators, and of its subclasses, squeezed at the end of the last constructor."""
    for subclass in cls.__subclasses__():
        _squeeze_built(subclass, squeeze)
    if "__init__" not in vars(cls):
        return
    build = cls.__init__

    @functools.wraps(build)
    def build_squeezed(self: Any, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        outermost = next(each for each in type(self).__mro__ if "__init__" in vars(each))
        if outermost is cls:
            squeeze(self)

    cls.__init__ = build_squeezed
