"""What adapters of several families need to know of a host's layers."""

from __future__ import annotations

import itertools
from typing import Any, Callable, Collection, Dict, List, Mapping

import torch

from squeeze_patch.adapters.content import BlockShape, BlockSpec, SqueezedStart
from squeeze_patch.errors import StateError, UnsupportedModelError

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def class_named(module: torch.nn.Module, name: str) -> bool:
    """By name anywhere in the MRO: classes that come out of a pickle are in no importable module."""
    return any(cls.__name__ == name for cls in type(module).__mro__)


def uncompiled(module: Any) -> Any:
    """What ``torch.compile(module)`` was made from; another module itself."""
    return vars(module).get("_modules", {}).get("_orig_mod", module) if isinstance(module, torch.nn.Module) else module


def value(tensor: torch.Tensor) -> torch.Tensor:
    """A detached float32 copy on the CPU, or the tensor itself where it is one already."""
    found = tensor.detach().to(device="cpu", dtype=torch.float32)
    return found.clone() if found.is_inference() else found  # inference tensors are no part of any gradient


def truncation(mean: Callable[[], torch.Tensor]) -> Callable[[torch.Tensor, float], torch.Tensor]:
    """(styles [N, w_dim], psi) -> styles moved towards the mean style [w_dim], for hosts that store none (Karras et al.
    2019, section 4, appendix B). ``mean`` is called once, at the first psi that is not 1."""
    found: List[torch.Tensor] = []

    def truncated(w: torch.Tensor, psi: float) -> torch.Tensor:
        if psi == 1:
            return w
        found.extend([] if found else [mean()])
        return found[0].to(w) + psi * (w - found[0].to(w))

    return truncated


def fill_excite(excite: Any, start: SqueezedStart) -> None:
    """Write the start's part for excite, where the block has one; to be called without gradients."""
    if start.excite_weight is not None and start.excite_bias is not None:
        excite.weight.copy_(start.excite_weight[:, :, None, None] / excite.weight_gain)
        excite.bias.copy_(start.excite_bias)


def width_alone(spec: BlockSpec, shape: BlockShape, family: str) -> int:
    """q of the paper's block; `UnsupportedModelError` where another shape is asked for."""
    if shape != BlockShape(spec.dense_inputs, spec.channels, shape.width):
        raise UnsupportedModelError(
            f"{spec.name}: the adapter of family {family} builds blocks that are narrower behind conv1 alone, with "
            "excite; use method='squeeze' with a reduction, a ratio or widths"
        )
    return shape.width


