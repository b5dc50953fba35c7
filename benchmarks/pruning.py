"""What a user would do instead of squeezing: uniform channel pruning of the dense generator.

Every layer keeps the same share of its channels, the ones of highest score, as in "Content-aware GAN compression" (Liu
et al. 2021, CAGC, section 3) and DCP-GAN (Chung et al. 2024). Written from the papers' formulas, for generators of the
NVIDIA family that squeeze_patch.demo.network describes. `refitted` gives the same channels squeeze_patch's refit, so
that a score is compared with a choice of channels and widths, and with nothing else.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, Tuple

import torch

from benchmarks.variants import count
from squeeze_patch.adapters import locate
from squeeze_patch.adapters.content import ConvWeights, Kept
from squeeze_patch.planning.plans import BlockPlan
from squeeze_patch.planning.shapes import plan_of_blocks
from squeeze_patch.sampling import sample
from squeeze_patch.surgery.apply import squeeze

#: latents behind a score
SAMPLES = 256
#: how far from the median (of -1 to 1) a pixel is content, and the share of it that noise hits
CONTENT, NOISE_DENSITY = 0.25, 0.05

#: {(block name, layer that makes the channels: "const", "conv0" or "conv1"): score [channels]}
Scores = Dict[Tuple[str, str], torch.Tensor]


@dataclass(frozen=True)
class Pruned:
    """A pruned generator, and the channels of the dense one that it keeps between blocks, {block name: indices}, and
    inside them."""

    G: Any
    kept: Dict[str, torch.Tensor]
    inner: Dict[str, torch.Tensor]


def blocks_of(G: Any) -> Iterator[Tuple[str, Any]]:
    return ((name, block) for name, block in G.synthesis.named_children() if name.startswith("b"))


def by_weight_norm(G: Any) -> Scores:
    """L1 norm of the weights that read a channel, modulated and demodulated, averaged over styles: CAGC's "l1-out"."""
    found = locate(G)
    ws, dense = found.sample_w(SAMPLES, seed=0), found.dense_blocks()
    scores: Scores = {}
    for block, following in zip(dense, [*dense[1:], None]):
        scores[block.spec.name, "const" if block.conv0 is None else "conv0"] = outgoing(block.conv1, ws)
        if following is not None and following.conv0 is not None:
            scores[block.spec.name, "conv1"] = outgoing(following.conv0, ws)
        else:
            scores[block.spec.name, "conv1"] = (block.rgb_weight * block.rgb_style(ws).mean(dim=0)).abs().sum(dim=0)
    return scores


def outgoing(reader: ConvWeights, ws: torch.Tensor) -> torch.Tensor:
    style = reader.style(ws)
    demodulation = (style.square() @ reader.weight.square().sum(dim=[2, 3]).t() + 1e-8).rsqrt()
    gains = demodulation.t() @ style / len(ws)  # [out, in]
    return (reader.weight * gains[:, :, None, None]).abs().sum(dim=[0, 2, 3])


def by_activation_energy(G: Any) -> Scores:
    """Mean square of a channel's activations."""
    scores: Scores = {}
    handles = []
    for name, block in blocks_of(G):
        if hasattr(block, "const"):
            scores[name, "const"] = block.const.detach().square().mean(dim=[1, 2])
        for layer in ("conv0", "conv1"):
            if hasattr(block, layer):

                def add(_module: Any, _inputs: Any, out: torch.Tensor, key: Tuple[str, str] = (name, layer)) -> None:
                    scores[key] = scores.get(key, torch.zeros(1)) + out.detach().square().sum(dim=[0, 2, 3])

                handles.append(getattr(block, layer).register_forward_hook(add))
    sample(G, SAMPLES, seed=0, noise_mode="const")
    for handle in handles:
        handle.remove()
    return scores


