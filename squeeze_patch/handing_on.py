"""How a squeezed block hands its squeezed features on, to a convolution that folds excite into itself.

It imports torch, the standard library and `squeeze_patch.connection` only, and uses no ``__future__`` import: its text
stands inside pickles (`squeeze_patch.adapters.nvidia.portable`), where it has to run without squeeze_patch.
"""

from types import SimpleNamespace
from typing import Any, Callable, List

import torch
from torch.autograd import forward_ad

from squeeze_patch.connection import Excite

#: hooks of every module in the process
_HEARD_BY_ALL = (torch.nn.modules.module._global_forward_hooks, torch.nn.modules.module._global_forward_pre_hooks)


class Handed:
    """What a squeezed block hands on in the place of its features excite(f) [N, c, H, W]: f [N, q, H, W] and excite.

    Args:
        squeezed: f.
        excite: weight, weight_gain, bias and conv_clamp as they were then, `kept`: features may be read much later.
    """

    squeezed: torch.Tensor
    excite: Any
    _computed: List[torch.Tensor]

    def __init__(self, squeezed: torch.Tensor, excite: Any) -> None:
        self.squeezed, self.excite, self._computed = squeezed, excite, []

    def own_features(self) -> torch.Tensor:
        """excite(f) for the block that reads it, in the memory format of f."""
        return self._computed[0] if self._computed else Excite.forward(self.excite, self.squeezed)

    @property
    def was_read(self) -> bool:
        """Whether somebody has seen, and perhaps changed, the features."""
        return len(self._computed) > 0

    def features(self) -> torch.Tensor:
        """excite(f) for anybody else, one contiguous tensor however often it is asked for."""
        if not self._computed:
            self._computed.append(Excite.forward(self.excite, self.squeezed).contiguous())
        return self._computed[0]

    def recast(self, dtype: torch.dtype) -> Any:
        """The same in another dtype."""
        if self.was_read:
            return self.features().to(dtype)
        return self if dtype == self.squeezed.dtype else type(self)(self.squeezed.to(dtype), self.excite)


class Deferred(Handed, torch.Tensor):
    """The same as a tensor [N, c, H, W] for everybody else: its values are computed when somebody reads them, a hook or
    a host that hands features out."""

    @staticmethod
    def __new__(cls, squeezed: torch.Tensor, excite: Any) -> Any:
        n, _, height, width = squeezed.shape
        shape = (n, excite.weight.shape[0], height, width)
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, shape, dtype=squeezed.dtype, device=squeezed.device, layout=squeezed.layout, requires_grad=False
        )

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        def opened(value: Any) -> Any:
            if type(value) in (list, tuple):
                return type(value)(map(opened, value))
            return value.features() if isinstance(value, Handed) else value

        return function(*opened(args), **{name: opened(value) for name, value in (kwargs or {}).items()})


def _of_features(name: str) -> Callable[..., Any]:
    return lambda self, *args, **kwargs: getattr(self.features(), name)(*args, **kwargs)


# These reach for a tensor's memory, of which this one has none, without being dispatched.
for _name in ("numpy", "tolist", "data_ptr", "storage", "untyped_storage", "share_memory_", "__array__"):
    setattr(Deferred, _name, _of_features(_name))
for _name in ("__deepcopy__", "__reduce_ex__", "__repr__", "__dlpack__", "__dlpack_device__", "requires_grad_"):
    setattr(Deferred, _name, _of_features(_name))


def hand_on(block: Any, squeezed: torch.Tensor) -> Any:
    """What ``block`` hands on: its features, or where nobody may ask for a gradient of them, f for the block that reads
    them to fold excite into itself. On a GPU (measured on an H100) folding costs more time than it saves."""
    excite = block.excite
    if on_gpu(squeezed) or torch.is_grad_enabled() or not _is_known(excite):
        return excite(squeezed.contiguous() if _is_heard(excite) else squeezed)
    if not _is_compiling():
        return Deferred(squeezed, _kept(excite))
    # torch.compile cannot make such a tensor; nobody but hooks reads what passes between the blocks of one graph.
    return excite(squeezed) if block._forward_hooks else Handed(squeezed, excite)


def as_seen(block: Any, x: Any) -> Any:
    """What ``block`` returns, as its hooks are used to it."""
    return x if isinstance(x, Handed) or not _is_heard(block) else x.contiguous()


def _is_heard(module: Any) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_known(excite: Any) -> bool:
    """Whether it is nothing but an `Excite`, which need not be called for what it does."""
    forward = getattr(type(excite), "forward", None)
    own = forward is Excite.forward and forward.__qualname__ == "Excite.forward" and "forward" not in vars(excite)
    return own and not _is_heard(excite) and {"weight", "bias"} <= set(excite._parameters)


def _kept(excite: Any) -> SimpleNamespace:
    """Copies of what it computes with: what is read later has to be what was there now."""
    weight, bias = excite.weight.detach().clone(), excite.bias.detach().clone()
    return SimpleNamespace(weight=weight, bias=bias, weight_gain=excite.weight_gain, conv_clamp=excite.conv_clamp)


def read(x: Any) -> Any:
    """Features, however they were handed on, as layers and hooks of others want them."""
    return x.features() if isinstance(x, Handed) else x.contiguous() if not on_gpu(x) else x


def _is_compiling() -> bool:
    compiler = getattr(torch, "compiler", None)
    return compiler is not None and hasattr(compiler, "is_compiling") and bool(compiler.is_compiling())


def is_plain_run(module: torch.nn.Module, *inputs: Any) -> bool:
    """Whether a module runs for its values alone: no gradient is asked for, no autocast chooses dtypes, nobody listens
    to all modules, and vmap has no part in it."""
    if any(_HEARD_BY_ALL) or forward_ad._current_level >= 0:
        return False
    tensors = (*(x for x in inputs if isinstance(x, torch.Tensor)), *module.parameters(), *module.buffers())
    if not _is_compiling() and any(map(_is_special, tensors)):
        return False
    if hasattr(torch, "get_autocast_dtype"):  # since torch 2.4
        autocast = torch.is_autocast_enabled(tensors[0].device.type)
    else:
        autocast = torch.is_autocast_enabled() or torch.is_autocast_cpu_enabled()
    return not autocast and not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))


def _is_special(x: torch.Tensor) -> bool:
    """Whether it holds nothing, as a batch of no images does, which no convolution of groups takes; or vmap stands for
    a batch of it: not every operation, and none in place, is known there."""
    if x.ndim and type(x.shape[0]) is int and x.shape[0] == 0:
        return True
    asked = getattr(getattr(torch._C, "_functorch", None), "is_batchedtensor", None)  # since torch 2.0
    return asked is not None and bool(asked(x))


def on_gpu(x: torch.Tensor) -> bool:
    """Whether it is not the CPU that computes: other ways are faster there."""
    return x.device.type != "cpu"
