"""The squeezed block of the NVIDIA family, built from the layers of the host's own dense block.

Hosts with ``torch_utils.persistence`` store the source of a persistent class's module inside their pickles, where it
has to run without squeeze_patch. So this file imports torch, the standard library and two such files only, and uses no
``__future__`` import; `portable` says what is stored.
"""

import inspect
from typing import Any, Callable, ClassVar, Dict, Optional, Tuple, Type

import torch

from squeeze_patch.adapters.nvidia.call_arguments import drop_foreign, first_sizes, foreign_arguments
from squeeze_patch.adapters.nvidia.fused_layers import ops_of, run_layer, run_torgb
from squeeze_patch.connection import Excite, upsample2d
from squeeze_patch.handing_on import Handed, as_seen, hand_on, is_plain_run


class SqueezedBlock(torch.nn.Module):
    """One synthesis block with the image squeeze connection; takes the place of the host's block.

    Built by `squeeze_block`, which adds the children: ``const`` or ``conv0`` (the dense block's own objects),
    ``conv1`` (q outputs), ``torgb`` (q inputs) and, except in the last block, ``excite``. The constructor takes plain
    numbers only, because hosts store constructor arguments in their pickles.

    Args:
        in_channels: channels of the incoming features, 0 = first block.
        out_channels: c, channels of the outgoing features.
        squeezed_channels: q, channels between conv1 and its two readers.
        w_dim: dimension of one style vector.
        resolution: height and width of this block's features.
        img_channels: channels of the image.
        is_last: the last block hands conv0's output on as features, so that no parameter is unused.
        use_fp16: compute in float16 unless ``force_fp32``.
        channels_last: memory format of float16 features.
        fp16_on_cpu: hosts differ in whether float16 blocks stay float16 on a CPU.
        fused_modconv_default: what ``fused_modconv=None`` means: a bool, "inference_only", or None for the rule
            "not training, and float32 or batch size 1".

    Attributes:
        fused: where nothing is trained the block runs by `squeeze_patch.fused_convolution`; see `squeeze_patch.fuse`.
        defers: its excite is then left to the block that reads its features.
        foreign: {argument of the host's own block that means nothing here: its default}.
    """

    const: Any
    conv0: Any
    conv1: Any
    torgb: Any
    excite: Any
    resample_filter: Any

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        squeezed_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        is_last: bool,
        use_fp16: bool = False,
        channels_last: bool = False,
        fp16_on_cpu: bool = True,
        fused_modconv_default: Any = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.squeezed_channels = squeezed_channels
        self.w_dim = w_dim
        self.resolution = resolution
        self.img_channels = img_channels
        self.is_last = is_last
        self.architecture = "skip"
        self.use_fp16 = use_fp16
        self.channels_last = channels_last
        self.fp16_on_cpu = fp16_on_cpu
        self.fused_modconv_default = fused_modconv_default
        self.num_conv = 1 if in_channels == 0 else 2
        self.num_torgb = 1
        self.fused = False
        self.defers = False

    foreign: ClassVar[Dict[str, Any]] = {}  # also of blocks that are read from files

    def forward(
        self,
        x: Optional[torch.Tensor],
        img: Optional[torch.Tensor],
        ws: Optional[torch.Tensor],
        force_fp32: bool = False,
        fused_modconv: Any = None,
        update_emas: bool = False,
        **layer_kwargs: Any,
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """Run the block.

        Args:
            x: features [N, in_channels, R/2, R/2], float16 or float32; ignored by the first block.
            img: image so far [N, img_channels, R/2, R/2], float32, or None.
            ws: style vectors [N, num_conv + num_torgb, w_dim], float32; None where ``layer_kwargs`` bring the styles.
            force_fp32: compute in float32 whatever ``use_fp16`` says.
            fused_modconv: passed to the host's layers; None = ``fused_modconv_default``.
            update_emas: accepted because some hosts pass it; unused.
            layer_kwargs: passed to the host's convolution layers (``noise_mode`` and whatever else they know), and to
                its toRGB as far as that has arguments of these names.

        Returns:
            features [N, out_channels, R, R] in the compute dtype, image [N, img_channels, R, R] in float32.

        Raises:
            ValueError: fewer style vectors than the block's layers need.
            TypeError: an argument that the host's own block would have acted on, and this one does not know.
        """
        if ws is not None and ws.shape[1] < self.num_conv + self.num_torgb:
            raise ValueError(
                f"block {self.resolution} needs {self.num_conv + self.num_torgb} styles, got {ws.shape[1]}"
            )
        drop_foreign(layer_kwargs, self.foreign, f"block {self.resolution}")
        w: Any = iter([None] * (self.num_conv + self.num_torgb) if ws is None else ws.unbind(dim=1))
        n = next(first_sizes((x, layer_kwargs))) if ws is None else ws.shape[0]
        force_fp32 = force_fp32 or not (self.fp16_on_cpu or self.conv1.weight.device.type == "cuda")
        dtype = torch.float16 if self.use_fp16 and not force_fp32 else torch.float32
        memory_format = torch.channels_last if self.channels_last and not force_fp32 else torch.contiguous_format
        layer_kwargs["fused_modconv"] = self._fused(fused_modconv, dtype, n)
        fast = getattr(self, "fused", False) and not self.training and is_plain_run(self, x, ws)

        if self.in_channels == 0:
            h = self.const.to(dtype=dtype, memory_format=memory_format)
            h = h.unsqueeze(0).repeat([n, 1, 1, 1])  # [N, c, 4, 4]
        else:
            assert x is not None
            h = x.recast(dtype) if isinstance(x, Handed) else x.to(dtype=dtype, memory_format=memory_format)
            h = run_layer(self.conv0, h, next(w), fast, layer_kwargs)  # [N, c, R, R]
        f = run_layer(self.conv1, h, next(w), fast, layer_kwargs)  # [N, q, R, R]

        rgb = run_torgb(self.torgb, f, next(w), fast, layer_kwargs)  # [N, img_channels, R, R]
        rgb = rgb.to(dtype=torch.float32, memory_format=torch.contiguous_format)
        img = rgb if img is None else self._upsample(img).add_(rgb)
        if not self.is_last:
            h = hand_on(self, f) if fast and self.defers else self.excite(f)
        return (as_seen(self, h) if fast else h), img  # [N, c, R, R], [N, img_channels, R, R]

    def _fused(self, requested: Any, dtype: torch.dtype, batch_size: Any) -> bool:
        fused = self.fused_modconv_default if requested is None else requested
        if fused is None:
            return (not self.training) and (dtype == torch.float32 or int(batch_size) == 1)
        return (not self.training) if fused == "inference_only" else bool(fused)

    def _upsample(self, img: torch.Tensor) -> torch.Tensor:
        """Image at twice the size: by the host's own operation (its CUDA kernel) where its layers have one."""
        host_ops: Any = ops_of(self.conv1).get("upfirdn2d")
        if hasattr(host_ops, "upsample2d"):
            return host_ops.upsample2d(img, self.resample_filter)
        return upsample2d(img, self.resample_filter)

    def extra_repr(self) -> str:
        return f"resolution={self.resolution:d}, channels={self.out_channels:d}, squeezed={self.squeezed_channels:d}"


def squeeze_block(
    block: Any, width: int, inner: Optional[int] = None, inputs: Optional[int] = None, anew: bool = False
) -> Any:
    """Build the squeezed counterpart of a dense block, with fresh random conv1, torgb and excite.

    Args:
        block: dense 'skip' block of a host; left as it is. What keeps its size is shared, not copied: const, conv0
            and resample_filter.
        width: q, the squeezed width, 1 to c.
        inner: p, outputs of conv0, or channels of const; None = c.
        inputs: channels that conv0 reads; None = as many as it does.
        anew: build conv0 anew in any case.

    Returns:
        A `SqueezedBlock` on the same device, with the same training flag and the same frozen parameters; persistent in
        the host's way where the host has one.
    """
    conv1, torgb = block.conv1, block.torgb
    channels = conv1.weight.shape[0]
    inner = channels if inner is None else inner
    inputs = int(block.in_channels) if inputs is None else inputs
    persistent = persistence_of(block)
    new = persistent(SqueezedBlock)(
        in_channels=inputs,
        out_channels=channels,
        squeezed_channels=width,
        w_dim=conv1.affine.weight.shape[1],
        resolution=int(block.resolution),
        img_channels=torgb.weight.shape[0],
        is_last=bool(block.is_last),
        use_fp16=bool(getattr(block, "use_fp16", False)),
        channels_last=bool(getattr(block, "channels_last", False)),
        fp16_on_cpu=not hasattr(block, "fused_modconv_default"),
        fused_modconv_default=getattr(block, "fused_modconv_default", None),
    )
    foreign = foreign_arguments(block.forward, (SqueezedBlock.forward, conv1.forward, torgb.forward))
    if foreign:
        new.foreign = foreign
    new.register_buffer("resample_filter", block.resample_filter)
    put_first_half(new, block, inner, inputs, anew)
    new.conv1 = rebuild_layer(conv1, in_channels=inner, out_channels=width)
    new.torgb = rebuild_layer(torgb, in_channels=width)
    if not block.is_last:
        excite = persistent(Excite)(width, channels, conv_clamp=getattr(conv1, "conv_clamp", None))
        new.excite = excite.to(device=conv1.weight.device, dtype=conv1.weight.dtype)
        new.excite.requires_grad_(conv1.weight.requires_grad)
    new.training = block.training
    for name, layer in new._modules.items():
        if layer is not getattr(block, name, None):
            layer.train(block.training)
    return new


def narrow_block(block: Any, width: int, inner: int, inputs: int, anew: bool = False) -> Any:
    """Build a block of the host's own class with fewer channels, with fresh random layers; arguments as above."""
    new = block.__class__.__new__(block.__class__)
    vars(new).update(vars(block))
    for kind in ("_parameters", "_buffers", "_modules"):
        vars(new)[kind] = dict(vars(block)[kind])
    new.in_channels = inputs
    put_first_half(new, block, inner, inputs, anew)
    new.conv1 = rebuild_layer(block.conv1, in_channels=inner, out_channels=width)
    new.torgb = rebuild_layer(block.torgb, in_channels=width)
    for name, layer in new._modules.items():
        if layer is not block._modules[name]:
            layer.train(block.training)
    return new


def put_first_half(new: Any, block: Any, inner: int, inputs: int, anew: bool) -> None:
    """const or conv0: the block's own where its size stays."""
    if block.in_channels == 0:
        const = block.const
        if const.shape[0] != inner:
            const = torch.randn([inner, *const.shape[1:]], device=const.device, dtype=const.dtype)
        if "const" in block._buffers:
            new.register_buffer("const", const)
        else:
            own = const is block.const
            new.const = const if own else torch.nn.Parameter(const, requires_grad=block.const.requires_grad)
    elif not anew and tuple(block.conv0.weight.shape[:2]) == (inner, inputs):
        new.conv0 = block.conv0
    else:
        new.conv0 = rebuild_layer(block.conv0, in_channels=inputs, out_channels=inner)


def shaped_block(block: Any, shape: Any) -> Any:
    """The block that a Plan makes of ``block``: ``shape`` is q, or [inputs, p, q, whether it has excite], and perhaps
    whether conv0 is built anew in any case."""
    if isinstance(shape, int):
        return squeeze_block(block, shape)
    inputs, inner, width, excite, *anew = shape
    build = squeeze_block if excite else narrow_block
    return build(block, width, inner, inputs, any(anew))


#: attributes that say what a layer computes and do not depend on its width
_BEHAVIOUR = ("activation", "act_gain", "conv_clamp", "use_noise")


def rebuild_layer(layer: Any, **changes: int) -> Any:
    """A new layer of the same class, device, dtype and frozen state, with some constructor arguments changed.

    The arguments come from the host's own record (``init_args``, ``init_kwargs``) where it keeps one, else from the
    attributes of the layer that carry the parameters' names.
    """
    signatures = (inspect.signature(vars(cls)["__init__"]) for cls in type(layer).__mro__ if "__init__" in vars(cls))
    signature = next(found for found in signatures if "in_channels" in found.parameters)
    if hasattr(layer, "init_kwargs"):
        arguments = dict(signature.bind(None, *layer.init_args, **layer.init_kwargs).arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments.update(arguments.pop(name, {}))
        arguments.pop(next(iter(signature.parameters)))  # self
    else:
        arguments = _arguments_from_attributes(layer, signature)
    arguments.update(changes)
    new = type(layer)(**arguments).to(device=layer.weight.device, dtype=layer.weight.dtype)
    for name in _BEHAVIOUR:  # users change these on the layer, behind the constructor's back
        if hasattr(layer, name):
            setattr(new, name, getattr(layer, name))
    flags = {name: parameter.requires_grad for name, parameter in layer.named_parameters()}
    for name, parameter in new.named_parameters():
        parameter.requires_grad_(flags.get(name, layer.weight.requires_grad))
    return new


def _arguments_from_attributes(layer: Any, signature: inspect.Signature) -> Dict[str, Any]:
    out_channels, in_channels, kernel_size = layer.weight.shape[:3]
    known: Dict[str, Any] = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "kernel_size": kernel_size,
        "w_dim": layer.affine.weight.shape[1],
        "channels_last": kernel_size > 1 and layer.weight.stride(1) == 1,
    }
    arguments = {}
    for name in signature.parameters:
        value = known.get(name, getattr(layer, name, None))
        if value is not None and not isinstance(value, torch.Tensor):
            arguments[name] = value
    return arguments


_persistent_classes: Dict[Any, Any] = {}


def persistence_of(module: Any) -> Callable[[Type[Any]], Any]:
    """The class decorator with which the host of ``module`` makes classes survive pickling; identity if it has none.

    It is looked up in the host's own ``torch_utils.persistence``, reached through the module's class, so that nothing
    of the host is imported by name and several hosts can live in one process.
    """
    reduce_globals = getattr(type(module).__reduce__, "__globals__", {})
    decorate = reduce_globals.get("persistent_class")
    if decorate is None:
        return lambda cls: cls

    def persistent(cls: Type[Any]) -> Any:
        key = (decorate, cls)
        if key not in _persistent_classes:
            _persistent_classes[key] = decorate(cls)
        return _persistent_classes[key]

    return persistent


class RebuildSqueezed:
    """Mixin for a persistent generator class: builds the host's dense generator, then squeezes its structure.

    Some hosts rebuild a loaded generator as ``type(G)(**G.init_kwargs)`` with changed arguments and copy the
    parameters over (``legacy.load_network_pkl(force_fp16=True)``). A generator whose class has this mixin comes out
    squeezed there, with the layers that the changed arguments ask for.

    Args:
        squeeze: ``network`` = path of the synthesis network inside the generator ('' = itself), ``blocks`` =
            {child name: as `shaped_block` takes it}, ``plan`` = the Plan as a plain dict.
    """

    def __init__(self, *args: Any, squeeze: Dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        modules: Dict[str, Any] = dict(self.named_modules())  # type: ignore[attr-defined]
        network = modules[squeeze["network"]]
        dense = dict(network.named_children())
        for name, shape in squeeze["blocks"].items():
            setattr(network, name, shaped_block(dense[name], shape))
        network.squeeze_plan = squeeze["plan"]
