"""The NVIDIA family: stylegan2-ada-pytorch, stylegan3's networks_stylegan2, GGDR, projected-gan, EG3D's backbone, and
the many repositories that carry the same classes. Their generators hold a SynthesisNetwork with blocks ``b4``, ``b8``,
... of conv0, conv1 and torgb.

What is patched: every block is replaced by a `block.SqueezedBlock` under the same name.

=====================  ===================================================================================
``b*.conv1``           the host's layer with q outputs: rows of the kept channels; affine and noise as they were
``b*.torgb``           the host's layer with q inputs: weight, affine and bias refitted
``b*.excite``          new, not in the last block: `connection.Excite`, q -> c
everything else        the same objects: mapping, const, conv0, noise buffers, w_avg, the discriminator
=====================  ===================================================================================

Limits: architecture 'skip' only; training scripts: see `squeeze_patch.training.nvidia`.
"""

from __future__ import annotations

import inspect
import sys
import types
import uuid
import weakref
from typing import Any, List, Mapping, Optional

import torch

from squeeze_patch.adapters.base import Adapter, Surgery
from squeeze_patch.adapters.content import Affine, BlockShape, BlockSpec, DenseBlock, SqueezedStart
from squeeze_patch.adapters.layers import (
    class_named,
    fill_excite,
    is_parametrised,
    missing_tensors,
    refuse_hooks,
    share_hooks,
    uncompiled,
    value,
)
from squeeze_patch.adapters.located import described, narrowed_blocks
from squeeze_patch.adapters.nvidia.body import BODIES, dense_body_like
from squeeze_patch.adapters.nvidia.fusing import NvidiaFusing
from squeeze_patch.adapters.nvidia.interchange import NvidiaInterchange
from squeeze_patch.adapters.nvidia.portable import module_of, persistence_tables, rebuildable_source, shaped_block
from squeeze_patch.adapters.nvidia.running import NvidiaRunning, sample_styles
from squeeze_patch.adapters.nvidia.sizes import block_names, block_spec, block_specs, stored_shapes
from squeeze_patch.adapters.nvidia.states import NvidiaStates
from squeeze_patch.adapters.nvidia.stored import ALIAS_FREE, BOOKKEEPING
from squeeze_patch.adapters.nvidia.unpickling import NvidiaPickles
from squeeze_patch.adapters.nvidia.weights import affine_of, check_filter, conv_of, load_conv, write_affine

#: conv0 of blocks in which it was built anew: it goes when the dense block comes back
_OURS: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()


