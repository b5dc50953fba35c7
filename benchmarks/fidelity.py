"""How near a squeezed generator starts to the dense one: PSNR in dB on unseen latents, before any training.

    python -m benchmarks fidelity [--weights FILE.pt] [--ratios 1,1.5,2] [--seeds 3]

Without --weights the demo's generator is used, else a small one from a state dict in the NVIDIA family's names.
Rows: the calibrated start; the same with the same parameters allocated by the spectrum; the start from the weights
alone; the same regressions on the channels of largest weight norm, as pruning methods choose them (CAGC, DCP-GAN);
random layers. 256 latents, noise off, images in [-1, 1].
"""

from __future__ import annotations

import copy
import statistics
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import click
import torch

import squeeze_patch
from benchmarks.common import random_layers
from squeeze_patch.adapters import locate
from squeeze_patch.adapters.content import Kept
from squeeze_patch.demo import trained_generator
from squeeze_patch.demo.network import Generator
from squeeze_patch.evaluation.pixels import psnr
from squeeze_patch.sampling import sample
from squeeze_patch.surgery.apply import squeeze


def generator_from(weights: Optional[Path]) -> Any:
    """The demo's generator, or one whose sizes are those of a state dict."""
    if weights is None:
        return trained_generator()
    state: Dict[str, torch.Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
    resolution = max(int(name.split(".")[1][1:]) for name in state if name.startswith("synthesis.b"))
    last = f"synthesis.b{resolution}"
    G = Generator(
        z_dim=state["mapping.fc0.weight"].shape[1],
        c_dim=0,
        w_dim=state["mapping.w_avg"].shape[0],
        img_resolution=resolution,
        img_channels=state[f"{last}.torgb.bias"].shape[0],
        mapping_kwargs={"num_layers": sum(name.endswith("weight") for name in state if name.startswith("mapping.fc"))},
        synthesis_kwargs={
            "channel_base": state[f"{last}.conv1.bias"].shape[0] * resolution,
            "channel_max": state["synthesis.b4.const"].shape[0],
        },
    )
    G.load_state_dict(state)
    return G.eval().requires_grad_(False)


def by_weight_norm(G: Any, plan: squeeze_patch.Plan) -> Dict[str, Kept]:
    """The q filters of largest norm in every conv1."""
    kept = {}
    for block in plan.blocks:
        norms = getattr(G.synthesis, block.name).conv1.weight.square().sum(dim=[1, 2, 3])
        kept[block.name] = Kept(norms.topk(block.width).indices.sort().values)
    return kept


def weights_start(G: Any, plan: squeeze_patch.Plan, seed: int) -> None:
    squeeze(locate(G), plan, "weights", seed=seed)


def norm_start(G: Any, plan: squeeze_patch.Plan, seed: int) -> None:
    squeeze(locate(G), plan, "weights", kept=by_weight_norm(G, plan), seed=seed)


def random_start(G: Any, plan: squeeze_patch.Plan, seed: int) -> None:
    with random_layers(seed):
        squeeze(locate(G), plan, "random")


def calibrated_start(G: Any, plan: squeeze_patch.Plan, seed: int) -> None:
    squeeze(locate(G), plan, "calibrated", seed=seed)


def spectral_start(G: Any, plan: squeeze_patch.Plan, seed: int) -> None:
    """At the parameters of ``plan``; at ratio 1 there are none to spend."""
    if plan.reduction > 0:
        plan = squeeze_patch.plan(G, reduction=plan.reduction, allocate="spectral", seed=seed)
    squeeze(locate(G), plan, "calibrated", seed=seed)


#: {row: squeezes a dense generator as a Plan says, with a seed of its statistics or of its random layers}
STARTS: Dict[str, Callable[[Any, squeeze_patch.Plan, int], None]] = {
    "calibrated": calibrated_start,
    "and spectral": spectral_start,
    "from the weights": weights_start,
    "by weight norm": norm_start,
    "random": random_start,
}


def images_of(G: Any) -> torch.Tensor:
    return sample(G, 256, seed=1000, noise_mode="none")


def mean_image(images: torch.Tensor) -> float:
    """PSNR of the one image that is nearest to all: what any start has to beat."""
    return psnr(images, images.mean(dim=0, keepdim=True).expand_as(images))


@click.command()
@click.option("--weights", type=click.Path(path_type=Path, exists=True), help="A dense generator's state dict.")
@click.option("--ratios", default="1,1.5,2", show_default=True)
@click.option("--seeds", default=3, show_default=True, help="Seeds of the statistics and of random layers.")
def main(weights: Optional[Path], ratios: str, seeds: int) -> None:
    """Measure and print the table: median (lowest to highest) over the seeds."""
    dense = generator_from(weights)
    plans = {"default": squeeze_patch.plan(dense, allocate="uniform")}
    plans.update({f"ratio {ratio}": squeeze_patch.plan(dense, ratio=float(ratio)) for ratio in ratios.split(",")})
    images = images_of(dense)
    click.echo(f"{weights.name if weights else 'demo generator'}: {squeeze_patch.status(dense)}")
    click.echo(f"{'start':>18} " + " ".join(f"{name:>20}" for name in plans))
    for start, make in STARTS.items():
        cells: List[str] = []
        for plan in plans.values():
            values = []
            for seed in range(seeds):
                G = copy.deepcopy(dense)
                make(G, plan, seed)
                values.append(psnr(images, images_of(G)))
            cells.append(f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})")
        click.echo(f"{start:>18} " + " ".join(f"{cell:>20}" for cell in cells))
    click.echo(f"{'mean image':>18} {mean_image(images):>20.1f}")
