"""What blocks of the NVIDIA family's forks are called with beside features, image and styles.

It imports torch and the standard library only, and uses no ``__future__`` import: its text stands inside pickles
(`portable`), where it has to run without squeeze_patch.
"""

import inspect
from typing import Any, Callable, Dict, Iterable, Iterator, Sequence

import torch

#: what every host's convolution layers take; of these toRGB knows the first
USUAL = ("fused_modconv", "noise_mode", "gain")


def foreign_arguments(own: Callable[..., Any], known: Sequence[Callable[..., Any]]) -> Dict[str, Any]:
    """Arguments of a dense block's forward behind x, img and ws, with their defaults, that no function of ``known``
    names: the block itself acts on them, and a squeezed one cannot know how. Defaults that are no plain values are
    stored as None."""
    named = {*USUAL, *(name for function in known for name in inspect.signature(function).parameters)}
    more = list(inspect.signature(own).parameters.values())[3:]
    more = [one for one in more if one.name not in named and one.kind is not one.VAR_KEYWORD]
    return {one.name: one.default if isinstance(one.default, (bool, int, float, str)) else None for one in more}


def drop_foreign(kwargs: Dict[str, Any], foreign: Dict[str, Any], where: str) -> None:
    """Take `foreign_arguments` out of a call's; raise `TypeError` for one that says more than its default."""
    for name, default in foreign.items():
        given = kwargs.pop(name, default)
        if given is not default and (isinstance(given, torch.Tensor) or given != default):
            raise TypeError(
                f"{where} is squeezed and does not know {name}, which the host's own block acts on. Call it without, "
                "or put the dense blocks back: squeeze_patch.remove(G)"
            )


def torgb_arguments(layer: Any, kwargs: Dict[str, Any]) -> Dict[str, Any]:
    """Those of the convolutions' arguments that toRGB takes, too: always fused_modconv, and what a fork has added."""
    own = {"fused_modconv": kwargs["fused_modconv"]}
    added = [name for name in kwargs if name not in USUAL]
    if added:
        known = inspect.signature(type(layer).forward).parameters
        own.update({name: kwargs[name] for name in added if name in known})
    return own


def first_sizes(values: Iterable[Any]) -> Iterator[Any]:
    """Sizes of the first dimension of the tensors among ``values``, and in dictionaries there."""
    for value in values:
        if isinstance(value, torch.Tensor) and value.ndim:
            yield value.shape[0]
        elif isinstance(value, dict):
            yield from first_sizes(value.values())