class NvidiaSurgery(Surgery):
    """Replaces whole blocks by `block.SqueezedBlock`, made persistent with the host's own decorator."""

    bookkeeping = BOOKKEEPING
    takes_labels = True

    def find(self, root: torch.nn.Module) -> List[torch.nn.Module]:
        return [module for module in root.modules() if _is_network(module) and _unsupported_reason(module) is None]

    def refuse(self, root: torch.nn.Module) -> Optional[str]:
        for module in root.modules():
            if _is_network(module):
                return _unsupported_reason(module)
            if class_named(module, "SynthesisNetwork") and hasattr(module, "input"):
                return ALIAS_FREE
        return None

    def generator(self, root: torch.nn.Module, network: torch.nn.Module) -> torch.nn.Module:
        return next((m for m in root.modules() if uncompiled(getattr(m, "synthesis", None)) is network), network)

    def specs(self, network: torch.nn.Module) -> List[BlockSpec]:
        return block_specs(network)

    def sample_w(self, root: torch.nn.Module, network: torch.nn.Module, n: int, seed: int) -> torch.Tensor:
        return sample_styles(root, network, n, seed)

    def get_block(self, network: torch.nn.Module, name: str) -> Any:
        return getattr(network, name)

    def set_block(self, network: torch.nn.Module, name: str, block: torch.nn.Module) -> None:
        setattr(network, name, block)

    def dense_block(self, network: torch.nn.Module, name: str) -> DenseBlock:
        block = self.get_block(network, name)
        torgb = block.torgb
        first = block.in_channels == 0
        rgb_style = affine_of(torgb.affine)
        for layer, where in ((block, name), *(() if first else ((block.conv0, f"{name}.conv0"),))):
            check_filter(layer, where)
        return DenseBlock(
            spec=block_spec(network, name),
            const=value(block.const) if first else None,
            conv0=None if first else conv_of(block.conv0, f"{name}.conv0"),
            fir=value(block.resample_filter),
            conv1=conv_of(block.conv1, f"{name}.conv1"),
            rgb_weight=value(torgb.weight)[:, :, 0, 0],
            rgb_style=Affine(rgb_style.weight * torgb.weight_gain, rgb_style.bias * torgb.weight_gain),
            rgb_bias=value(torgb.bias),
        )

    def build(self, network: torch.nn.Module, name: str, shape: BlockShape) -> Any:
        block = self.get_block(network, name)
        self.check_replaceable(block, name)
        new = shaped_block(block, [shape.inputs, shape.inner, shape.width, shape.excite, shape.anew])
        if "conv0" in new._modules and new.conv0 is not block.conv0:
            refuse_hooks(block.conv0, f"{name}.conv0")
            _OURS.add(new.conv0)
        share_hooks(new, block)
        return new

    def check_replaceable(self, block: torch.nn.Module, name: str) -> None:
        for child in ("conv0", "conv1", "torgb", "excite"):
            if hasattr(block, child) and (child != "conv0" or getattr(block, child) in _OURS):
                refuse_hooks(getattr(block, child), f"{name}.{child}")

    def load_start(self, new: Any, dense: Any, start: SqueezedStart) -> None:
        kept = start.kept
        with torch.no_grad():
            if dense.in_channels == 0:
                if kept.inner is not None:
                    new.const.copy_(dense.const[kept.inner.to(dense.const.device)])
            elif new.conv0 is not dense.conv0:
                load_conv(new.conv0, dense.conv0, start.conv0, kept.inner, kept.inputs)
            load_conv(new.conv1, dense.conv1, start.conv1, kept.outputs, kept.inner)
            write_affine(new.torgb.affine, start.rgb_style, new.torgb.weight_gain)
            new.torgb.weight.copy_(start.rgb_weight[:, :, None, None])
            new.torgb.bias.copy_(start.rgb_bias)
            fill_excite(getattr(new, "excite", None), start)

    def attach_plan(self, root: torch.nn.Module, network: torch.nn.Module, plan: Mapping[str, Any]) -> None:
        super().attach_plan(root, network, plan)
        owner = _owner(root, network)
        if owner is None or class_named(owner, "RebuildSqueezed"):
            return
        path = next(name for name, module in owner.named_modules() if module is network)
        squeeze = {"network": path, "blocks": stored_shapes(network, plan), "plan": dict(plan)}
        source = rebuildable_source(owner._orig_module_src, owner._orig_class_name)
        _share_classes(owner, source)
        owner._orig_module_src = source
        owner._orig_class_name = "SqueezedGenerator"
        owner._init_kwargs = {**owner._init_kwargs, "squeeze": squeeze}

    def detach_plan(self, root: torch.nn.Module, network: torch.nn.Module) -> None:
        owner = _owner(root, network)
        if owner is not None and not class_named(owner, "RebuildSqueezed"):
            owner._init_kwargs = {key: value for key, value in owner._init_kwargs.items() if key != "squeeze"}
            for name in ("_orig_module_src", "_orig_class_name"):  # its class has its own
                vars(owner).pop(name, None)
        super().detach_plan(root, network)

    def dense_like(self, root: torch.nn.Module, network: torch.nn.Module) -> torch.nn.Module:
        owner = _owner(root, network)
        if owner is None and isinstance(network, BODIES["SynthesisNetwork"]):
            return dense_body_like(root, network, described(self.specs(network), self.plan_of(network)))
        if owner is None:
            return super().dense_like(root, network)
        classes = type(owner).__mro__
        behind = [index + 1 for index, cls in enumerate(classes) if cls.__name__ == "RebuildSqueezed"]
        host_class = classes[behind[-1]] if behind else _decorated(owner)  # squeezed in memory: still the host's class
        kwargs = {key: value for key, value in owner.init_kwargs.items() if key != "squeeze"}
        dense: torch.nn.Module = host_class(*owner.init_args, **kwargs)
        return dense