def as_large_as(weight: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """``weight`` [out, ...], whose rows' size does not matter (they are demodulated), with rows of the root mean square
    of those of ``kept`` [out, ...], the host's own numbers: training steps are as large, in relation, as they were."""
    dims = list(range(1, weight.ndim))
    size, wanted = (x.float().square().mean(dim=dims, keepdim=True).sqrt() for x in (weight, kept))
    usable = (size > 0) & (wanted > 0)
    return weight * torch.where(usable, wanted.to(weight.device) / size.clamp_min(1e-30), torch.ones_like(size))


def is_parametrised(module: torch.nn.Module) -> bool:
    """Whether a weight is computed from others: torch's parametrizations, or the older weight_norm, spectral_norm."""
    computed = isinstance(getattr(module, "weight", None), torch.Tensor) and "weight" not in own_tensors(module)
    return hasattr(module, "parametrizations") or computed


def own_tensors(module: torch.nn.Module) -> Dict[str, torch.Tensor]:
    """A module's own parameters, and buffers: parameters that are frozen for good may have become such."""
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def is_stored(module: torch.nn.Module, buffer: str) -> bool:
    """Whether state dicts have this buffer of a module."""
    return buffer not in module._non_persistent_buffers_set


def set_stored(module: torch.nn.Module, buffer: str, stored: bool) -> None:
    names = module._non_persistent_buffers_set
    (names.discard if stored else names.add)(buffer)


def all_tensors(module: torch.nn.Module) -> Dict[str, torch.Tensor]:
    """{dotted path: parameter or buffer} of all that is in a module: also what its state dict leaves out, and nothing
    that hooks of the user's put into that."""
    found: Dict[str, torch.Tensor] = {}
    for path, part in module.named_modules():
        found.update({f"{path}.{name}" if path else name: tensor for name, tensor in own_tensors(part).items()})
    return found


def write_tensors(layer: torch.nn.Module, numbers: Mapping[str, torch.Tensor]) -> None:
    """Fill all tensors of a layer that was just built; those that the user's has not, it has not. To be called without
    gradients.

    Raises:
        UnsupportedModelError: a tensor has another shape.
    """
    for path, part in layer.named_modules():
        for name, tensor in own_tensors(part).items():
            whole = f"{path}.{name}" if path else name
            if whole not in numbers:
                setattr(part, name, None)
            elif numbers[whole].shape != tensor.shape:
                raise UnsupportedModelError(
                    f"{type(layer).__name__} makes {whole} of shape {[*tensor.shape]} where its channels leave "
                    f"{[*numbers[whole].shape]}; its host needs an adapter of its own"
                )
            else:
                tensor.copy_(numbers[whole])


def missing_tensors(layer: Any, paths: Collection[str]) -> List[str]:
    """Those of the dotted paths at which ``layer`` has no parameter and no buffer: a layer of somebody else's is there,
    perhaps around the host's."""
    tensors = {*dict(layer.named_parameters()), *dict(layer.named_buffers())}
    return sorted(path for path in paths if path not in tensors)


def reference_of(module: torch.nn.Module) -> torch.Tensor:
    """Its first parameter or, where it has none, buffer: the device and dtype that it computes in."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))


def is_plain(module: torch.nn.Module) -> bool:
    """Whether nobody listens to a module, and its forward is its class's: it need not be called for what it does."""
    hooked = any(getattr(module, hooks, None) for hooks in HOOKS)
    return not hooked and "forward" not in vars(module)


def runs_forward_of(module: torch.nn.Module, classes: Collection[str]) -> bool:
    """Whether a module's call is that of one of these classes: not of the user's subclass, nor patched."""
    name, _, method = getattr(type(module).forward, "__qualname__", "").rpartition(".")
    return name in classes and method == "forward" and "forward" not in vars(module)


def refuse_hooks(layer: torch.nn.Module, name: str, ours: Collection[str] = ()) -> None:
    """Raise `StateError` where hooks hang on ``layer`` or inside it: its replacement would not have them. ``ours`` are
    keys of an adapter's own hooks."""
    for path, module in layer.named_modules():
        if any(set(getattr(module, hooks, None) or ()) - set(ours) for hooks in HOOKS):
            raise StateError(
                f"{name}{'.' if path else ''}{path} has hooks, which would not see the layer that takes its place; "
                "remove them, and register them anew afterwards"
            )


def share_hooks(new: Any, old: Any) -> None:
    """Give ``new`` the very dictionaries of hooks of ``old``, so that the handles that users hold stay valid, and what
    says of which kind backward hooks are."""
    for hooks in HOOKS:
        if hasattr(old, hooks) and hasattr(new, hooks):
            object.__setattr__(new, hooks, getattr(old, hooks))
    new._is_full_backward_hook = old._is_full_backward_hook


def copy_flags(new: torch.nn.Module, old: torch.nn.Module, default: torch.nn.Parameter) -> None:
    """Give ``new`` the device, dtype, training flag and frozen state of ``old``; parameters that ``old`` does not have
    follow ``default``."""
    new.to(device=default.device, dtype=default.dtype).train(old.training)
    flags = {name: parameter.requires_grad for name, parameter in old.named_parameters()}
    for name, parameter in new.named_parameters():
        parameter.requires_grad_(flags.get(name, default.requires_grad))
