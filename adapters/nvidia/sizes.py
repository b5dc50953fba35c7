"""The sizes of the NVIDIA family's blocks, as their tensors say them, and as they are noted for the host, which builds
generators anew from what its pickles record of their making."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Union

from squeeze_patch.adapters.content import BlockShape, BlockSpec
from squeeze_patch.adapters.layers import class_named
from squeeze_patch.adapters.located import described


def block_names(network: Any) -> List[str]:
    return [f"b{resolution}" for resolution in network.block_resolutions]


def _channels(block: Any) -> int:
    """c of a squeezed block, of whichever class: what excite makes; without one, what the block says or conv1 reads."""
    if "excite" in block._modules:
        return int(block.excite.weight.shape[0])
    return int(getattr(block, "out_channels", block.conv1.weight.shape[1]))


def block_spec(network: Any, name: str) -> BlockSpec:
    block, first = getattr(network, name), getattr(network, block_names(network)[0])
    weight, squeezed = block.conv1.weight, class_named(block, "SqueezedBlock")
    channels = _channels(block) if squeezed else weight.shape[0]
    times = int(block.resolution) / int(first.resolution)
    height, width = (int(side * times) for side in first.const.shape[1:])
    return BlockSpec(
        name=name,
        resolution=int(block.resolution),
        in_channels=int(block.in_channels),
        channels=channels,
        width=weight.shape[0] if squeezed else None,
        w_dim=block.conv1.affine.weight.shape[1],
        img_channels=block.torgb.weight.shape[0],
        kernel_size=weight.shape[2],
        is_last=bool(block.is_last),
        sides=None if height == width == block.resolution else (height, width),
        inner=None if weight.shape[1] == channels else weight.shape[1],
    )


def block_specs(network: Any) -> List[BlockSpec]:
    """Of all blocks, ascending."""
    return [block_spec(network, name) for name in block_names(network)]


def stored_shapes(network: Any, plan: Optional[Mapping[str, Any]]) -> Dict[str, Union[int, List[int]]]:
    """{block that is not dense: its shape as `block.shaped_block` takes it}, for `block.RebuildSqueezed`.

    Args:
        network: squeezed or narrowed by now.
        plan: the Plan that travels with it.
    """
    specs = described(block_specs(network), plan)
    return {spec.name: _stored_shape(spec) for spec in specs if spec.shape is not None}


def _stored_shape(spec: BlockSpec) -> Union[int, List[int]]:
    shape = spec.shape
    assert shape is not None
    if shape == BlockShape(spec.dense_inputs, spec.channels, shape.width):
        return shape.width
    return [shape.inputs, shape.inner, shape.width, int(shape.excite)]