def _share_classes(owner: Any, source: str) -> None:
    """Let copies in this process be instances of the host's own generator class.

    The host's persistence would run ``source`` as a new module, with a generator class of its own, when it first copies
    or unpickles such a generator. It keeps a table from source to module; the module put there here runs only what was
    added, on top of the names of the module that is loaded already. It takes the place of one that unpickling a
    squeezed file has left there; generators from that file keep their classes.
    """
    host_class = _decorated(owner)
    tables, loaded = persistence_tables(host_class), module_of(host_class.__mro__[1])
    if tables is None or loaded is None:
        return
    modules, sources = tables
    if source in modules and issubclass(modules[source].SqueezedGenerator, host_class):
        return
    module = types.ModuleType(f"_squeezed_module_{uuid.uuid4().hex}")
    vars(module).update({key: value for key, value in vars(loaded).items() if not key.startswith("__")})
    sys.modules[module.__name__] = module
    exec(source[len(owner._orig_module_src) :], vars(module))
    modules[source], sources[module] = module, source


def _decorated(owner: Any) -> Any:
    """The class that the host's decorator made, which keeps the books: the generator's own, or one that it derives
    from. What a user derives without the decorator is in no copy and no pickle of the host's, dense ones neither."""
    return next(cls for cls in type(owner).__mro__ if "_orig_class_name" in vars(cls))


def _is_network(module: torch.nn.Module) -> bool:
    return class_named(module, "SynthesisNetwork") and hasattr(module, "block_resolutions")


def _unsupported_reason(network: torch.nn.Module) -> Optional[str]:
    """Why a network of this family cannot be squeezed, or None."""
    narrowed = narrowed_blocks(getattr(network, "squeeze_plan", None))
    for name in block_names(network):
        block: Any = getattr(network, name, None)
        if block is None:
            return f"the synthesis network lists {name} in block_resolutions but has no such block"
        architecture = getattr(block, "architecture", "skip")
        if architecture != "skip" or hasattr(block, "skip"):
            return (
                f"block {name} has architecture '{architecture}'. The squeeze connection replaces the image skip "
                "connection, so only generators of architecture 'skip' (the hosts' default) can be squeezed"
            )
        parts = ["conv1", "torgb"] + (["const"] if getattr(block, "in_channels", None) == 0 else ["conv0"])
        missing = [part for part in parts if not hasattr(block, part)]
        if missing == ["const"]:
            return f"block {name} ({type(block).__name__}) has no const: it makes its first features in another way"
        if missing:
            return f"block {name} ({type(block).__name__}) has no {' and no '.join(missing)}"
        more = _further_arguments(block)
        if more:
            return (
                f"block {name} ({type(block).__name__}) wants {' and '.join(more)} beside features, image and styles: "
                "it does more than a StyleGAN2 block"
            )
        if any(is_parametrised(module) for layer in (block.conv1, block.torgb) for module in layer.modules()):
            return f"block {name} computes its weights from others (a parametrization?); remove that first"
        for part in set(parts) - {"const"}:
            layer = getattr(block, part)
            missing = missing_tensors(layer, ("weight", "bias", "affine.weight", "affine.bias"))
            if missing:
                return (
                    f"{name}.{part} ({type(layer).__name__}) has no {' and no '.join(missing)}; where something is "
                    "wrapped around the host's layers (an adapter, as LoRA?), merge it into their weights first"
                )
        if not _shapes_fit(block, name in narrowed or class_named(block, "SqueezedBlock")):
            return f"block {name}: the shapes of conv1 and torgb do not belong to a StyleGAN2 block"
    return None


def _further_arguments(block: torch.nn.Module) -> List[str]:
    """What a block's forward wants beside x, img and ws."""
    parameters = list(inspect.signature(block.forward).parameters.values())[3:]
    return [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]


def _shapes_fit(block: Any, is_changed: bool) -> bool:
    out, into = block.conv1.weight.shape[:2]
    channels = block.const.shape[0] if block.in_channels == 0 else block.conv0.weight.shape[0]
    return into == channels and (is_changed or out == channels) and block.torgb.weight.shape[1:] == (out, 1, 1)


def _owner(root: torch.nn.Module, network: torch.nn.Module) -> Any:
    """Outermost persistent module in ``root`` that holds ``network``: the one that hosts rebuild from init_kwargs.
    Its class says it; wrappers answer with what they hold (torch.compile's does)."""
    for module in root.modules():
        if hasattr(type(module), "_orig_module_src") and any(child is network for child in module.modules()):
            return module
    return None


NVIDIA_ADAPTER = Adapter(
    name="nvidia",
    surgery=NvidiaSurgery(),
    running=NvidiaRunning(),
    states=NvidiaStates(),
    interchange=NvidiaInterchange(),
    pickles=NvidiaPickles(),
    entries=types.MappingProxyType({"G": "G", "G_ema": "G_ema"}),
    fusing=NvidiaFusing(),
)