def by_content(G: Any) -> Scores:
    """CAGC's content-aware score: how much noise in an image's content moves the weights that read a channel, the L1
    norm of the gradient of the images' L1 distance. Content is what stands out from the image's median: there is no
    parser for digits."""
    found, layers = locate(G), {}
    ws = found.sample_w(SAMPLES, seed=0)[:, None].expand(-1, found.running.num_ws(found.network), -1)
    random = torch.Generator().manual_seed(0)
    blocks = list(blocks_of(G))
    for (name, block), (_, following) in zip(blocks, [*blocks[1:], ("", None)]):
        layers[name, "const" if hasattr(block, "const") else "conv0"] = block.conv1.weight
        layers[name, "conv1"] = block.torgb.weight if following is None else following.conv0.weight
    sums = {key: torch.zeros(weight.shape) for key, weight in layers.items()}
    flags = [(parameter, parameter.requires_grad) for parameter in G.parameters()]
    for parameter in G.parameters():
        parameter.requires_grad_(True)
    for some in ws.split(32):
        images = found.running.synthesis(found.network, some, "const")
        content = (images - images.flatten(1).median(dim=1).values[:, None, None, None]).abs() > CONTENT
        salt = torch.randint(0, 2, images.shape, generator=random) * 2.0 - 1  # salt and pepper
        hit = content & (torch.rand(images.shape, generator=random) < NOISE_DENSITY)
        noisy = torch.where(hit, salt, images.detach())
        loss = (images - noisy).abs().sum(dim=[1, 2, 3]).mean()
        for key, gradient in zip(layers, torch.autograd.grad(loss, list(layers.values()))):
            sums[key] += gradient
    for parameter, flag in flags:
        parameter.requires_grad_(flag)
    return {key: total.abs().sum(dim=[0, 2, 3]) for key, total in sums.items()}


def pruned_to(G: Any, size: float, score: Callable[[Any], Scores], sized: Callable[[Any], float] = count) -> Pruned:
    """The uniformly pruned generator whose size, parameters or what ``sized`` counts, is nearest to ``size``."""
    scores = score(G)
    low, high = 60, 200  # two hundredths of the channels; more of them are never smaller
    while high - low > 1:
        middle = (low + high) // 2
        if sized(prune(G, scores, middle / 200).G) < size:
            low = middle
        else:
            high = middle
    nearest = (prune(G, scores, step / 200) for step in (low, high))
    return min(nearest, key=lambda found: abs(sized(found.G) - size))


def prune(G: Any, scores: Scores, share: float) -> Pruned:
    kept = {key: value.topk(max(round(share * len(value)), 1)).indices.sort().values for key, value in scores.items()}
    G = copy.deepcopy(G)
    before = None
    for name, block in blocks_of(G):
        if before is None:
            inner = kept[name, "const"]
            block.const = take(block.const, inner)
        else:
            inner = kept[name, "conv0"]
            narrow(block.conv0, before, inner)
            block.in_channels = len(before)
        before = kept[name, "conv1"]
        narrow(block.conv1, inner, before)
        narrow(block.torgb, before, torch.arange(len(block.torgb.bias)))
    names = [name for name, _ in blocks_of(G)]
    inner = {name: kept[name, "const" if (name, "const") in kept else "conv0"] for name in names}
    return Pruned(G, {name: kept[name, "conv1"] for name in names}, inner)


def refitted(dense: Any, pruned: Pruned, seed: int) -> Any:
    """The channels of ``pruned``, with convolutions and toRGB fitted to what the dense generator does."""
    G = copy.deepcopy(dense)
    found = locate(G)
    blocks, kept, inputs = [], {}, None
    for spec in found.specs:
        outputs, inner = pruned.kept[spec.name], pruned.inner[spec.name]
        blocks.append(
            BlockPlan(spec.name, spec.resolution, spec.channels, len(outputs), inner=len(inner), excite=False)
        )
        kept[spec.name] = Kept(outputs, inner if len(inner) < spec.channels else None, inputs)
        inputs = outputs
    plan = plan_of_blocks(found.specs, count(dense), found.adapter.name, blocks)
    squeeze(found, plan, "calibrated", kept=kept, seed=seed)
    return G


def narrow(layer: Any, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
    """Gains stay as they are, so that the kept channels keep their size."""
    layer.weight = take(layer.weight[:, inputs], outputs)
    layer.bias = take(layer.bias, outputs)
    layer.affine.weight, layer.affine.bias = take(layer.affine.weight, inputs), take(layer.affine.bias, inputs)


def take(parameter: torch.Tensor, rows: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(parameter.detach()[rows].clone(), requires_grad=parameter.requires_grad)
