"""What the user's modules have beyond what their class gives them, when another module takes their place: it is carried
over where that is right, and named where it would be lost.

What a class gives is seen on a module that was just built: a block of the dense one's own width, with which the adapter
would replace it. What differs there from the block of the wanted width depends on the width. Where the dense block
comes back, the squeezed one is held against its outline: what it was when it came.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from types import MethodType
from typing import Any, Collection, Iterator, List, Mapping, Optional, Tuple

import torch

from squeeze_patch.adapters.layers import is_stored, own_tensors, set_stored
from squeeze_patch.errors import shown

Module = torch.nn.Module

_OF_TORCH = frozenset(vars(Module()))
#: hooks that are called when a state dict is made or loaded; they know the module that they were registered on
_STATE_HOOKS = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
#: what torch.compile notes on tensors that it has seen
_OF_COMPILING = "_dynamo_"
#: hooks of a tensor's gradient
_GRADIENT_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.memory_format)


@dataclass(frozen=True)
class Belongings:
    """Of one block.

    Attributes:
        carried: (path of a module or a tensor within the block, attribute, value) of what its successor is to have as
            well.
        stored: (path of a module within the block, name of a buffer, whether state dicts have it).
        channels_last: paths of tensors that the user has in that memory format.
        shared: whether its parameters are in memory that other processes have, too.
        lost: what its successor cannot have, in words.
    """

    carried: List[Tuple[str, str, Any]] = field(default_factory=list)
    stored: List[Tuple[str, str, bool]] = field(default_factory=list)
    channels_last: List[str] = field(default_factory=list)
    shared: bool = False
    lost: List[str] = field(default_factory=list)

    def give_to(self, block: Module) -> None:
        for path, name, value in self.carried:
            setattr(_at(block, path), name, value)
        for path, name, stored in self.stored:
            set_stored(block.get_submodule(path), name, stored)
        for path in self.channels_last:
            tensor = _at(block, path)
            tensor.data = tensor.detach().contiguous(memory_format=torch.channels_last)
        if self.shared:
            block.share_memory()


def _at(block: Module, path: str) -> Any:
    """The module or the tensor there."""
    parent, _, leaf = path.rpartition(".")
    return getattr(block.get_submodule(parent), leaf) if path else block


class Outline(Module):
    """What a module has beside its numbers, as it was once; see `outline_of`."""


def outline_of(module: Module) -> Outline:
    """The attributes of a module and of all that is in it, the shapes of its tensors, and its hooks on state dicts."""
    outline = Outline()
    for name, value in vars(module).items():
        if name not in _OF_TORCH:
            vars(outline)[name] = copy.deepcopy(value) if _is_plain(value) else value
        elif name in _STATE_HOOKS:
            vars(outline)[name] = dict(value)
    for name, tensor in own_tensors(module).items():
        empty = torch.empty_like(tensor.detach(), device="meta")
        vars(empty).update(vars(tensor))
        outline.register_buffer(name, empty)
    for name, child in module.named_children():
        outline._modules[name] = outline_of(child)
    return outline


@dataclass(frozen=True)
class Three:
    """A module of the user's at ``path``, its successor of the same width, just built, or its own outline, and the one
    it is to get."""

    path: str
    old: Module
    like: Module
    new: Module

    def children(self) -> Iterator[Three]:
        """Those that get successors."""
        for name, old in self.old.named_children():
            like, new = self.like._modules.get(name), self.new._modules.get(name)
            if like is not None and new is not None and new is not old:
                yield Three(f"{self.path}.{name}" if self.path else name, old, like, new)


def belongings_of(name: str, old: Module, like: Module, new: Module, internal: Collection[str] = ()) -> Belongings:
    """What the dense block ``old`` has beyond its class.

    Args:
        name: of the block.
        old, like, new: see `Three`.
        internal: attributes with which the host keeps its own books.
    """
    parameters: List[Any] = [*old.parameters()]
    found = Belongings(shared=bool(parameters) and all(p.device.type == "cpu" and p.is_shared() for p in parameters))
    waiting = [Three("", old, like, new)]
    while waiting:
        three = waiting.pop(0)
        where = f"{name}.{three.path}" if three.path else name
        more = [
            *_state(three),
            *_attributes(three, internal, found.carried),
            *_on_tensors(three, found),
            *_state_hooks(three),
        ]
        if more:
            found.lost.append(f"{where} ({type(three.old).__name__}) holds {', '.join(more)}")
        waiting.extend(three.children())
    return found


def _state(three: Three) -> Iterator[str]:
    """Names of parameters, buffers and children that the successor does not have."""
    for name, child in three.old.named_children():
        if three.like._modules.get(name) is None:
            yield from [f"{name}.{key}" for key in child.state_dict()] or [name]
    old, like = own_tensors(three.old), own_tensors(three.like)
    yield from (key for key, tensor in old.items() if key not in like or like[key].shape != tensor.shape)


def _attributes(three: Three, internal: Collection[str], carried: List[Tuple[str, str, Any]]) -> Iterator[str]:
    """Names of attributes that cannot go to the successor; the others are appended to ``carried``."""
    like, new = vars(three.like), vars(three.new)
    for name, value in vars(three.old).items():
        if name in _OF_TORCH or name in internal:
            continue
        if isinstance(three.like, Outline) and name in like and (value is like[name] or name not in new):
            continue  # as it came, or of a class that the successor is not
        if callable(value) and hasattr(type(three.old), name):
            yield f"{name}, a function of its own"
        elif name in like and _alike(value, like[name]):
            continue
        elif name in like and name in new and not (_alike(like[name], new[name]) or _alike(value, new[name])):
            yield f"{name} = {shown(value)} (which depends on the width)"
        elif _keeps_tensors(value):
            yield name
        else:
            carried.append((three.path, name, value))


def _on_tensors(three: Three, found: Belongings) -> Iterator[str]:
    """What a parameter or buffer of the user's has beyond its numbers, where another tensor takes its place; as
    `_attributes`."""
    old, like, new = own_tensors(three.old), own_tensors(three.like), own_tensors(three.new)
    for name in old.keys() & new.keys():
        if new[name] is old[name]:
            continue
        if any(getattr(old[name], hooks, None) for hooks in _GRADIENT_HOOKS):
            yield f"hooks on the gradient of {name}"
        if type(old[name]) not in (torch.Tensor, torch.nn.Parameter, type(new[name])):
            yield f"{name} (of a class of its own, {type(old[name]).__name__})"
        path = f"{three.path}.{name}" if three.path else name
        if _is_channels_last(old[name]) and not _is_channels_last(new[name]):
            found.channels_last.append(path)
        for attribute, value in vars(old[name]).items():
            known = vars(like.get(name, new[name]))
            if attribute.startswith(_OF_COMPILING) or (attribute in known and _alike(value, known[attribute])):
                continue
            if _keeps_tensors(value):
                yield f"{name}.{attribute}"
            else:
                found.carried.append((path, attribute, value))
        if name in three.old._buffers and name in three.new._buffers:
            found.stored.append((three.path, name, is_stored(three.old, name)))


def _is_channels_last(tensor: torch.Tensor) -> bool:
    """Of one layout alone: that of a 1x1 kernel is both."""
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return last and not tensor.is_contiguous()


def _state_hooks(three: Three) -> Iterator[str]:
    old, like = (sum(len(getattr(m, hooks, ())) for hooks in _STATE_HOOKS) for m in (three.old, three.like))
    if old > like:
        yield "hooks on its state dict"


def _alike(a: Any, b: Any) -> bool:
    """Two values of one attribute; of what cannot be compared, the kind is."""
    if _is_plain(a) and _is_plain(b):
        return bool(a == b) or (a != a and b != b)
    return type(a) is type(b)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _keeps_tensors(value: Any) -> bool:
    """They may have as many channels as the module had, or be parameters of the one that goes."""
    if isinstance(value, (torch.Tensor, Module)):
        return True
    if isinstance(value, MethodType):
        return _keeps_tensors(value.__self__)
    if isinstance(value, Mapping):
        return any(map(_keeps_tensors, value.values()))
    return isinstance(value, (list, tuple, set, frozenset)) and any(map(_keeps_tensors, value))


def successors(path: str, old: Module, new: Module) -> Iterator[Tuple[str, Module, Optional[Module]]]:
    """(path, module that goes, module in its place or None) of a block and all that is in it."""
    if old is new:
        return
    yield path, old, new
    for name, child in old.named_children():
        other = new._modules.get(name)
        if other is None:
            yield from ((f"{path}.{name}{'.' if at else ''}{at}", module, None) for at, module in child.named_modules())
        else:
            yield from successors(f"{path}.{name}", child, other)
