"""The calibrated start: from what a trained generator does on random latents, block by block.

Beside the dense generator runs the one that is being squeezed. Each of its blocks is fitted on the features that reach
it through the blocks squeezed before, so that errors are corrected where they can be instead of adding up:

- channels stay that matter to the image: greedily, by the Gauss-Newton matrix of the image's error (`Probe.gradients`);
- excite is the regression from the kept channels, as they are in the squeezed generator, to all dense ones;
- toRGB is refitted to the dense image at its resolution minus what the squeezed image has there already, so that a
  resolution makes good what those below it could not.

Nothing is kept of a sample but some random positions, so memory does not grow with the number of samples.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import torch

from squeeze_patch.adapters.base import Adapter, Affine, BlockSpec, DenseBlock, SqueezedStart
from squeeze_patch.connection import upsample2d
from squeeze_patch.initialize import (
    Progress,
    fit_excite,
    fit_image,
    importance_of,
    one_thread,
    rank_channels,
    refit_torgb,
)
from squeeze_patch.probe import Probe

#: positions sampled for a block, per channel; the regressions have one unknown per kept channel and output
ROWS_PER_CHANNEL = 64
MIN_ROWS = 8192
#: positions wanted of one sample: more of them are alike, fewer waste the sample
POSITIONS = 256
#: samples of a block, at least and at most, and multiply-adds that running them may take in one generator
MIN_SAMPLES, MAX_SAMPLES, EFFORT = 8, 2048, 1 << 36
#: samples whose gradients are taken, at least and at most, and the pixels of their images together
MIN_GRADIENTS, MAX_GRADIENTS, GRADIENT_PIXELS = 4, 32, 1 << 17
#: pixels of features that are computed at a time
BATCH_PIXELS = 1 << 17
#: samples that are run at a time, at most: hosts that fuse modulation and convolution hold the weights of each
MAX_BATCH = 32
#: weight of the readers' own error beside the image's when channels are chosen: it ranks what few gradients miss
READER_WEIGHT = 0.1
#: multiply-adds for one image below which one thread is the fastest
SMALL = 1 << 29
#: multiply-adds for one image above which a CPU takes minutes to calibrate (the official 32x32 size has 2^32)
LARGE = 1 << 33


@dataclass(frozen=True)
class _Rows:
    """Features at random positions: dense [p, c], in the squeezed generator [p, c]; the style vector of each position
    [p, w_dim]; the image share that toRGB should make there [p, img_channels]."""

    dense: torch.Tensor
    squeezed: torch.Tensor
    ws: torch.Tensor
    image: torch.Tensor


@dataclass(frozen=True)
class Statistics:
    """Of the dense generator, {block name: matrix [c, c]}: ``covariance`` of conv1's output, and ``importance``, the
    quadratic form of what an error in it does to the image (positions of the block together) and to its readers."""

    covariance: Dict[str, torch.Tensor]
    importance: Dict[str, torch.Tensor]


def calibrated_starts(
    adapter: Adapter,
    root: torch.nn.Module,
    network: torch.nn.Module,
    widths: Mapping[str, int],
    kept: Optional[Mapping[str, torch.Tensor]] = None,
    progress: Optional[Progress] = None,
    seed: int = 0,
) -> Dict[str, SqueezedStart]:
    """Starts for the blocks to squeeze of one dense generator.

    Args:
        adapter, root, network: as in the adapter contract; nothing in them is changed.
        widths: {block name: q}.
        kept: {block name: kept channels}, where they are given (a generator that must match another's).
        progress: called with (block name, blocks done, blocks in all).
        seed: of latents, noise inputs and positions.
    """
    with _setting(adapter.specs(network)):
        return _calibrated_starts(adapter, root, network, widths, kept, progress, seed)


def _calibrated_starts(
    adapter: Adapter,
    root: torch.nn.Module,
    network: torch.nn.Module,
    widths: Mapping[str, int],
    kept: Optional[Mapping[str, torch.Tensor]],
    progress: Optional[Progress],
    seed: int,
) -> Dict[str, SqueezedStart]:
    blocks = [adapter.dense_block(network, spec.name) for spec in adapter.specs(network)]
    samples = _samples(blocks)
    ws = adapter.sample_w(root, network, max(samples.values()), seed)
    dense, squeezed = Probe(adapter, network), Probe(adapter, network)
    gradients = {} if kept is not None else _gradients(dense, blocks, ws)
    images: List[Any] = []  # what makes each block's share of the squeezed image
    starts: Dict[str, SqueezedStart] = {}
    for index, block in enumerate(blocks):
        name = block.spec.name
        if name in widths:
            rows = _collect(dense, squeezed, blocks[: index + 1], images, ws[: samples[name]], seed + index)
            if kept is None:
                importance = _importance(blocks, index, rows, gradients[name])
                chosen, _ = rank_channels(_covariance(rows.dense), importance, widths[name])
                starts[name] = _fit(block, rows, chosen.sort().values)
            else:
                starts[name] = _fit(block, rows, kept[name])
            new = adapter.build(squeezed.network, name, widths[name])
            adapter.fill(new, adapter.block(squeezed.network, name), starts[name])
            adapter.put(squeezed.network, name, new.eval().requires_grad_(False))
        images.append(starts.get(name, block))
        if progress is not None:
            progress(name, index + 1, len(blocks))
    return starts


def statistics(adapter: Adapter, root: torch.nn.Module, network: torch.nn.Module, seed: int = 0) -> Statistics:
    """What the planner needs to spend parameters where they matter (``allocate="spectral"``)."""
    covariance, importance = {}, {}
    with _setting(adapter.specs(network)):
        blocks = [adapter.dense_block(network, spec.name) for spec in adapter.specs(network)]
        samples = _samples(blocks)
        ws = adapter.sample_w(root, network, max(samples.values()), seed)
        probe = Probe(adapter, network)
        gradients = _gradients(probe, blocks, ws)
        for index, block in enumerate(blocks):
            name = block.spec.name
            rows = _collect(probe, probe, blocks[: index + 1], blocks, ws[: samples[name]], seed + index)
            covariance[name] = _covariance(rows.dense)
            # gradients are per position: an error everywhere counts as often as there are positions
            importance[name] = gradients[name] * block.spec.resolution**2
    return Statistics(covariance, importance)


def is_quick(adapter: Adapter, network: torch.nn.Module) -> bool:
    """Whether calibrating this network takes seconds: a small one, or one on a GPU."""
    on_cpu = next(network.parameters()).device.type == "cpu"
    return not on_cpu or sum(map(multiply_adds, adapter.specs(network))) <= LARGE


@contextlib.contextmanager
def _setting(specs: Sequence[BlockSpec]) -> Iterator[None]:
    """Gradients can be taken, the user's random stream stays where it was (blocks that are built draw from it), and
    small generators get one thread, where more of them only wait for each other."""
    threads = one_thread() if sum(map(multiply_adds, specs)) < SMALL else contextlib.nullcontext()
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]), threads:
        yield


def _fit(block: DenseBlock, rows: _Rows, kept: torch.Tensor) -> SqueezedStart:
    features, ws = rows.squeezed[:, kept].double(), rows.ws.double()
    mix, offset = fit_excite(rows.dense.double(), features, kept)
    weight, style, bias = refit_torgb(block, mix, offset, kept, ws)
    weight, bias = fit_image(weight, bias, features * style(ws), rows.image.double())
    is_last = block.spec.is_last
    return SqueezedStart(
        kept=kept,
        excite_weight=None if is_last else mix.float(),
        excite_bias=None if is_last else offset.float(),
        rgb_weight=weight.float(),
        rgb_style=Affine(style.weight.float(), style.bias.float()),
        rgb_bias=bias.float(),
    )


def _importance(blocks: Sequence[DenseBlock], index: int, rows: _Rows, gradient: torch.Tensor) -> torch.Tensor:
    covariance = _covariance(rows.dense)
    reader = blocks[index + 1].conv0 if index + 1 < len(blocks) else None
    readers = importance_of(blocks[index], reader, rows.ws.double(), covariance)
    power = (gradient * covariance).sum()
    if not bool(torch.isfinite(power)) or power <= 0:  # float16 gradients can overflow
        return readers
    return gradient / power + READER_WEIGHT * readers


def _gradients(probe: Probe, blocks: Sequence[DenseBlock], ws: torch.Tensor) -> Dict[str, torch.Tensor]:
    """{block name: mean over positions of the outer product of the gradient [c, c]}."""
    names = [block.spec.name for block in blocks]
    pixels = blocks[-1].spec.resolution ** 2
    n = min(max(GRADIENT_PIXELS // pixels, MIN_GRADIENTS), MAX_GRADIENTS, len(ws))
    sums = {block.spec.name: torch.zeros([block.spec.channels] * 2, dtype=torch.float64) for block in blocks}
    for start, chunk in _chunks(ws[:n], pixels):
        for name, gradient in zip(names, probe.gradients(names, chunk, start)):
            columns = gradient.float().transpose(0, 1).flatten(1)
            sums[name] += (columns @ columns.t()).double().cpu() / (n * gradient[0, 0].numel())
    return sums


def _collect(
    dense: Probe, squeezed: Probe, blocks: Sequence[DenseBlock], images: Sequence[Any], ws: torch.Tensor, seed: int
) -> _Rows:
    """Run both generators up to the last of ``blocks``; ``images`` are the fitted toRGBs of those before it."""
    names = [block.spec.name for block in blocks]
    filters = [block.fir for block in blocks[1:]]
    size = blocks[-1].spec.resolution
    random = torch.Generator().manual_seed(seed)
    per_sample = min(size**2, max(math.ceil(_rows(blocks[-1]) / len(ws)), 1))
    parts: List[Tuple[torch.Tensor, ...]] = []
    for start, chunk in _chunks(ws, size**2):
        y = dense.activations(names, chunk, seed + start)
        f = y if squeezed is dense else squeezed.activations(names, chunk, seed + start)
        share = _image(blocks, y, filters, chunk)
        if len(blocks) > 1:
            share = share - upsample2d(_image(images, f[:-1], filters, chunk), filters[-1])
        places = torch.stack([torch.randperm(size**2, generator=random)[:per_sample] for _ in chunk])
        rows = [_take(values.float().cpu(), places) for values in (y[-1], f[-1], share)]
        parts.append((*rows, chunk.repeat_interleave(per_sample, dim=0)))
    y_rows, f_rows, image_rows, w_rows = (torch.cat(part) for part in zip(*parts))
    return _Rows(y_rows, f_rows, w_rows, image_rows)


def _image(
    images: Sequence[Any], features: Sequence[torch.Tensor], filters: Sequence[torch.Tensor], ws: torch.Tensor
) -> torch.Tensor:
    """The running sum of toRGBs over resolutions, as far as ``features`` go: [n, img_channels, R, R].

    Args:
        images: `DenseBlock`s or `SqueezedStart`s, which both say what toRGB computes.
        features: what they read.
        filters: of the upsampling between them.
    """
    image: Optional[torch.Tensor] = None
    for index, (torgb, x) in enumerate(zip(images, features)):
        weight = torgb.rgb_weight[None] * torgb.rgb_style(ws)[:, None, :]
        rgb = (weight @ x.float().cpu().flatten(2)).unflatten(2, x.shape[2:]) + torgb.rgb_bias[None, :, None, None]
        image = rgb if image is None else upsample2d(image, filters[index - 1]) + rgb
    assert image is not None
    return image


def _take(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """[n, c, R, R] at ``places`` [n, p] -> [n * p, c]."""
    rows = x.flatten(2).gather(2, places[:, None, :].expand(-1, x.shape[1], -1))
    return rows.transpose(1, 2).reshape(-1, x.shape[1])


def _chunks(ws: torch.Tensor, pixels: int) -> List[Tuple[int, torch.Tensor]]:
    size = min(max(BATCH_PIXELS // pixels, 1), MAX_BATCH)
    return [(start, ws[start : start + size]) for start in range(0, len(ws), size)]


def _rows(block: DenseBlock) -> int:
    return max(ROWS_PER_CHANNEL * block.spec.channels, MIN_ROWS)


def _samples(blocks: Sequence[DenseBlock]) -> Dict[str, int]:
    """How many samples each block is fitted on: enough for its rows, fewer where running them takes long."""
    found, effort = {}, 0
    for block in blocks:
        spec = block.spec
        effort += multiply_adds(spec)
        wanted = math.ceil(_rows(block) / min(spec.resolution**2, POSITIONS))
        found[spec.name] = min(max(min(wanted, EFFORT // effort), MIN_SAMPLES), MAX_SAMPLES)
    return found


def multiply_adds(spec: BlockSpec) -> int:
    """Of both convolutions of a dense block for one image."""
    outputs = spec.channels * spec.resolution**2
    return spec.kernel_size**2 * (outputs * spec.channels + outputs * spec.in_channels // 4)


def _covariance(rows: torch.Tensor) -> torch.Tensor:
    centred = (rows - rows.mean(dim=0)).double()
    return centred.t() @ centred / len(rows)
